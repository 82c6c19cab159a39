"""The files of a run folder, and what makes them safe: atomic writes, the lock, markers and their checks.

    runs/NAME/
        config.yaml                     resolved settings of the last run
        stages/STAGE/PART-00000.parquet records, shard by shard
        stages/STAGE/started.json       fingerprint the unfinished stage is made under
        stages/STAGE/.PART-00000.json   what a shard of an unfinished stage counted (written before the shard)
        stages/STAGE/done.json          written last: the stage is complete
        models/NAME/                    Hugging Face folders
        log/  report/

A file that exists under its own name is complete: everything is written to a temporary name, flushed and renamed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glore.errors import RunError
from glore.files import replacing

__all__ = [
    "DoneMark",
    "check_belongs_together",
    "check_is_run_folder",
    "check_stage_files",
    "clear_stage",
    "locked",
    "makers",
    "model_signatures",
    "part_files",
    "read_done",
    "read_json",
    "tree_sizes",
    "write_json",
    "write_text",
]

_OWN_NAMES = re.compile(r"^(log|\.lock|\.config\.yaml\..*)$")


@dataclasses.dataclass(frozen=True, slots=True)
class DoneMark:
    """`done.json`: what a complete stage was made from, and what it holds."""

    stage: str
    fingerprint: str
    settings: dict[str, object]
    """The settings the stage reads, flat: dotted path → value."""
    inputs: dict[str, str]
    """Input stage → its fingerprint."""
    stage_version: int
    schema_version: int
    counts: dict[str, float]
    seconds: float
    """Wall time, reused shards of interrupted attempts included."""
    tokens: int
    files: dict[str, int]
    """Parquet file → bytes."""
    models: dict[str, dict[str, int]]
    """Model made by the stage → file → bytes."""
    versions: dict[str, str]
    finished: str


def read_done(folder: Path) -> DoneMark | None:
    """The stage's `done.json`, or none where there is none or it is not readable as one."""
    data = read_json(folder / "done.json")
    names = {f.name for f in dataclasses.fields(DoneMark)}
    if data is None or set(data) != names:
        return None
    return DoneMark(**data)  # type: ignore[arg-type]  # our own file, written by this class


def read_json(path: Path) -> dict[str, object] | None:
    """A JSON object from a file, or none where the file is missing or holds something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, data: Mapping[str, object]) -> None:
    """Write a JSON object atomically. Raises RunError."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises RunError when the disk refuses."""
    with replacing(path) as stream:
        stream.write(text.encode())


def part_files(folder: Path, part: str) -> list[Path]:
    """The shards of one part of a stage, in order."""
    pattern = re.compile(re.escape(part) + r"-(\d+)\.parquet")
    found = ((pattern.fullmatch(p.name), p) for p in folder.glob("*.parquet"))
    return [path for _, path in sorted((int(m.group(1)), path) for m, path in found if m)]


def tree_sizes(folder: Path) -> dict[str, int]:
    """Relative path → bytes of every file below `folder`."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


def model_signatures(run_dir: Path) -> dict[str, list[int]]:
    """Model folder name → inode of the folder and latest change of it and its files: different once a model is made anew."""
    folders = [p for p in sorted((run_dir / "models").glob("*")) if p.is_dir()]
    return {p.name: [p.stat().st_ino, max(q.stat().st_ctime_ns for q in (p, *p.rglob("*")))] for p in folders}


def check_stage_files(run_dir: Path, folder: Path, done: DoneMark) -> str | None:
    """What is wrong with a complete stage's files (missing, other size, unreadable), or none."""
    for name, n_bytes in done.files.items():
        path = folder / name
        try:
            if path.stat().st_size != n_bytes:
                return f"{path} has changed on disk"
            pq.read_metadata(path)
        except (OSError, pa.ArrowException):
            return f"{path} is missing or unreadable"
    for model, files in done.models.items():
        for name, n_bytes in files.items():
            path = run_dir / "models" / model / name
            try:
                if path.stat().st_size != n_bytes:
                    return f"{path} has changed on disk"
            except OSError:
                return f"{path} is missing"
    return None


def clear_stage(run_dir: Path, folder: Path) -> None:
    """Remove a stage's records and the models it made.

    The models go first, since `done.json` names them; then the marks, so that a half-cleared stage never looks complete.
    """
    done = read_done(folder)
    try:
        for model in done.models if done else ():
            shutil.rmtree(run_dir / "models" / model, ignore_errors=True)
        (folder / "done.json").unlink(missing_ok=True)
        (folder / "started.json").unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"can't clear {folder}: {error.strerror or error}; remove it by hand, then run again") from error


def makers(run_dir: Path, models: Sequence[str]) -> list[str]:
    """The finished stages that made these models."""
    marks = [read_done(path.parent) for path in sorted((run_dir / "stages").glob("*/done.json"))]
    return [mark.stage for mark in marks if mark is not None and set(models) & set(mark.models)]


def check_belongs_together(run_dir: Path, stages: Sequence[str]) -> None:
    """Raise RunError where one of these stages, or one they come from, was made from another result than the one that is there now."""
    waiting, seen = list(stages), set(stages)
    while waiting:
        name = waiting.pop()
        mark = read_done(run_dir / "stages" / name)
        for source, fingerprint in mark.inputs.items() if mark else ():
            now = read_done(run_dir / "stages" / source)
            if now is None or now.fingerprint != fingerprint:
                raise RunError(
                    f"{run_dir}: stage {name} was made from another {source} than the one there now, so its results don't belong "
                    f"together; go on with glore run {run_dir / 'config.yaml'} --redo"
                )
            if source not in seen:
                seen.add(source)
                waiting.append(source)


def check_is_run_folder(run_dir: Path) -> None:
    """Raise RunError where `run_dir` is a file, or a folder with other people's things in it."""
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise RunError(f"{run_dir} is a file, but a run needs a folder there; choose another name or runs_dir")
    names = sorted(p.name for p in run_dir.iterdir() if not _OWN_NAMES.match(p.name))
    if names and "config.yaml" not in names:
        raise RunError(f"{run_dir} is not a run folder (it holds {names[0]}, but no config.yaml); choose another name or runs_dir")


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run folder against other processes. Raises RunError where one is at work there.

    A POSIX record lock: the system drops it with its process, however that ends, so a dead process leaves no lock behind.
    """
    path = run_dir / ".lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        stream = path.open("ab+", buffering=0)
    except OSError as error:
        message = f"can't use {run_dir} as a run folder: {error.strerror or error}; choose another name or runs_dir"
        raise RunError(message) from error
    with stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read(40).decode("ascii", "replace").strip() or "unknown"
            raise RunError(f"{run_dir} is in use by process {holder}; wait for it or stop it, then run again") from error
        # Only for the message above, so a disk without space for a pid is no reason to stop here.
        with contextlib.suppress(OSError):
            stream.truncate(0)
            stream.write(b"%d\n" % os.getpid())
        yield
