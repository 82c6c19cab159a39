"""What a stage's folder says about itself: `started.json` while it is unfinished, `done.json` once
it is complete.

A mark that is there but can't be read is an error, never "no result": what lies beside it may be
days of work. What a mark names lies inside the run folder, or the mark is refused; so nothing
outside a run is ever read or removed because of one.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from glore.digests import DIGESTS, file_digest, is_inside, read_digests, write_digests
from glore.errors import RunError, printable, shown

__all__ = [
    "Damage",
    "DoneMark",
    "FileMark",
    "Memory",
    "StartedMark",
    "check_belongs_together",
    "check_inside",
    "check_records",
    "check_stage_files",
    "file_mark",
    "finished_stages",
    "makers",
    "model_marks",
    "part_files",
    "read_done",
    "read_memory",
    "read_started",
    "recorded_files",
]

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Number = Annotated[int | float, Field(ge=-1e18, le=1e18)]
"""A count that can be shown and added up."""
_Size = Annotated[int, Field(ge=0, le=10**18)]
_NAME = re.compile(r"[^/\0]+")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class FileMark:
    """A file as a stage left it."""

    bytes: _Size
    digest: str
    """Of the whole content (`glore.digests.file_digest`)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


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
    counts: dict[str, _Number]
    seconds: Annotated[float, Field(ge=0, le=1e18)]
    """Wall time, reused shards of interrupted attempts included."""
    tokens: _Size
    files: dict[str, FileMark]
    """Parquet files."""
    models: dict[str, dict[str, FileMark]]
    """Model made by the stage → its files, `glore-digests.json` among them."""
    versions: dict[str, str]
    finished: str

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclasses.dataclass(frozen=True, slots=True)
class StartedMark:
    """`started.json`: what an unfinished stage is being made from."""

    fingerprint: str
    settings: dict[str, object]
    inputs: dict[str, str]
    stage_version: int
    schema_version: int
    versions: dict[str, str]

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """`.NAME.json`: what was counted while a piece of an unfinished stage was made."""

    facts: dict[str, int]
    """What the piece depends on besides the stage's fingerprint; one made under other facts is not
    used.
    """
    counts: dict[str, _Number]
    seconds: Annotated[float, Field(ge=0, le=1e18)]
    digest: str | None
    """Of the shard's file; none where the piece leaves its result in files by itself."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


_DONE, _STARTED, _MEMORY = TypeAdapter(DoneMark), TypeAdapter(StartedMark), TypeAdapter(Memory)


def read_done(folder: Path) -> DoneMark | None:
    """The stage's `done.json`; none where there is none. Raises RunError where there is one that
    can't be read.
    """
    path = folder / "done.json"
    mark = _read(path, _DONE, "the mark of a finished stage")
    if mark is None:
        return None
    if mark.stage != folder.name:
        raise RunError(
            _unreadable(
                path, "the mark of a finished stage", f"it is about stage {shown(mark.stage)}"
            )
        )
    outside = [
        name for name in mark.files if not _NAME.fullmatch(name) or not name.endswith(".parquet")
    ]
    for model, files in mark.models.items():
        names = (
            [model]
            if not _NAME.fullmatch(model) or not is_inside(model)
            else [name for name in files if not is_inside(name)]
        )
        outside.extend(names)
    if outside:
        raise RunError(
            f"{path} names {shown(outside[0])}, which is not a file of this run; nothing was read "
            "or removed. Put a whole copy of the mark back, or add --redo to compute the stage "
            "again"
        )
    return mark


def read_started(folder: Path) -> StartedMark | None:
    """The stage's `started.json`; none where there is none. Raises RunError where there is one that
    can't be read.
    """
    return _read(folder / "started.json", _STARTED, "the mark of an unfinished stage")


def read_memory(folder: Path, name: str) -> Memory | None:
    """What an earlier attempt remembered of the piece `name`; none where nothing. Raises RunError
    where that can't be read.
    """
    return _read(folder / f".{name}.json", _MEMORY, f"what an unfinished stage remembers of {name}")


def _read(path: Path, kind: TypeAdapter[T], what: str) -> T | None:
    """A JSON file of a stage's folder, checked; none where there is none. Raises RunError where it
    can't be read as `what`.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(_unreadable(path, what, error.strerror or str(error))) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RunError(
            _unreadable(
                path, what, f"{shown(place, 60) + ': ' if place else ''}{shown(first['msg'], 100)}"
            )
        ) from error


