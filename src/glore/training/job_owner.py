"""A launched job belongs to the run that started it: it ends when that run is gone, and no two jobs
work in one folder.

A run that is killed can't stop what it launched. Left alone, such a job would go on writing
checkpoints and the model while the run, started again, launches another. So every process of a job
holds a lock that the next launch waits for, does nothing where the folder is another launch's by
now, and leaves once its run is no more.
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
"""So many seconds the processes of an earlier job have to end; without their run they do at once.
"""
PAUSE = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The process that launched a job."""

    token: str
    """Different for every launch."""
    place: str
    """Where its process id means something."""
    pid: int

    @classmethod
    def me(cls) -> Owner:
        """This process, for one launch."""
        return cls(secrets.token_hex(8), _place(), os.getpid())

    def is_gone(self) -> bool:
        """Has the process ended? Nobody can tell from another machine or container: false there."""
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
    """Wait until no process of an earlier job is at work in `folder`, and keep them out inside the
    block. Raises RunError.
    """
    with (folder / LOCK).open("ab+") as stream:
        end, told = time.monotonic() + PATIENCE, False
        while True:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if not told:
                    progress.note("waiting for the processes of an earlier, killed training to end")
                if time.monotonic() > end:
                    raise RunError(
                        f"processes of an earlier training are still at work in {folder}; stop "
                        "them, then run again"
                    ) from error
                told = True
                time.sleep(PAUSE)
        yield


def still_owned(folder: Path, token: str) -> bool:
    """Called in every process of a job, before it reads or writes anything else: does the folder
    still still_owned to its launch?

    From then on the process holds the lock and ends with its run.
    """
    stream = (folder / LOCK).open("ab+")
    fcntl.lockf(stream, fcntl.LOCK_SH)
    _held.append(stream)
    owner = Owner(**json.loads((folder / "job.json").read_text(encoding="utf-8"))["owner"])
    if owner.token != token or owner.is_gone():
        return False
    threading.Thread(target=_leave_with, args=(owner,), daemon=True).start()
    return True


_held: list[object] = []
"""Open until the process ends: closing it would drop the lock."""


def _leave_with(owner: Owner) -> None:
    while not owner.is_gone():
        time.sleep(PAUSE)
    os._exit(1)


def _place() -> str:
    """This machine and, where there are such, the namespace that process ids still_owned to."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()
