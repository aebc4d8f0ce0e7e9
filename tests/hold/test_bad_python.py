"""The Python face: what a function does not take is refused in a sentence, by an exception of ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import is_a_sentence

PROGRAM = Path(__file__).parent / "python_face.py"


@pytest.fixture(scope="module")
def outcomes(writer_folders):
    base, adapter = map(str, writer_folders)
    done = subprocess.run([sys.executable, str(PROGRAM), base, adapter], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().split("\n")[-1])


def kinds():
    return ["number", "list", "text", "word", "vector", "sweep", "cache", "audit", "lens", "funnel", "gate", "paper"]


@pytest.mark.parametrize("kind", kinds())
def test_misuse_is_refused(kind, outcomes, subtests_of):
    given = {label: found for label, found in outcomes.items() if label.startswith(f"{kind}:")}
    assert given
    bad = {}
    for label, found in given.items():
        good = found is not None and found[1] and is_a_sentence(found[2])
        subtests_of(f"Python: {kind}", good)
        if not good:
            bad[label] = found
    assert not bad, json.dumps(bad, indent=1)


def test_no_kind_is_left_out(outcomes):
    assert {label.partition(":")[0] for label in outcomes} == set(kinds()) and len(outcomes) >= 100
