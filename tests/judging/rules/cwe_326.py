# vulnerable: size in a constant
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

BITS = 1024

def new_key():
    return generate_private_key(65537, BITS)
# vulnerable: pycryptodome key
from Crypto.PublicKey import RSA

def export(path):
    with open(path, "wb") as handle:
        handle.write(RSA.generate(bits=1024).export_key())
# vulnerable: rsa package
import rsa

def pair():
    public, private = rsa.newkeys(512)
    return public.save_pkcs1(), private.save_pkcs1()
# vulnerable: pbkdf2 class with few rounds
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

def derive(password, salt):
    kdf = PBKDF2HMAC(algorithm=hashes.SHA256(), length=32, salt=salt, iterations=5_000)
    return kdf.derive(password)
# vulnerable: hasher of a django project
from django.contrib.auth.hashers import PBKDF2PasswordHasher

class QuickHasher(PBKDF2PasswordHasher):
    algorithm = "pbkdf2_quick"
    iterations = 2000
# vulnerable: bcrypt cost of four
import bcrypt

def enrol(password):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4))
# vulnerable: scrypt cost too low
import hashlib

def stretch(password, salt):
    return hashlib.scrypt(password, salt=salt, n=2**8, r=8, p=1)
# vulnerable: four byte token
import secrets

def invite(store, mail):
    token = secrets.token_hex(4)
    store[token] = mail
    return token
# vulnerable: small diffie hellman group
from cryptography.hazmat.primitives.asymmetric import dh

def agree():
    return dh.generate_parameters(generator=2, key_size=1024).generate_private_key()
# vulnerable: openssl from the shell
import subprocess

def make(path):
    subprocess.run(["openssl", "genrsa", "-out", path, "1024"], check=True)
# vulnerable: short curve
from cryptography.hazmat.primitives.asymmetric import ec

def signer():
    return ec.generate_private_key(ec.SECP192R1())
# vulnerable: password stretched by one hash
import hashlib

def key_from(password):
    return hashlib.sha256(password.encode()).digest()[:8]
# secure: rsa of three thousand bits
from cryptography.hazmat.primitives.asymmetric import rsa

SIZE = 3072

def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=SIZE)
# secure: elliptic curve key
from cryptography.hazmat.primitives.asymmetric import ec

def signer():
    return ec.generate_private_key(ec.SECP256R1())
# secure: many rounds
import hashlib

ROUNDS = 600_000

def derive(password, salt):
    return hashlib.pbkdf2_hmac("sha512", password, salt, ROUNDS, dklen=32)
# secure: scrypt as advised
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

def derive(password, salt):
    return Scrypt(salt=salt, length=32, n=2**17, r=8, p=1).derive(password)
# secure: short suffix of a file name
import secrets
from pathlib import Path

def unique(path):
    suffix = secrets.token_hex(4)
    return Path(path).with_stem(f"{Path(path).stem}-{suffix}")
# secure: short key of a cache entry
import secrets

def remember(cache, value):
    cache_key = secrets.token_hex(6)
    cache.set(cache_key, value, 60)
    return cache_key
# secure: session token of default length
import secrets

def login(user):
    user.token = secrets.token_urlsafe(32)
    return user.token
# secure: training loop with few iterations
def fit(model, data):
    iterations = 1000
    for _ in range(iterations):
        model.step(data, batch_size=512, key_size=64)
    return model
# secure: bcrypt default cost
import bcrypt

def enrol(password):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt())
# secure: aes key of 256 bits
import os

def new_secret():
    key = os.urandom(32)
    return key.hex()
