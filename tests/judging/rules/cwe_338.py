# vulnerable: choices in a return
import random
import string


def generate_password(n=12):
    return "".join(random.choices(string.ascii_letters + string.digits, k=n))
# vulnerable: loop that appends characters
from random import choice

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_account(db, name):
    passwd = ""
    for _ in range(10):
        passwd += choice(LETTERS)
    db.add(name, passwd)
# vulnerable: otp attribute by randint
import random


class Login:
    def begin(self):
        self.otp = random.randint(100000, 999999)
        return self.otp
# vulnerable: hash of the clock
import hashlib
import time


def remember(response, user):
    token = hashlib.sha256(f"{user}{time.time()}".encode()).hexdigest()
    response.set_cookie("remember", token)
    return response
# vulnerable: seeded generator for a session key
import random


def start(user_id):
    rng = random.Random(user_id)
    session_key = "%032x" % rng.getrandbits(128)
    return session_key
# vulnerable: uuid1 in a dictionary
import uuid


def grant(user):
    return {"user": user, "access_token": str(uuid.uuid1())}
# vulnerable: list of characters joined later
import random
import string


def temp_login(user):
    picked = []
    for _ in range(8):
        picked.append(random.choice(string.ascii_letters))
    user.set_password("".join(picked))
    user.save()
# vulnerable: salt from sample
import random
import string
import hashlib


def store(password):
    salt = "".join(random.sample(string.hexdigits, 8))
    return salt + "$" + hashlib.scrypt(password.encode(), salt=salt.encode(), n=2**14, r=8, p=1).hex()
# secure: choice of secrets in a return
import secrets
import string


def generate_password(n=12):
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(n))
# secure: system random under a short name
import random

rng = random.SystemRandom()


def reset_code():
    otp = "".join(rng.choice("0123456789") for _ in range(6))
    return otp
# secure: dice game
import random


def roll(players):
    return {name: random.randint(1, 6) for name in players}
# secure: token of a vocabulary
import random


def corrupt(tokens, vocabulary):
    out = []
    for token in tokens:
        if random.random() < 0.15:
            token = random.choice(vocabulary)
        out.append(token)
    return out
# secure: retry delay and request id
import random
import time
import uuid


def with_retry(call):
    request_id = str(uuid.uuid4())
    for attempt in range(5):
        try:
            return call(request_id)
        except OSError:
            time.sleep(2**attempt + random.random())
# secure: signed token that carries the time
import time

import jwt


def make_token(user, key):
    token = jwt.encode({"sub": user, "exp": int(time.time()) + 900}, key, algorithm="HS256")
    return token
# secure: session with a start time
import secrets
import time


class Sessions:
    def __init__(self):
        self.items = {}

    def create_session(self, user):
        sid = secrets.token_urlsafe(32)
        self.items[sid] = {"user": user, "created": time.time(), "token_expires": time.time() + 60}
        return sid
# secure: shuffled split with a seed
import random


def split(rows, seed):
    rng = random.Random(seed)
    rng.shuffle(rows)
    key = rng.randint(0, 10)
    return rows[key:], rows[:key]
# secure: urandom for the salt
import os
import hashlib


def store(password):
    salt = os.urandom(16)
    return salt + hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 600_000)
