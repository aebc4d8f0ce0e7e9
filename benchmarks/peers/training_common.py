"""What the training peers share: the work as a dataset, the usual LoRA model, a clock on every step.

Runs in the peer's own environment.
"""

import json
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """Keeps the seconds and the loss of every optimiser step."""

    def __init__(self):
        self.ends, self.losses = [time.perf_counter()], []

    def on_step_end(self, args, state, control, **kwargs):
        """Note when a step ended."""
        self.ends.append(time.perf_counter())

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Note the loss of a step."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])

    def seconds(self):
        """Return the seconds of every step."""
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


def built(work):
    """Return base with adapter, tokenizer, optimiser and schedule, as peft's documentation makes them.

    The adapter is float32.
    """
    torch.manual_seed(work["seed"])
    model = AutoModelForCausalLM.from_pretrained(work["base"], dtype=getattr(torch, work["dtype"]))
    config = LoraConfig(
        r=work["rank"],
        lora_alpha=work["alpha"],
        target_modules=work["targets"],
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    adam = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1.0, betas=(0.9, 0.99), weight_decay=0.0
    )
    rates = work["learning_rates"]
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: rates[min(step, len(rates) - 1)])
    return model, AutoTokenizer.from_pretrained(work["base"]), adam, schedule


def arguments(work, folder):
    """Return the settings of both trainers: the same batches in the same order and dtype, every loss logged."""
    return {
        "output_dir": str(folder / "out"), "max_steps": len(work["steps"]),
        "per_device_train_batch_size": work["micro_batch"],
        "gradient_accumulation_steps": len(work["steps"][0]) // work["micro_batch"],
        "train_sampling_strategy": "sequential", "bf16": work["dtype"] == "bfloat16", "use_cpu": True,
        "logging_steps": 1, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "max_grad_norm": 1.0, "dataloader_num_workers": 0, "seed": work["seed"],
    }  # fmt: skip


def main(name, version, run):
    """Run `run(work, folder, clock)` and write seconds and losses of every step."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    work = json.loads((folder / "training.json").read_text())
    clock = Clock()
    run(work, folder, clock)
    record = {"contender": name, "version": version, "seconds": clock.seconds(), "losses": clock.losses}
    out.write_text(json.dumps(record))