def _unreadable(path: Path, what: str, why: str) -> str:
    return (
        f"{path} is there, but can't be read as {what} ({why}): it is damaged, or another release "
        "of glore wrote it. What lies beside it was left as it is; put a whole copy of it back, "
        "go on with that release, give this run another name (name=…), or add --redo to compute "
        "the stage again in its place"
    )


def part_files(folder: Path, part: str) -> list[Path]:
    """The shards of one part of a stage, in order."""
    pattern = re.compile(re.escape(part) + r"-(\d+)\.parquet")
    found = ((pattern.fullmatch(p.name), p) for p in folder.glob("*.parquet"))
    return [path for _, path in sorted((int(m.group(1)), path) for m, path in found if m)]


def recorded_files(folder: Path, part: str) -> list[Path]:
    """`part_files`, each with the content that the stage recorded when it was done. Raises RunError
    where one has another.
    """
    files = part_files(folder, part)
    _check_content(read_done(folder), files)
    return files


def check_records(folder: Path) -> None:
    """Raise RunError where a finished stage's records are not what it recorded."""
    _check_content(read_done(folder), sorted(folder.glob("*.parquet")))


def _check_content(mark: DoneMark | None, files: Sequence[Path]) -> None:
    for path in files:
        recorded = mark.files.get(path.name) if mark else None
        try:
            changed = recorded is not None and file_digest(path) != recorded.digest
        except OSError as error:
            raise RunError(
                f"can't read {path}: {error.strerror or error}; put a copy of it back, or delete "
                "it and run again"
            ) from error
        if changed:
            raise RunError(
                f"{path} has changed since its stage wrote it; put the file back from a copy, or "
                "delete it and run again, which makes the stage anew"
            )


def file_mark(path: Path) -> FileMark:
    """The file as it is now."""
    return FileMark(path.stat().st_size, file_digest(path))


def model_marks(folder: Path) -> dict[str, FileMark]:
    """The files of a model that was just made, from its digests, which are written where its maker
    wrote none. Raises RunError.
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
    """What is wrong with a complete stage's files."""

    what: str
    is_absent: bool
    """A file is gone, so making the stage again loses nothing that is not lost already."""


def check_stage_files(run_dir: Path, folder: Path, done: DoneMark) -> Damage | None:
    """What is wrong with a complete stage's files (missing, other size, unreadable, not its own),
    or none.

    Sizes alone are compared here; content is when a file is read or a model loaded. Raises RunError
    for a link out of the run.
    """
    files = {folder / name: mark for name, mark in done.files.items()}
    models = {
        run_dir / "models" / model / name: mark
        for model, files in done.models.items()
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
        except (OSError, pa.ArrowException, ValueError):  # a column's name that is no UTF-8, say
            return Damage(f"{path} is unreadable", is_absent=False)
        if size != mark.bytes or (path.name == DIGESTS and file_digest(path) != mark.digest):
            return Damage(f"{path} has changed on disk", is_absent=False)
    more = sorted(p for p in folder.glob("*.parquet") if p not in files)
    return (
        Damage(f"{more[0]} is not among the files that done.json names", is_absent=False)
        if more
        else None
    )


def check_inside(path: Path, run_dir: Path) -> None:
    """Raise RunError where a path of the run leads out of it over a symbolic link."""
    if not path.resolve().is_relative_to(run_dir.resolve()):
        raise RunError(
            f"{path} is, or lies behind, a symbolic link out of the run folder {run_dir}; put the "
            "files themselves there (a link to the whole run folder is fine)"
        )


def finished_stages(run_dir: Path) -> dict[str, DoneMark]:
    """The marks of all finished stages, by name. What a killed process left under a hidden name is
    none. Raises RunError where one can't be read.
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
    """Raise RunError where one of these stages, or one they come from, was made from another result
    than the one that is there now.
    """
    waiting, seen = list(stages), set(stages)
    while waiting:
        name = waiting.pop()
        mark = read_done(run_dir / "stages" / name)
        inputs: Mapping[str, str] = mark.inputs if mark else {}
        for source, fingerprint in inputs.items():
            now = read_done(run_dir / "stages" / source) if is_inside(source) else None
            if now is None or now.fingerprint != fingerprint:
                again = f"glore run {shlex.quote(str(run_dir / 'config.yaml'))} --redo"
                raise RunError(
                    f"{run_dir}: stage {name} was made from another {printable(source, 40)} than "
                    f"the one there now, so its results don't belong together; go on with {again}"
                )
            if source not in seen:
                seen.add(source)
                waiting.append(source)
