"""`open_task`: from settings to a task whose problems are read and checked; `data_contents`: what local data holds, as hashes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glore.config import TaskSettings
from glore.fingerprints import digest_of_files
from glore.tasks.protocol import Task

__all__ = ["data_contents", "open_task"]


def open_task(settings: TaskSettings, seed: int) -> Task:
    """Read and check all problems. `seed` draws the built-in stories; given data doesn't depend on it.

    Raises DataError where data is missing or malformed (file, line, field and mend), ConfigError where no source is named or no
    story meets the settings.
    """
    if settings.kind == "stories":
        from glore.tasks.stories import Stories

        return Stories(settings.stories, seed, merge_answer_line=settings.merge_answer_line)
    if settings.kind == "gsm8k":
        from glore.tasks.gsm8k import load_gsm8k

        return load_gsm8k(settings)
    if settings.kind == "svamp":
        from glore.tasks.svamp import load_svamp

        return load_svamp(settings)
    if settings.kind == "math":
        from glore.tasks.math import load_math

        return load_math(settings)
    from glore.tasks.jsonl import load_jsonl

    return load_jsonl(settings)


def data_contents(settings: TaskSettings, *, base_text: bool = False) -> dict[str, str | None]:
    """A short hash of the files behind `task.path` and, with `base_text`, `task.scratch_path`; none where nothing is there now.

    Empty for the built-in stories and for the Hub. Raises DataError for a file that can't be read.
    """
    if settings.kind == "stories":
        return {}
    from glore.tasks.dataset import SPLIT_FILES
    from glore.tasks.svamp import WHOLE_FILE

    names = (*SPLIT_FILES.values(), *((WHOLE_FILE,) if settings.kind == "svamp" else ()))
    given = {"task.path": settings.path, "task.scratch_path": settings.scratch_path if base_text else None}
    return {name: _content(Path(path).expanduser(), names) for name, path in given.items() if path is not None}


def _content(place: Path, names: Iterable[str]) -> str | None:
    """Of a file, or of the files of these names in a folder."""
    if place.is_dir():
        return digest_of_files({name: place / name for name in names if (place / name).is_file()})
    return digest_of_files({"": place}) if place.is_file() else None
