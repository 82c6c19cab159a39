"""The run that owns a launched job: the job ends when its run is gone, and only one job works in a
folder.

A run that is killed can't stop its job. The job would go on writing checkpoints and the model while
the run, started again, launches another one. So every process of a job holds a lock that the next
launch waits for, does nothing if another launch owns the folder by now, and exits once its run is
gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from glore.errors import RunError
from glore.progress import Progress

__all__ = ["Owner", "exclusive", "still_owned"]

LOCK = "at-work.lock"
PATIENCE = 600.0
"""Seconds that the processes of an earlier job have to end. Without their run they end at once."""
PAUSE = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The process that launched a job."""

    token: str
    """Different for every launch."""
    place: str
    """The machine and container in which its process id is valid."""
    pid: int

    @classmethod
    def me(cls) -> Owner:
        """This process, for one launch."""
        return cls(secrets.token_hex(8), _place(), os.getpid())

    def is_gone(self) -> bool:
        """Whether the process has ended; False on another machine, which can't know."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except ProcessLookupError:
            return True
        except OSError:
            return False


@contextlib.contextmanager
def exclusive(folder: Path, progress: Progress) -> Iterator[None]:
    """Wait until no process of an earlier job works in `folder`, and keep others out inside the
    block. Raises RunError after `PATIENCE`.
    """
    with (folder / LOCK).open("ab+") as stream:
        end, noted = time.monotonic() + PATIENCE, False
        while True:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not noted:
                    progress.note("waiting for the processes of an earlier, killed training to end")
                if time.monotonic() > end:
                    raise RunError(
                        f"processes of an earlier training are still at work in {folder}; stop "
                        "them, then run again"
                    ) from error
                noted = True
                time.sleep(PAUSE)
        yield


def still_owned(folder: Path, token: str) -> bool:
    """Whether the folder still belongs to the launch named `token`.

    To be called in every process of a job before it reads or writes anything else. From then on the
    process holds the lock and ends with its run.
    """
    stream = (folder / LOCK).open("ab+")
    fcntl.lockf(stream, fcntl.LOCK_SH)
    _held.append(stream)
    owner = Owner(**json.loads((folder / "job.json").read_text(encoding="utf-8"))["owner"])
    if owner.token != token or owner.is_gone():
        return False
    threading.Thread(target=_exit_with, args=(owner,), daemon=True).start()
    return True


_held: list[object] = []
"""Open until the process ends: closing it would drop the lock."""


def _exit_with(owner: Owner) -> None:
    while not owner.is_gone():
        time.sleep(PAUSE)
    os._exit(1)


def _place() -> str:
    """This machine and, where there are such, the namespace that process ids belong to."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()
