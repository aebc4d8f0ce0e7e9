"""The table of bad inputs: kind, cases, pass; printed at the end of a run of this folder."""

from collections import Counter

import pytest

COUNTS: dict[str, Counter] = {}


def pytest_runtest_logreport(report):
    kind = dict(report.user_properties).get("bad input")
    if kind is not None and report.when == "call":
        COUNTS.setdefault(kind, Counter())[report.outcome] += 1


@pytest.fixture
def subtests_of():
    """Counts the cases of a test that runs many at once."""

    def count(kind, good):
        COUNTS.setdefault(kind, Counter())["passed" if good else "failed"] += 1

    return count


def pytest_terminal_summary(terminalreporter):
    if not COUNTS:
        return
    width = max(map(len, COUNTS))
    write = terminalreporter.write_line
    write(f"\n{'kind of bad input':{width}}  cases  pass")
    for kind, found in [*sorted(COUNTS.items()), ("all", sum(COUNTS.values(), Counter()))]:
        write(f"{kind:{width}}  {found.total():5}  {found['passed']:4}")
