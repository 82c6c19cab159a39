"""The files of a run against the marks of its stages: present, unchanged, and made from each other.

Nothing outside the run folder is read: a symbolic link out of it is refused.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glore.digests import DIGESTS, file_digest, is_inside, read_digests, write_digests
from glore.errors import RunError, printable
from glore.pipeline.marks import DoneMark, FileMark, read_done

__all__ = [
    "Damage",
    "check_belongs_together",
    "check_inside",
    "check_records",
    "check_stage_files",
    "file_mark",
    "finished_stages",
    "is_removed",
    "makers",
    "model_marks",
    "part_files",
    "recorded_files",
]


def part_files(folder: Path, part: str) -> list[Path]:
    """The shards of one part of a stage, in order."""
    pattern = re.compile(re.escape(part) + r"-(\d+)\.parquet")
    found = ((pattern.fullmatch(p.name), p) for p in folder.glob("*.parquet"))
    return [path for _, path in sorted((int(m.group(1)), path) for m, path in found if m)]


def recorded_files(folder: Path, part: str) -> list[Path]:
    """`part_files`, checked against what the stage recorded. Raises RunError for a changed file."""
    files = part_files(folder, part)
    _check_content(read_done(folder), files)
    return files


def check_records(folder: Path) -> None:
    """Raise RunError if a record file of a finished stage has changed since."""
    _check_content(read_done(folder), sorted(folder.glob("*.parquet")))


def _check_content(mark: DoneMark | None, files: Sequence[Path]) -> None:
    for path in files:
        recorded = mark.files.get(path.name) if mark else None
        try:
            changed = recorded is not None and file_digest(path) != recorded.digest
        except OSError as error:
            raise RunError(
                f"can't read {path}: {error.strerror or error}; restore it from a copy, or delete "
                "it and run again"
            ) from error
        if changed:
            raise RunError(
                f"{path} has changed since its stage wrote it; restore it from a copy, or delete "
                "it and run again, which computes the stage again"
            )


def file_mark(path: Path) -> FileMark:
    """Size and digest of a file as it is now."""
    return FileMark(path.stat().st_size, file_digest(path))


def model_marks(folder: Path) -> dict[str, FileMark]:
    """The files of a model that was just saved, from its digests file, which is written if it is
    missing. Raises RunError.
    """
    if not (folder / DIGESTS).exists():
        write_digests(folder)
    digests = read_digests(folder)
    if digests is None:
        raise RunError(f"{folder / DIGESTS} can't be read back; check the disk, then run again")
    try:
        marks = {
            name: FileMark((folder / name).stat().st_size, digest)
            for name, digest in digests.items()
        }
        return {**marks, DIGESTS: file_mark(folder / DIGESTS)}
    except OSError as error:
        raise RunError(
            f"can't read {error.filename or folder} back: {error.strerror or error}; check the "
            "disk, then run again"
        ) from error


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """A fault in the files of a complete stage."""

    what: str
    is_absent: bool
    """A file is missing, so computing the stage again loses nothing more."""


def check_stage_files(run_dir: Path, folder: Path, done: DoneMark) -> Damage | None:
    """The first fault in the files of a complete stage (missing, other size, unreadable, not its
    own), or None.

    Only sizes are compared here. Content is compared when a file is read or a model loaded. Raises
    RunError for a link out of the run.
    """
    files = {folder / name: mark for name, mark in done.files.items()}
    models = {
        run_dir / "models" / model / name: mark
        for model, files in done.models.items()
        if not is_removed(done, model, run_dir / "models" / model)
        for name, mark in files.items()
    }
    for path, mark in (files | models).items():
        check_inside(path, run_dir)
        try:
            size = path.stat().st_size
            if size == mark.bytes and path in files:
                pq.read_metadata(path)
        except FileNotFoundError:
            return Damage(f"{path} is missing", is_absent=True)
        except (OSError, pa.ArrowException, ValueError):  # such as a column name that is no UTF-8
            return Damage(f"{path} is unreadable", is_absent=False)
        if size != mark.bytes or (path.name == DIGESTS and file_digest(path) != mark.digest):
            return Damage(f"{path} has changed on disk", is_absent=False)
    more = sorted(p for p in folder.glob("*.parquet") if p not in files)
    return (
        Damage(f"{more[0]} is not among the files that done.json names", is_absent=False)
        if more
        else None
    )


def is_removed(done: DoneMark, model: str, folder: Path) -> bool:
    """Whether a model of the stage was removed to save disk. One that a kill left there, or that a
    user put back, is not.
    """
    return model in done.removed and not folder.exists()


def check_inside(path: Path, run_dir: Path) -> None:
    """Raise RunError if a symbolic link leads from a path of the run out of it."""
    if not path.resolve().is_relative_to(run_dir.resolve()):
        raise RunError(
            f"{path} is, or lies behind, a symbolic link out of the run folder {run_dir}; put the "
            "files themselves there (a link to the whole run folder is allowed)"
        )


def finished_stages(run_dir: Path) -> dict[str, DoneMark]:
    """The marks of all finished stages by name, without folders that a killed process left under a
    hidden name. Raises RunError for a mark that can't be read.
    """
    folders = sorted(
        path.parent
        for path in (run_dir / "stages").glob("*/done.json")
        if not path.parent.name.startswith(".")
    )
    return {folder.name: mark for folder in folders if (mark := read_done(folder)) is not None}


def makers(run_dir: Path, models: Sequence[str]) -> list[str]:
    """The finished stages that made these models."""
    return [
        name for name, mark in finished_stages(run_dir).items() if set(models) & set(mark.models)
    ]


def check_belongs_together(run_dir: Path, stages: Sequence[str]) -> None:
    """Raise RunError if one of these stages, or of their inputs, was made from an earlier result of
    its input than the present one.
    """
    queue, seen = list(stages), set(stages)
    while queue:
        name = queue.pop()
        mark = read_done(run_dir / "stages" / name)
        inputs: Mapping[str, str] = mark.inputs if mark else {}
        for source, fingerprint in inputs.items():
            now = read_done(run_dir / "stages" / source) if is_inside(source) else None
            if now is None or now.fingerprint != fingerprint:
                again = f"glore run {shlex.quote(str(run_dir / 'config.yaml'))} --redo"
                raise RunError(
                    f"{run_dir}: stage {name} was made from another {printable(source, 40)} than "
                    f"the present one, so their results don't belong together; run: {again}"
                )
            if source not in seen:
                seen.add(source)
                queue.append(source)
