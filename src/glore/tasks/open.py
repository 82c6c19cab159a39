"""From settings to a task: `open_task` reads and checks the problems, `open_grader` takes problems
read earlier, `data_contents` hashes what local data holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from glore.config import DatasetTaskSettings, TaskSettings
from glore.config.plugins import imported
from glore.pipeline.fingerprints import digest_of_files
from glore.prompts import LINES, StepFormat
from glore.records import Problem
from glore.tasks.protocol import Task

__all__ = ["data_contents", "open_grader", "open_task"]


def open_task(settings: TaskSettings, seed: int, form: StepFormat = LINES) -> Task:
    """The task, with all problems read and checked. The seed draws the built-in stories; datasets
    don't depend on it. `form`: how worked solutions are cut into steps, where the kind of task has
    them as texts.

    Raises DataError for missing or malformed data (file, line, field and fix), ConfigError if the
    settings name no source or no story fits them.
    """
    opened = imported(settings.opener)
    return cast(
        Task, opened(settings, seed, form) if settings.takes_form else opened(settings, seed)
    )


def open_grader(settings: TaskSettings, seed: int, problems: Iterable[Problem]) -> Task:
    """A task that grades these problems, which `open_task` read earlier with the same settings. The
    built-in kinds don't need the data that the problems came from.
    """
    if settings.regrader is None:
        return open_task(settings, seed)
    return cast(Task, imported(settings.regrader)(settings, seed, problems))


def data_contents(settings: TaskSettings, *, base_text: bool = False) -> dict[str, str | None]:
    """A short hash of the files at each setting that names local data, such as `task.path`; none if
    nothing is there now. `base_text`: also of `task.scratch_path`.

    Empty for the built-in stories and for the Hub. Raises DataError for a file that can't be read
    and for an ambiguous folder.
    """
    return {
        f"task.{name}": _content(Path(path).expanduser(), settings if name == "path" else None)
        for name, path in settings.local_data(base_text=base_text).items()
    }


def _content(path: Path, settings: TaskSettings | None) -> str | None:
    """The hash of a file, or of the files in a folder by name. Of the folder of a dataset, only the
    files that are read count, by split and order.
    """
    if path.is_file():
        return digest_of_files({"": path})
    if not path.is_dir() or not any(path.iterdir()):
        return None
    if not isinstance(settings, DatasetTaskSettings):
        files = {str(f.relative_to(path)): f for f in path.rglob("*") if f.is_file()}
        return digest_of_files(files)
    from glore.tasks.data.layout import find_data

    parts = find_data(settings)
    return digest_of_files(
        {
            f"{split} {n:05d} {f.relative_to(path)}": f
            for split, files in parts.items()
            for n, f in enumerate(files)
        }
    )
