"""`open_task`: from settings to a task whose problems are read and checked; `data_contents`: what
local data holds, as hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from glore.config import TaskSettings
from glore.pipeline.fingerprints import digest_of_files
from glore.records import Problem
from glore.tasks.protocol import Task

__all__ = ["data_contents", "open_grader", "open_task"]


def open_task(settings: TaskSettings, seed: int) -> Task:
    """Read and check all problems. `seed` draws the built-in stories; given data doesn't depend on
    it.

    Raises DataError where data is missing or malformed (file, line, field and mend), ConfigError
    where no source is named or no story meets the settings.
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


def open_grader(settings: TaskSettings, seed: int, problems: Iterable[Problem]) -> Task:
    """A task with these problems, read earlier by `open_task` with the same settings: grades them
    without the data they came from.
    """
    if settings.kind == "stories":
        return open_task(settings, seed)
    from glore.tasks.data.dataset import DatasetTask
    from glore.tasks.data.splits import SPLITS, Splits
    from glore.tasks.grading.latex import LatexChecker
    from glore.tasks.grading.numbers import parse_number

    known = list(problems)
    splits = Splits(
        {split: tuple(p for p in known if p.split == split) for split in SPLITS},
        n_duplicates=0,
        n_overlaps=0,
    )
    # As the loaders choose: MATH may always need it, the user's own problems where an answer is no
    # number.
    latex = settings.kind == "math" or (
        settings.kind == "jsonl" and any(parse_number(p.answer) is None for p in known)
    )
    return DatasetTask(settings.kind, splits, LatexChecker() if latex else None, settings.boxed)


def data_contents(settings: TaskSettings, *, base_text: bool = False) -> dict[str, str | None]:
    """A short hash of the files behind `task.path` and, with `base_text`, `task.scratch_path`; none
    where nothing is there now.

    Empty for the built-in stories and for the Hub. Raises DataError for a file that can't be read,
    and where it isn't clear which files are meant.
    """
    if settings.kind == "stories":
        return {}
    found: dict[str, str | None] = {}
    if settings.path is not None:
        found["task.path"] = _content(Path(settings.path).expanduser(), settings)
    if base_text and settings.scratch_path is not None:
        file = Path(settings.scratch_path).expanduser()
        found["task.scratch_path"] = digest_of_files({"": file}) if file.is_file() else None
    return found


def _content(place: Path, settings: TaskSettings) -> str | None:
    """Of the file, or of the files in a folder that are read, by split, order and name."""
    from glore.tasks.data.layout import find_data

    if place.is_file():
        return digest_of_files({"": place})
    if not place.is_dir() or not any(place.iterdir()):
        return None
    parts = find_data(settings)
    return digest_of_files(
        {
            f"{split} {n:05d} {f.relative_to(place)}": f
            for split, files in parts.items()
            for n, f in enumerate(files)
        }
    )
