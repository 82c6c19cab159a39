"""Several stages' folders exchanged together: all or none, whenever the process is killed.

The new folders are prepared whole in one hidden folder of the run. Giving that its final name is
the moment from which they count; whoever holds the run's lock next carries out what is left to do.
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
    """A new folder; what the block leaves there as `STAGE/` replaces `stages/STAGE/` when the block
    ends without an error. Hold the run's lock. Raises RunError when the disk refuses.
    """
    # Such a name is swept after a kill.
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
    """Was a process killed while it exchanged folders here?"""
    return (run_dir / _PENDING).is_dir()


def finish_swap(run_dir: Path) -> None:
    """Carry out what a killed process left to do, if there is anything. Hold the run's lock. Raises
    RunError.
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
            f"can't exchange stages of {run_dir}: {error.strerror or error}; mend that, then run "
            "again: it goes on there"
        ) from error
