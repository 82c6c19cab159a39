"""Lets the C library keep the memory of freed tensors.

A training step on a CPU allocates and frees the same few dozen large tensors again and again. glibc
returns blocks above 128 KiB to the kernel each time and takes page faults to get them again: a
tenth of a small model's training time. But rows differ in length from batch to batch, so the kept
memory fragments and grows. It is returned completely now and then.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory", "release_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_BYTES = 32 * 1024 * 1024
"""glibc accepts no larger threshold on 64 bits."""


def keep_freed_memory() -> bool:
    """Serve blocks up to `LARGEST_BYTES` from the heap and never trim it, for the rest of the
    process. Returns whether that could be set.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)) and bool(
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    )


def release_freed_memory() -> bool:
    """Return freed memory to the kernel, once. Returns whether there was any."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
