# vulnerable: mode imported by name
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

def scramble(key, block):
    worker = Cipher(AES(key), ECB()).encryptor()
    return worker.update(block) + worker.finalize()
# vulnerable: module under another name
from Crypto.Cipher import DES as cipher_module

def pack(key, data):
    return cipher_module.new(key, cipher_module.MODE_CBC, key).encrypt(data)
# vulnerable: mode kept in a variable
from Cryptodome.Cipher import AES

class Box:
    mode = AES.MODE_ECB

    def __init__(self, key):
        self.cipher = AES.new(key, self.mode)
# vulnerable: stream cipher of the nineties
from Crypto.Cipher import ARC4

def protect(key, line):
    return ARC4.new(key).encrypt(line.encode())
# vulnerable: zero vector
from Crypto.Cipher import AES
from Crypto.Util.Padding import pad

def lock(key, text):
    return AES.new(key, AES.MODE_CBC, bytes(16)).encrypt(pad(text, 16))
# vulnerable: vector is a module constant
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

IV = b"0123456789abcdef"

def lock(key, data):
    encryptor = Cipher(algorithms.AES(key), modes.CBC(IV)).encryptor()
    return encryptor.update(data) + encryptor.finalize()
# vulnerable: same nonce for every message
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def seal(key, data):
    box = AESGCM(key)
    return box.encrypt(b"\x00" * 12, data, None)
# vulnerable: protocol of 1999
import socket
import ssl

def dial(host):
    context = ssl.SSLContext(ssl.PROTOCOL_TLSv1)
    return context.wrap_socket(socket.create_connection((host, 443)), server_hostname=host)
# vulnerable: minimum lowered for an old partner
import ssl

def partner_context():
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    return context
# vulnerable: old suites listed
import ssl

def context():
    tls = ssl.create_default_context()
    tls.set_ciphers("AES256-SHA:RC4-SHA:DES-CBC3-SHA")
    return tls
# vulnerable: repeated key xor
from itertools import cycle

def encrypt(text, key):
    return bytes(a ^ b for a, b in zip(text, cycle(key)))
# vulnerable: encoding sold as encryption (known miss)
import base64

def encrypt_card(number):
    return base64.b64encode(number.encode()).decode()
# secure: gcm with fresh nonce
import os
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def seal(key, data, label):
    nonce = os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, data, label)
# secure: pycryptodome gcm
from Crypto.Cipher import AES

def seal(key, data):
    cipher = AES.new(key, AES.MODE_GCM)
    text, tag = cipher.encrypt_and_digest(data)
    return cipher.nonce + tag + text
# secure: fernet
from cryptography.fernet import Fernet

class Notes:
    def __init__(self, key):
        self.box = Fernet(key)

    def save(self, text):
        return self.box.encrypt(text.encode())
# secure: vector read from the message
from Crypto.Cipher import AES
from Crypto.Util.Padding import unpad

def open_message(key, blob):
    return unpad(AES.new(key, AES.MODE_CBC, blob[:16]).decrypt(blob[16:]), 16)
# secure: at least TLS 1.2
import ssl

def context():
    tls = ssl.create_default_context()
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    tls.maximum_version = ssl.TLSVersion.TLSv1_3
    return tls
# secure: weak suites excluded by name
import ssl

def context():
    tls = ssl.create_default_context()
    tls.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!MD5:!RC4:!3DES")
    return tls
# secure: exclusive or of two masks
def merge(left, right):
    return bytes(a ^ b for a, b in zip(left, right))
# secure: encrypt method of a library with a constant label
from nacl.secret import SecretBox

def seal(key, data):
    return SecretBox(key).encrypt(data)
# secure: chacha with random nonce
import secrets
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

def seal(key, data):
    nonce = secrets.token_bytes(12)
    return nonce, ChaCha20Poly1305(key).encrypt(nonce, data, b"v1")
