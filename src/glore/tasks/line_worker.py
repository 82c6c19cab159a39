"""A process that answers requests line by line: started, asked within a time limit, ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO, cast

__all__ = ["Worker", "end_worker", "killed_after", "receive", "send", "start_worker"]

Worker = subprocess.Popen[str]
_SOURCE = str(Path(__file__).parents[2])


def start_worker(
    module: str,
    arguments: Sequence[str] = (),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Worker:
    """A process that runs this module of glore. `variables`: changes to its environment. Raises
    OSError if it can't be started.
    """
    # -P keeps the current folder off the worker's import path. glore is imported from where this
    # process has it.
    path = os.pathsep.join(filter(None, (_SOURCE, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, **variables},
    )


def send(worker: Worker, line: str) -> None:
    """Write a line. Raises OSError if the worker has died, ValueError if it was ended."""
    stdin = cast(TextIO, worker.stdin)
    stdin.write(line + "\n")
    stdin.flush()


def receive(worker: Worker) -> str:
    """Its next line, with the line end; "" or a part of one if it died. Raises OSError,
    ValueError.
    """
    return cast(TextIO, worker.stdout).readline()


@contextlib.contextmanager
def killed_after(worker: Worker, seconds: float) -> Iterator[None]:
    """Kill the worker if the block takes longer. So neither `send`, to one that reads nothing, nor
    `receive` waits forever.
    """
    timer = threading.Timer(seconds, worker.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end_worker(worker: Worker) -> None:
    """Kill it, and close its pipes."""
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with contextlib.suppress(OSError):  # a line that the dead worker never read
            cast(TextIO, pipe).close()
