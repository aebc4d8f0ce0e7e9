# vulnerable: recursive chmod of a tree
import os

def open_up(root):
    for folder, _, names in os.walk(root):
        for name in names:
            os.chmod(os.path.join(folder, name), 0o777)
# vulnerable: pathlib chmod of a token file
from pathlib import Path

def store(token):
    target = Path.home() / ".service-token"
    target.write_text(token)
    target.chmod(0o666)
# vulnerable: os.open with a wide mode
import os

def append(path, line):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o666)
    with os.fdopen(fd, "a") as out:
        out.write(line)
# vulnerable: stat constants for everybody
import os
import stat

def publish(socket_path):
    os.chmod(socket_path, stat.S_IRWXU | stat.S_IRWXG | stat.S_IRWXO)
# vulnerable: umask cleared in a daemon
import os

def daemonize():
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0)
# vulnerable: folder made with mode keyword
import os

class Store:
    def __init__(self, root):
        os.makedirs(root, mode=0o777, exist_ok=True)
        self.root = root
# vulnerable: decimal mode
import os

def share(path):
    os.chmod(path, 511)
# vulnerable: fchmod on an open file
import os

def write_config(path, text):
    with open(path, "w") as out:
        out.write(text)
        os.fchmod(out.fileno(), 0o666)
# vulnerable: mode kept in a constant
import os

EVERYONE = 0o777

def install(path):
    os.chmod(path, EVERYONE)
# secure: owner only
import os

def protect(path):
    os.chmod(path, 0o600)
# secure: group may read
from pathlib import Path

def hand_over(path):
    Path(path).chmod(0o640)
# secure: os.open with an owner mode
import os

def create_key(path, blob):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(blob)
# secure: narrow umask
import os

def with_private_files(action):
    before = os.umask(0o077)
    try:
        return action()
    finally:
        os.umask(before)
# secure: stat constants for the owner
import os
import stat

def lock_down(path):
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
# secure: folder for the owner
import os

def make_home(root, uid):
    folder = os.path.join(root, str(int(uid)))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder
# secure: removing rights of others
import os
import stat

def tighten(path):
    mode = os.stat(path).st_mode
    os.chmod(path, mode & ~(stat.S_IRWXG | stat.S_IRWXO))
# secure: number 777 that is no mode
def seats(plane):
    return [row for row in range(1, 61) if row * 10 != 777]
