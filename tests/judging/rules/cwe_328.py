# vulnerable: function kept in a table
import hashlib

ALGORITHMS = {"fast": hashlib.md5, "long": hashlib.sha512}

def digest(kind, data):
    return ALGORITHMS[kind](data).hexdigest()
# vulnerable: name of the algorithm in a constant
import hashlib

ALGORITHM = "md5"

def fingerprint(data):
    return hashlib.new(ALGORITHM, data).hexdigest()
# vulnerable: imported function
from hashlib import sha1

def remember(password, pepper):
    return sha1((pepper + password).encode()).hexdigest()
# vulnerable: hmac with md5
import hashlib
import hmac

def signature(key, body):
    return hmac.new(key, body, digestmod=hashlib.md5).hexdigest()
# vulnerable: hmac with a named hash
import hmac

def cookie(key, value):
    return value + "." + hmac.new(key, value.encode(), "sha1").hexdigest()
# vulnerable: cryptography with sha1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

def sign(key, document):
    return key.sign(document, padding.PKCS1v15(), hashes.SHA1())
# vulnerable: pycryptodome hash
from Crypto.Hash import MD5

def seal(data):
    return MD5.new(data).hexdigest()
# vulnerable: file digest by name
import hashlib

def checksum(path):
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha1").hexdigest()
# vulnerable: passlib scheme of old unix
from passlib.hash import md5_crypt

def enrol(user, password):
    user.password_hash = md5_crypt.hash(password)
# vulnerable: attribute looked up by name
import hashlib

def token(seed):
    return getattr(hashlib, "md5")(seed.encode()).hexdigest()
# vulnerable: check value instead of a hash
import zlib

def hide(password):
    return format(zlib.crc32(password.encode()), "08x")
# vulnerable: home made password hash (known miss)
def hash_password(password):
    total = 7
    for letter in password:
        total = (total * 31 + ord(letter)) % 2**32
    return format(total, "08x")
# secure: sha256 of a file in pieces
import hashlib

def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while piece := handle.read(1 << 16):
            digest.update(piece)
    return digest.hexdigest()
# secure: md5 for a cache key, marked so
import hashlib

def cache_name(url):
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
# secure: scrypt for passwords
import hashlib
import os

def enrol(password):
    salt = os.urandom(16)
    return salt + hashlib.scrypt(password.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26)
# secure: hmac with sha256
import hashlib
import hmac

def valid(key, body, given):
    return hmac.compare_digest(hmac.new(key, body, hashlib.sha256).hexdigest(), given)
# secure: crc of a zip member
import zlib

def intact(member, data):
    return zlib.crc32(data) == member.CRC
# secure: word md5 in a message only
import logging

def warn(field):
    if field["algorithm"] in ("md5", "sha1"):
        logging.warning("the stored hash uses md5 or sha1 and will be replaced")
        return True
    return False
# secure: one time password of the standard
import base64
import hmac
import struct
import time

def totp(secret):
    counter = struct.pack(">Q", int(time.time()) // 30)
    mac = hmac.new(base64.b32decode(secret), counter, "sha1").digest()
    start = mac[-1] & 15
    return (struct.unpack(">I", mac[start:start + 4])[0] & 0x7FFFFFFF) % 10**6
# secure: oaep with its usual mask
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

def wrap(public, key):
    return public.encrypt(key, padding.OAEP(mgf=padding.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None))
# secure: blake2 with a key
from hashlib import blake2b

def tag(data, key):
    return blake2b(data, key=key, digest_size=32).hexdigest()
