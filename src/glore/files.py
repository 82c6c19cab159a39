"""Files and folders that are written whole or not at all; files read up to a limit; lines.

To write: a temporary name beside the target, flush, fsync, rename. A folder that stands at the
target is renamed first and removed last, so a killed process leaves the old folder, the new one, or
none, and never a mixture. Leftovers of killed processes are found by `LEFTOVER`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from glore.errors import RunError

__all__ = [
    "LEFTOVER",
    "flush",
    "move_folder",
    "read_bounded",
    "read_given",
    "remove_folder",
    "replacing",
    "replacing_folder",
    "split_lines",
]

LEFTOVER = re.compile(r"\..+\.(\d+)\.(tmp|old)")
"""Names that files and folders have while this module works on them. The number is the process."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes the file at `path` when the block ends without an error.

    Makes the parent folder if it is missing. Only a kill leaves a temporary file behind. Raises
    RunError when the disk refuses.
    """
    temporary = _beside(path, "tmp")
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


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that becomes `folder` when the block ends without an error.

    Makes the parent folder if it is missing. Only a kill leaves a temporary folder behind. Raises
    OSError when the disk refuses.
    """
    temporary = _beside(folder, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                flush(path)
        move_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder. A folder at `target` is replaced: it is put aside first and removed last.
    Raises OSError.
    """
    aside = _beside(target, "old")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    try:
        source.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it exists. It is renamed first, so that under its own name it is there
    whole or not at all. Raises OSError.
    """
    if folder.is_dir():
        aside = _beside(folder, "old")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)


def flush(path: Path) -> None:
    """Wait until the content of a file is on the disk. Raises OSError."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _beside(path: Path, kind: str) -> Path:
    """The name that `path` has in this process while it is written (`tmp`) or removed (`old`)."""
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def split_lines(text: str) -> list[str]:
    """A text → its lines without line ends. A line ends with `\\n` or `\\r\\n`, and nothing else.

    `str.splitlines` would also cut at U+2028, U+0085, VT and FF, which may stand within a line of
    JSON or of a model's text.
    """
    return [line.removesuffix("\r") for line in text.split("\n")]


WRITER_SECONDS = 2.0
"""How long a writer may take to open a named pipe."""


def read_given(path: Path, limit: int) -> bytes:
    """The content of the file or pipe at `path`. Raises OSError with the reason in `strerror`.

    More than `limit` bytes, a named pipe without a writer and an impossible name are such errors.
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
    """All bytes of a stream until it ends. Raises OSError for more than `limit` bytes."""
    data = bytearray()
    while block := stream.read(min(1 << 20, limit + 1 - len(data))):
        data += block
        if len(data) > limit:
            raise OSError(errno.EFBIG, f"larger than {limit // 2**20} MiB")
    return bytes(data)


def _from_a_pipe(number: int) -> bytes:
    """The first bytes of a pipe; none yet if a writer holds it open. Raises OSError if no writer
    does.
    """
    end = time.monotonic() + WRITER_SECONDS
    while time.monotonic() < end:
        try:
            if first := os.read(number, 1 << 16):
                return first
        except BlockingIOError:  # a writer holds the other end
            return b""
        time.sleep(0.02)
    raise OSError(errno.ENXIO, "a pipe that nobody writes to")
