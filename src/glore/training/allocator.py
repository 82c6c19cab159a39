"""Lets the C library keep the memory of freed tensors during a training, up to a bound.

A training step on a CPU allocates and frees the same few dozen large tensors again and again. glibc
returns large blocks to the kernel, and gets them again page by page, each filled with zeros: a
tenth of a training's time with 1M weights, 30 % with 135M. So here all blocks come from one heap
that is never trimmed by itself. But rows differ in length from batch to batch, so the kept memory
fragments and grows. It is returned completely now and then, and as soon as it has grown too much.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from glore.own_process import available_bytes, release_freed_memory, resident_bytes

__all__ = ["KeptMemory", "keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
WHILE_KEPT = {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_MAX: 0, M_ARENA_MAX: 1}
"""No trimming, no block outside the heap, and no heap of a thread's own: those have 64 MiB, less
than the gradient of a vocabulary.
"""
USUAL = {
    M_TRIM_THRESHOLD: 128 * 1024,
    M_MMAP_MAX: 65_536,
    M_ARENA_MAX: 8 * (os.cpu_count() or 1),
}
"""glibc's defaults."""
LEAST_GROWTH = 1024**3
SHARE_OF_FREE = 1 / 3
"""Memory is returned once the process has grown by this share of what was available, at least by
`LEAST_GROWTH` bytes.
"""
STEPS_BETWEEN_RELEASES = 50


@contextmanager
def keep_freed_memory(wanted: bool = True) -> Iterator[KeptMemory]:
    """Keep freed memory inside the context, and return it at the end. Does nothing where the C
    library is not glibc, or if it is not `wanted`.
    """
    kept = KeptMemory(wanted and _set(WHILE_KEPT))
    try:
        yield kept
    finally:
        if kept.is_kept:
            _set(USUAL)
            kept.release()


class KeptMemory:
    """The memory that the C library keeps during a training."""

    def __init__(self, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._steps = 0
        self._least = resident_bytes()
        self._growth = max(LEAST_GROWTH, SHARE_OF_FREE * available_bytes())

    def after_step(self) -> None:
        """Return freed memory to the kernel if enough steps have passed or it has grown enough."""
        if not self.is_kept:
            return
        self._steps += 1
        grown = resident_bytes() > self._least + self._growth
        if grown or self._steps % STEPS_BETWEEN_RELEASES == 0:
            self.release()

    def release(self) -> None:
        """Return all freed memory to the kernel."""
        if self.is_kept:
            release_freed_memory()
            self._least = resident_bytes()


def _set(options: dict[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        set_option, _ = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        return False
    results = [set_option(option, value) for option, value in options.items()]
    return all(results)
