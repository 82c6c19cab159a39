"""stdin, stdout and stderr of the command line: what is closed, full or gone ends in one line, and
never in somebody's file.

A number that is free goes to the next file that is opened, so with stdout closed a library's print
would land in a run's records: `/dev/null` takes the numbers of what is closed. A result that can't
be shown is an error, said once; a progress line or an error message that can't be shown is not
worth a run.
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

__all__ = ["OutputError", "guard_streams", "stdout_failed"]


class OutputError(GloreError):
    """stdout takes no more."""


class _Stdout(io.FileIO):
    """Raises OutputError at the first write that fails; later ones are dropped, so that nothing is
    said twice on the way out.
    """

    failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """All of `data`, however slow the reader of a stream that must not be waited for is."""
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
                "stdout: whoever read it has gone (broken pipe), so the rest was not shown; read "
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
    """Drops what can't be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        """As much as goes."""
        with contextlib.suppress(OSError):
            return super().write(data) or len(memoryview(data).cast("B"))
        return len(memoryview(data).cast("B"))


def guard_streams() -> None:
    """Make the three streams safe to use; to be called first. Raises OutputError where stdout is
    closed. stdin is none where closed.
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
    """Whether something that stdout was given did not arrive."""
    return isinstance(sys.stdout, io.TextIOWrapper) and getattr(
        getattr(sys.stdout.buffer, "raw", None), "failed", False
    )


def _around(raw: io.FileIO, old: TextIO | None) -> TextIO:
    """A text stream like `old`, in which what its encoding lacks is spelt out."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(old, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(old, "line_buffering", True),
        write_through=getattr(old, "write_through", False),
    )
