"""The marks of a stage: `started.json` while it is unfinished, `done.json` once it is complete.

A mark that can't be read is an error, never "no result": its folder may hold days of work. A mark
that names a file outside the run folder is refused, so no mark can make glore read or remove one.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from glore.digests import is_inside
from glore.errors import RunError, shown

__all__ = [
    "DoneMark",
    "FileMark",
    "Memory",
    "StartedMark",
    "read_done",
    "read_memory",
    "read_started",
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
    warnings: tuple[str, ...] = ()
    """Signs that the stage failed although it finished. Marks of earlier releases have none."""
    backends: dict[str, str] = dataclasses.field(default_factory=dict)
    """Model that the stage sampled from or scored with → what read it. Models whose shards were
    there already are not opened, and missing. Marks of earlier releases have none.
    """
    spared: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Model of this or an earlier stage → later stages that will not open it after all
    (`StageContext.spare`). Marks of earlier releases have none.
    """
    removed: dict[str, str] = dataclasses.field(default_factory=dict)
    """Model of this stage that was removed to save disk → why. It is in `models` still."""
    engine: str = ""
    """The engine that `engine.kind=auto` chose, and why. Empty where the kind was given, for a
    stage that draws nothing, and in marks of earlier releases.
    """

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
    """What the piece depends on besides the stage's fingerprint. Other facts: it is not used."""
    counts: dict[str, _Number]
    seconds: Annotated[float, Field(ge=0, le=1e18)]
    digest: str | None
    """Of the shard's file; None for a piece that writes its files itself."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT


_DONE, _STARTED, _MEMORY = TypeAdapter(DoneMark), TypeAdapter(StartedMark), TypeAdapter(Memory)


def read_done(folder: Path) -> DoneMark | None:
    """The stage's `done.json`, or None without one. Raises RunError if it can't be read."""
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
    """The stage's `started.json`, or None without one. Raises RunError if it can't be read."""
    return _read(folder / "started.json", _STARTED, "the mark of an unfinished stage")


def read_memory(folder: Path, name: str) -> Memory | None:
    """What an earlier attempt stored about the piece `name`, or None. Raises RunError if it can't
    be read.
    """
    return _read(folder / f".{name}.json", _MEMORY, f"what an unfinished stage remembers of {name}")


def _read(path: Path, kind: TypeAdapter[T], what: str) -> T | None:
    """A checked JSON file of a stage, or None without one. Raises RunError if it can't be read as
    `what`.
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
        f"{path} can't be read as {what} ({why}): it is damaged, or another release of glore wrote "
        "it. The files beside it are unchanged; restore it from a copy, use that release, give "
        "this run another name (name=…), or add --redo to compute the stage again"
    )
