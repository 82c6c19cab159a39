"""Replaces the folders of several stages together: all or none, even if the process is killed.

The new folders are prepared in one hidden folder of the run. Renaming that folder commits them.
After a kill, the next process that holds the run's lock completes the rest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from glore.errors import RunError
from glore.files import move_folder

__all__ = ["finish_swap", "is_swap_pending", "prepared_swap"]

_PENDING = ".swap"


@contextlib.contextmanager
def prepared_swap(run_dir: Path) -> Iterator[Path]:
    """A new folder. Each `STAGE/` that the block writes there replaces `stages/STAGE/` when the
    block ends without an error. The caller holds the run's lock. Raises RunError if the disk
    refuses.
    """
    # `sweep` removes a folder of this name after a kill.
    place = run_dir / f".swap.{os.getpid()}.tmp"
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        yield place
        place.rename(run_dir / _PENDING)
    except OSError as error:
        raise RunError(
            f"can't write below {run_dir}: {error.strerror or error}; nothing was changed: free "
            "some space, then try again"
        ) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    finish_swap(run_dir)


def is_swap_pending(run_dir: Path) -> bool:
    """Whether a process was killed while it replaced folders here."""
    return (run_dir / _PENDING).is_dir()


def finish_swap(run_dir: Path) -> None:
    """Complete the replacement that a killed process began, if there is one. The caller holds the
    run's lock. Raises RunError.
    """
    if not is_swap_pending(run_dir):
        return
    pending = run_dir / _PENDING
    try:
        for new in sorted(pending.iterdir()):
            move_folder(new, run_dir / "stages" / new.name)
        pending.rmdir()
    except OSError as error:
        raise RunError(
            f"can't replace stages of {run_dir}: {error.strerror or error}; fix that, then run "
            "again to complete it"
        ) from error
