"""The limit: what this machine can move and multiply at best, and what the work needs at least.

    seconds >= max(bytes / bandwidth, operations / rate)     for each part of the work; parts follow one another

Counted are, with perfect prefix sharing and every batch full: two operations a weight and token in the linear layers, attention's
own, one read of the weights a step, and one read of a row's keys and values a step. Nothing else: no norms, no sampling, no Python.
"""

import time
from typing import Any

import torch

WIDTH = 96  # rows of a full batch, as the engine's default on a CPU


def machine(dtype: torch.dtype) -> dict[str, float]:
    """Return measured bytes a second (reading a large array) and operations a second of a large matrix product."""
    a = torch.zeros(512 * 2**20 // 4)
    bandwidth = max(_rate(a.sum, a.numel() * 4) for _ in range(5))
    x, weight = torch.randn(1024, 2048).to(dtype), torch.randn(4096, 2048).to(dtype)
    rate = max(_rate(lambda: torch.nn.functional.linear(x, weight), 2 * 1024 * 2048 * 4096) for _ in range(5))
    return {"bytes_per_second": bandwidth, "operations_per_second": rate, "threads": torch.get_num_threads()}


def _rate(work: Any, amount: float) -> float:
    work()
    start = time.perf_counter()
    for _ in range(5):
        work()
    return 5 * amount / (time.perf_counter() - start)


def work_of(organism: Any, prompt_lengths: list[int], conditions: int, new_tokens: float, found: dict[str, float]) -> dict[str, float]:
    """Return the least work and time of a grid in which each condition steers one layer at all positions.

    Args:
        organism: gives the sizes.
        prompt_lengths: in tokens.
        conditions: evenly spread over the layers: above its own layer each has a prefix of its own.
        new_tokens: mean written by a row.
        found: of `machine`.
    """
    model, config = organism.model, organism.model.config
    size = model.dtype.itemsize
    blocks = sum(p.numel() for p in model.model.layers.parameters())
    head = model.lm_head.weight.numel()
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    cached = 2 * config.num_key_value_heads * (width // config.num_attention_heads) * config.num_hidden_layers * size  # bytes a token
    prompt_tokens, rows = sum(prompt_lengths), len(prompt_lengths) * conditions
    mean_prompt = prompt_tokens / len(prompt_lengths)
    # Prompts: the shared part once, and on average half of the depth once a condition; attention is causal, so half of the square.
    states = 1 + conditions / 2
    read = states * (2 * blocks * prompt_tokens + 2 * width * config.num_hidden_layers * sum(n * n for n in prompt_lengths))
    length = mean_prompt + new_tokens / 2
    written = rows * new_tokens
    linear = 2 * (blocks + head) * written
    attention = 4 * width * config.num_hidden_layers * length * written
    moved = (written / WIDTH) * (blocks + head) * size + cached * length * written
    reading = read / found["operations_per_second"]
    multiplying, moving = (linear + attention) / found["operations_per_second"], moved / found["bytes_per_second"]
    return {
        "prompt_operations": read,
        "decode_operations": linear + attention,
        "decode_bytes": moved,
        "seconds": reading + max(multiplying, moving),
        "seconds_prompts": reading,
        "seconds_decode_operations": multiplying,
        "seconds_decode_bytes": moving,
    }
