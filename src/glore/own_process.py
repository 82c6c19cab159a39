"""This process: the memory that it holds, and its environment variables."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["available_bytes", "release_freed_memory", "resident_bytes", "variable_set"]


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def available_bytes() -> int:
    """Memory that processes could still get; 0 where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(x for x in lines if x.startswith("MemAvailable:")).split()[1])
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def release_freed_memory() -> None:
    """Give the memory that was freed, and that the C library keeps, back to the system (glibc;
    others are left as they are).
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block, for what is configured by nothing else."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@functools.cache
def _trim() -> Callable[[int], object] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
