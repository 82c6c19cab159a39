"""stdin, stdout and stderr of the command line: a closed, full or broken stream gives one line, and
nothing is written to a wrong file.

The system gives a free descriptor to the next file that is opened. With stdout closed, a library's
print would go to a run's records. So `/dev/null` takes the descriptors of closed streams. A result
that can't be shown is an error, reported once. A progress line or an error message that can't be
shown is dropped.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from glore.errors import GloreError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console

__all__ = ["OutputError", "guard_streams", "new_console", "stdout_failed"]


class OutputError(GloreError):
    """A write to stdout failed."""


class _Stdout(io.FileIO):
    """Raises OutputError at the first write that fails. Later writes are dropped, so that the error
    is reported once.
    """

    failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of `data`, and wait for a slow reader of a non-blocking stream."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        try:
            while rest and not self.failed:
                n = super().write(rest)
                if n is None:
                    select.select([], [self.fileno()], [])
                rest = rest[n or 0 :]
        except BrokenPipeError as error:
            self.failed = True
            raise OutputError(
                "stdout: its reader has stopped (broken pipe), so the rest was not shown; read "
                "it to its end"
            ) from error
        except OSError as error:
            self.failed = True
            raise OutputError(
                f"stdout can't be written: {error.strerror or error}, so the rest was not shown; "
                "redirect it to another file"
            ) from error
        return n_bytes


class _Stderr(io.FileIO):
    """Drops data that can't be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Write as much of `data` as possible."""
        with contextlib.suppress(OSError):
            return super().write(data) or len(memoryview(data).cast("B"))
        return len(memoryview(data).cast("B"))


def guard_streams() -> None:
    """Make the three streams safe to use. Call it first. A closed stdin stays none. Raises
    OutputError if stdout is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _around(_Stderr(2, "wb", closefd=False), sys.stderr)
    if sys.stdout is None:
        sys.stdout = _around(_Stdout(1, "wb", closefd=False), None)
        raise OutputError(
            "stdout is closed, so nothing could be shown; leave it open, or redirect it to a file "
            "or /dev/null"
        )
    if sys.stdout is sys.__stdout__:
        sys.stdout = _around(_Stdout(1, "wb", closefd=False), sys.stdout)


def stdout_failed() -> bool:
    """True if a write to stdout has failed."""
    return isinstance(sys.stdout, io.TextIOWrapper) and getattr(
        getattr(sys.stdout.buffer, "raw", None), "failed", False
    )


def _around(raw: io.FileIO, old: TextIO | None) -> TextIO:
    """A text stream like `old` that escapes characters missing in its encoding."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(old, "line_buffering", True),
        write_through=getattr(old, "write_through", False),
    )


def new_console() -> Console:
    """A console on stdout whose texts are data: no markup."""
    from rich.console import Console

    # A pipe has no width; 80 columns would fold the tables there.
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, markup=False, emoji=False, width=width)
