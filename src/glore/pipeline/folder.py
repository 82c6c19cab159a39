"""The run folder itself: what lies where, atomic writes, the lock, and what is removed.

    runs/NAME/
        config.yaml                     resolved settings of the last run
        stages/STAGE/PART-00000.parquet records, shard by shard
        stages/STAGE/started.json       fingerprint the unfinished stage is made under
        stages/STAGE/.PART-00000.json   what a shard of an unfinished stage counted
        stages/STAGE/done.json          written last: the stage is complete
        models/NAME/                    Hugging Face folders
        log/  report/

A file that exists under its own name is complete: everything is written to a temporary name,
flushed and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from glore.errors import RunError
from glore.files import LEFTOVER, remove_folder, replacing
from glore.pipeline.integrity import check_inside

__all__ = [
    "check_is_run_folder",
    "clear_stage",
    "locked",
    "sweep",
    "write_json",
    "write_text",
]

_OWN_NAMES = re.compile(r"^(log|\.lock|\.config\.yaml\..*)$")
_held: dict[tuple[int, int], object] = {}
"""Device and inode of each folder that this process has locked → the holder."""
# A child inherits the entries, but not the system's locks.
os.register_at_fork(after_in_child=_held.clear)


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write a JSON object atomically. Raises RunError."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises RunError when the disk refuses."""
    with replacing(path) as stream:
        stream.write(text.encode())


def clear_stage(run_dir: Path, folder: Path, models: Iterable[Path]) -> None:
    """Remove a stage's folder and the folders of these models, which it makes. Raises RunError,
    also for a link out of the run.

    Each folder is renamed before it is removed, so it is either whole or absent. The models go
    first, since `done.json` names them.
    """
    for path in (*sorted(models), folder):
        check_inside(path, run_dir)
        try:
            remove_folder(path)
        except OSError as error:
            raise RunError(
                f"can't clear {path}: {error.strerror or error}; remove it by hand, then run again"
            ) from error


def sweep(run_dir: Path) -> list[str]:
    """Remove the temporary files of killed processes in a run folder, and return their paths. The
    caller holds the run's lock.

    `glore report` writes without the lock, and `glore refine` merges adapters, so the files of a
    living process in report/ and models/ stay.
    """
    shared = (run_dir / "report", run_dir / "models")
    swept = []
    for place, folders, files in os.walk(run_dir):
        for name in [*folders, *files]:
            match, path = LEFTOVER.fullmatch(name), Path(place) / name
            if match is None or (path.parent in shared and _is_alive(int(match[1]))):
                continue
            with contextlib.suppress(OSError):
                _remove(path)
                swept.append(str(path.relative_to(run_dir)))
        folders[:] = [name for name in folders if not LEFTOVER.fullmatch(name)]
    return sorted(swept)


def _remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link, but never the target of a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether another process has this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def check_is_run_folder(run_dir: Path) -> None:
    """Raise RunError if `run_dir` is a file, can't be made, or is a folder with other content."""
    if not run_dir.exists():
        above = next(place for place in run_dir.absolute().parents if place.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            why = "nothing may be written" if above.is_dir() else "there is a file"
            raise RunError(
                f"can't use {run_dir} as a run folder: {why} at {above}; choose another name or "
                "runs_dir"
            )
        return
    if not run_dir.is_dir():
        raise RunError(
            f"{run_dir} is a file, but a run needs a folder there; choose another name or runs_dir"
        )
    names = sorted(p.name for p in run_dir.iterdir() if not _OWN_NAMES.match(p.name))
    if names and "config.yaml" not in names:
        raise RunError(
            f"{run_dir} is not a run folder (it holds {names[0]}, but no config.yaml); choose "
            "another name or runs_dir"
        )


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock the run folder against other processes, and other threads of this one. Raises RunError
    if it is locked.

    A POSIX record lock: the system releases it when its process ends, so a dead process leaves no
    lock behind. Such a lock does not exclude its own process, and closing the file a second time
    would release it; `_held` prevents both.
    """
    with contextlib.ExitStack() as stack:
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            key = (run_dir.stat().st_dev, run_dir.stat().st_ino)
            if _held.setdefault(key, stack) is not stack:
                raise RunError(
                    f"{run_dir} is in use by this process, {os.getpid()}; let that run end, then "
                    "run again"
                )
            stack.callback(_held.pop, key, None)  # after the file is closed
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # never empty the target of a link
            stream = stack.enter_context(
                open(os.open(run_dir / ".lock", flags, 0o666), "rb+", buffering=0)
            )
        except OSError as error:
            raise RunError(
                f"can't use {run_dir} as a run folder: {error.strerror or error}; choose another "
                "name or runs_dir"
            ) from error
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = stream.read(40).decode("ascii", "replace").strip() or "unknown"
            raise RunError(
                f"{run_dir} is in use by process {holder}; wait for it or stop it, then run again"
            ) from error
        # The pid is only for the message above, so a full disk does not matter here.
        with contextlib.suppress(OSError):
            stream.truncate(0)
            stream.write(b"%d\n" % os.getpid())
        yield
