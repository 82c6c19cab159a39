"""Files that are written whole or not at all, folders that know the digest of their files, and what
ends a line.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from glore.errors import ModelError, RunError

__all__ = [
    "DIGESTS",
    "check_digests",
    "damage",
    "file_digest",
    "is_inside",
    "read_bounded",
    "read_digests",
    "read_given",
    "replacing",
    "split_lines",
    "write_digests",
]

DIGESTS = "glore-digests.json"
"""In a model folder or a checkpoint: relative file name → digest of the file's whole content.
Written last.
"""
_UNCHECKED = (DIGESTS, "README.md")
"""The model card is for people to edit, and no loader reads it."""
_SETTLED_NS = 2 * 10**9


def split_lines(text: str) -> list[str]:
    """The lines of a text without what ends them: `\\n` or `\\r\\n`, nothing else.

    `str.splitlines` would also cut at U+2028, U+0085, VT and FF, which JSON and a model's text hold
    within a line.
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file when the block ends without an error: temporary name,
    flush, fsync, rename.

    Makes the folder where it is missing, and leaves no temporary file behind but after a kill.
    Raises RunError when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"can't write {path}: {error.strerror or error}; free some space or choose another run "
            "folder, then run again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_digests(folder: Path) -> None:
    """Flush every file below `folder`, then write their digests into its `glore-digests.json`.
    Raises RunError.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in _UNCHECKED)
    try:
        for path in files:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        digests = {p.relative_to(folder).as_posix(): file_digest(p) for p in files}
    except OSError as error:
        raise RunError(
            f"can't write {folder}: {error.strerror or error}; free some space or check the disk, "
            "then run again"
        ) from error
    with replacing(folder / DIGESTS) as stream:
        stream.write((json.dumps(digests, indent=1, sort_keys=True) + "\n").encode())


def check_digests(folder: Path) -> None:
    """Compare the files below `folder` with its `glore-digests.json`. A folder without one, from
    elsewhere, passes.

    Raises ModelError naming the first file that is missing or has other content.
    """
    if (folder / DIGESTS).exists() and (wrong := damage(folder)):
        raise ModelError(
            f"{wrong}: the model at {folder} is damaged; copy it anew from where it is whole, or "
            "delete that folder and make it again with the same glore run"
        )


def damage(folder: Path) -> str | None:
    """What is wrong with a folder that carries digests, in words; none where every file has the
    content it was written with.
    """
    digests = read_digests(folder)
    if digests is None:
        return f"{folder / DIGESTS} is missing or unreadable"
    for name, digest in digests.items():
        path = folder / name
        try:
            if file_digest(path) != digest:
                return f"{path} has changed since it was written"
        except OSError:
            return f"{path} is missing or unreadable"
    return None


def read_digests(folder: Path) -> dict[str, str] | None:
    """The folder's digests; none where their file is missing, unreadable, or names a file outside
    the folder.
    """
    try:
        data = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or not all(
        isinstance(value, str) and is_inside(name) for name, value in data.items()
    ):
        return None
    return data


def is_inside(name: str) -> bool:
    """Is it a relative path that stays below the folder it is joined to?"""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    )


def file_digest(path: Path) -> str:
    """A hash of the file's whole content. A file that this process has read since it last changed
    is not read again. Raises OSError.
    """
    found = path.stat()
    # File systems count time in ticks: what changed just now may change again and look the same.
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
    digest = _digest if settled else _digest.__wrapped__
    return digest(
        path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    )


@functools.lru_cache(maxsize=4096)
def _digest(path: Path, *state: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(
            stream, functools.partial(hashlib.blake2b, digest_size=20)
        ).hexdigest()


WRITER_SECONDS = 2.0
"""Whoever writes to a named pipe has so long to open it."""


def read_given(path: Path, limit: int) -> bytes:
    """The content of the file (or pipe) at `path`. Raises OSError, whose `strerror` says in words
    what is wrong with it.

    That includes more than `limit` bytes, a named pipe without a writer, and a name that no system
    takes.
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
    """The first bytes of a pipe, or none yet where a writer holds it. Raises OSError where nobody
    does.
    """
    end = time.monotonic() + WRITER_SECONDS
    while time.monotonic() < end:
        try:
            if first := os.read(number, 1 << 16):
                return first
        except BlockingIOError:  # somebody holds the other end
            return b""
        time.sleep(0.02)
    raise OSError(errno.ENXIO, "a pipe that nobody writes to")
