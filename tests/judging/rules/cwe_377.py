# vulnerable: mktemp imported by name
from tempfile import mktemp

def spill(frames):
    where = mktemp(".npy")
    with open(where, "wb") as sink:
        for frame in frames:
            sink.write(frame)
    return where
# vulnerable: mktemp through a module alias
import tempfile as tf

class Cache:
    def __init__(self):
        self.location = tf.mktemp(dir="/srv/cache", prefix="c-")
# vulnerable: fixed pid file in the shared folder
import os

def write_pid():
    with open("/tmp/collector.pid", "w") as out:
        out.write(str(os.getpid()))
# vulnerable: pathlib path under tmp
from pathlib import Path

LOCK = Path("/tmp/nightly.lock")

def acquire():
    if LOCK.exists():
        raise SystemExit("already running")
    LOCK.write_text("1")
# vulnerable: f-string name with the process id
import os

def spool(job, body):
    target = f"/tmp/job-{job}-{os.getpid()}.dat"
    with open(target, "wb") as out:
        out.write(body)
    return target
# vulnerable: joined to the var tmp folder
import os

def stash(name, text):
    target = os.path.join("/var/tmp", name + ".txt")
    with open(target, "w") as out:
        out.write(text)
# vulnerable: gettempdir joined with a fixed name
import os
import tempfile

def settings_dump(text):
    target = os.path.join(tempfile.gettempdir(), "settings.json")
    with open(target, "w") as out:
        out.write(text)
# secure: named temporary file as context
import tempfile

def render(html, convert):
    with tempfile.NamedTemporaryFile("w", suffix=".html") as page:
        page.write(html)
        page.flush()
        return convert(page.name)
# secure: mkstemp and fdopen
import os
import tempfile

def save_atomically(path, data):
    fd, scratch = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
    with os.fdopen(fd, "wb") as out:
        out.write(data)
    os.replace(scratch, path)
# secure: temporary directory holding a fixed name
import os
import tempfile

def build(compile_one, source):
    with tempfile.TemporaryDirectory() as room:
        target = os.path.join(room, "out.o")
        compile_one(source, target)
        with open(target, "rb") as built:
            return built.read()
# secure: spooled temporary file
from tempfile import SpooledTemporaryFile

def buffer(chunks):
    store = SpooledTemporaryFile(max_size=1 << 20)
    for chunk in chunks:
        store.write(chunk)
    store.seek(0)
    return store
# secure: own method that is called mktemp
class Thermometer:
    def mktemp(self, celsius):
        return celsius * 9 / 5 + 32

def report(values):
    probe = Thermometer()
    return [probe.mktemp(value) for value in values]
# secure: a folder of the application that ends in tmp
import os
import uuid

def stage(base, data):
    target = os.path.join(base, "tmp", uuid.uuid4().hex)
    with open(target, "xb") as out:
        out.write(data)
    return target
# secure: mkdtemp with a prefix
import pathlib
import tempfile

def workspace():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="render-"))
    (folder / "input").mkdir()
    return folder
