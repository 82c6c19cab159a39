"""Files that a user names, read whole: bounded in size, and no wait for a pipe that nobody writes to."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO

__all__ = ["read_bounded", "read_given"]

WRITER_SECONDS = 2.0
"""Whoever writes to a named pipe has so long to open it."""


def read_given(path: Path, limit: int) -> bytes:
    """The content of the file (or pipe) at `path`. Raises OSError, whose `strerror` says in words what is wrong with it.

    That includes more than `limit` bytes, a named pipe without a writer, and a name that no system takes.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a NUL character")
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(number, "rb", buffering=0) as stream:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        first = _from_a_pipe(number) if stat.S_ISFIFO(os.fstat(number).st_mode) else b""
        os.set_blocking(number, True)
        return first + read_bounded(stream, limit - len(first))


def read_bounded(stream: BinaryIO, limit: int) -> bytes:
    """What comes out of a stream until it ends. Raises OSError for more than `limit` bytes."""
    data = bytearray()
    while block := stream.read(min(1 << 20, limit + 1 - len(data))):
        data += block
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit // 2**20} MiB")
    return bytes(data)


def _from_a_pipe(number: int) -> bytes:
    """The first bytes of a pipe, or none yet where a writer holds it. Raises OSError where nobody does."""
    end = time.monotonic() + WRITER_SECONDS
    while time.monotonic() < end:
        try:
            if first := os.read(number, 1 << 16):
                return first
        except BlockingIOError:  # somebody holds the other end
            return b""
        time.sleep(0.02)
    raise OSError(errno.ENXIO, "a pipe that nobody writes to")
