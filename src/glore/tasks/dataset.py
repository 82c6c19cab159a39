"""What the tasks on given data have in common: rows from a folder, a file or the Hub, and a task over checked splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from glore.config import TaskSettings
from glore.errors import ConfigError, DataError
from glore.prompts import MAX_SOLUTION_CHARS, split_steps
from glore.records import Problem
from glore.tasks.grading import grade_answer, grade_number_answer, merge_answer_line
from glore.tasks.latex import LatexChecker
from glore.tasks.protocol import Grade
from glore.tasks.source import Row, read_hub, read_jsonl
from glore.tasks.splits import Loaded, Splits, make_splits

__all__ = ["SPLIT_FILES", "DatasetTask", "load_rows", "split_graded_rows", "split_rows", "worked_steps"]

SPLIT_FILES = {"train": "train.jsonl", "test": "test.jsonl", "dev": "dev.jsonl"}
"""What a data folder holds; `dev` may be missing."""


@dataclasses.dataclass(slots=True)
class DatasetTask:
    """A task over problems that were read and checked beforehand."""

    name: str
    splits: Splits
    checker: LatexChecker | None = None
    """Also compare LaTeX answers."""

    def problems(self, split: str) -> list[Problem]:
        """All problems of `train`, `dev` or `test`, in file order."""
        return list(self.splits.problems[split])

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """Compare the solution's final answer with the problem's."""
        if self.checker is None:
            return grade_number_answer(problem.answer, steps)
        return grade_answer(problem.answer, steps, self.checker)

    def left_out(self) -> dict[str, int]:
        """Counts of what was read and not used."""
        return {"duplicates": self.splits.n_duplicates, "in_another_split": self.splits.n_overlaps}

    def close(self) -> None:
        """End the worker that compares LaTeX, if there is one."""
        if self.checker is not None:
            self.checker.close()


def load_rows(
    settings: TaskSettings, hub_name: str | None, hub_config: str | None = None, single_file: bool = True
) -> Mapping[str, list[Row]]:
    """Rows of `train`, `test` and perhaps `dev`, or of `all` where there is a single file (`single_file` allows that).

    Raises DataError for anything missing or malformed, ConfigError where the settings name no source.
    """
    if settings.path is not None:
        return _from_path(Path(settings.path).expanduser(), settings.kind, single_file)
    name = settings.hub or hub_name
    if name is None:
        raise ConfigError(f"task.kind {settings.kind} needs task.path (a folder with train.jsonl and test.jsonl, or one file) or task.hub")
    found = read_hub(name, hub_config if name == hub_name else None, ("train", "validation", "dev", "test"))
    parts = {"dev" if split == "validation" else split: rows for split, rows in found.items()}
    if "train" in parts and "test" in parts:
        return parts
    if len(parts) == 1 and single_file:
        return {"all": next(iter(parts.values()))}
    raise DataError(f"{name} has the splits {sorted(parts) or 'none'}, but train and test are needed; check task.hub")


def split_rows(
    settings: TaskSettings,
    rows: Mapping[str, Sequence[Row]],
    problem: Callable[[Row, str, int], Loaded],
    overlap: Literal["error", "drop"],
) -> Splits:
    """Rows as problems in three splits. `problem` gets a row, its split and its 1-based number there; `overlap` as in `make_splits`.

    Raises DataError.
    """
    given = {split: [problem(row, split, number) for number, row in enumerate(part, start=1)] for split, part in rows.items()}
    return make_splits(given, n_dev=settings.n_dev, max_train=settings.max_train, max_test=settings.max_test, overlap=overlap)


def split_graded_rows(
    settings: TaskSettings, rows: Mapping[str, Sequence[Row]], problem: Callable[..., Loaded], overlap: Literal["error", "drop"]
) -> tuple[Splits, LatexChecker]:
    """`split_rows` where reading a problem means grading: `problem` gets the settings and a checker, too, closed where reading fails."""
    checker = LatexChecker()
    try:
        return split_rows(settings, rows, partial(problem, settings=settings, checker=checker), overlap), checker
    except BaseException:
        checker.close()
        raise


def _from_path(path: Path, kind: str, single_file: bool) -> Mapping[str, list[Row]]:
    if not path.exists():
        raise DataError(f"task.path {path} does not exist; give the folder (or file) with the {kind} data")
    if path.is_file():
        if not single_file:
            raise DataError(f"task.path {path} is a file, but {kind} needs the folder that holds train.jsonl and test.jsonl")
        return {"all": read_jsonl(path)}
    there = {split: path / name for split, name in SPLIT_FILES.items() if (path / name).is_file()}
    missing = [SPLIT_FILES[split] for split in ("train", "test") if split not in there]
    if missing:
        raise DataError(f"{path} lacks {' and '.join(missing)}; put the {kind} data there as JSON lines, or correct task.path")
    return {split: read_jsonl(file) for split, file in there.items()}


def worked_steps(text: str, row: Row, field: str, merge: bool) -> tuple[str, ...]:
    """A worked solution as steps. Raises DataError where it is longer than a solution may be."""
    if len(text) > MAX_SOLUTION_CHARS:
        raise DataError(
            f"{row.where}: the field '{field}' has {len(text)} characters; at most {MAX_SOLUTION_CHARS} are read, so shorten it"
        )
    steps = split_steps(text)
    return merge_answer_line(steps) if merge else steps
