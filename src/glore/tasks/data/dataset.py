"""What tasks on datasets share: rows from a folder, a file or the Hub, and a task over checked
splits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal

from glore.config import DatasetTaskSettings, Gsm8kTaskSettings, SvampTaskSettings
from glore.errors import ConfigError, DataError
from glore.records import Problem
from glore.tasks.data.hub import hub_folder, read_hub
from glore.tasks.data.layout import find_data, find_in_folder
from glore.tasks.data.readers import DATA_SUFFIXES, read_rows
from glore.tasks.data.row import Row
from glore.tasks.data.splits import SPLITS, Loaded, Splits, make_splits
from glore.tasks.grading.grade import grade_answer, grade_number_answer
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.protocol import Grade, Verifier

__all__ = [
    "DatasetTask",
    "load_rows",
    "regrade_numbers",
    "split_graded_rows",
    "split_rows",
    "splits_of",
]


@dataclasses.dataclass(slots=True)
class DatasetTask:
    """A task over problems that have been read and checked."""

    name: str
    splits: Splits
    checker: LatexChecker | None = None
    """Compares LaTeX answers; none: only numbers are compared."""
    boxed: bool = True
    """Whether a box states the answer of a solution without `####`."""
    verifier: Verifier | None = None
    """Grades solutions instead of a comparison of answers."""

    def problems(self, split: str) -> list[Problem]:
        """All problems of `train`, `dev` or `test`, in file order."""
        return list(self.splits.problems[split])

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """Compare the solution's final answer with the problem's, or ask the verifier."""
        if self.verifier is not None:
            return self.verifier(problem.answer, steps)
        if self.checker is None:
            return grade_number_answer(problem.answer, steps, self.boxed)
        return grade_answer(problem.answer, steps, self.checker, self.boxed)

    def left_out(self) -> dict[str, int]:
        """Counts of problems that were read and not used, by reason."""
        return {"duplicates": self.splits.n_duplicates, "in_another_split": self.splits.n_overlaps}

    def close(self) -> None:
        """End the process that compares LaTeX, if there is one."""
        if self.checker is not None:
            self.checker.close()


def load_rows(settings: DatasetTaskSettings) -> Mapping[str, list[Row]]:
    """Rows of `train`, `test` and perhaps `dev`; or of `all`, if the data has no splits and may be
    split.

    Raises DataError for missing or malformed data, ConfigError if the settings name no source.
    """
    if settings.path is not None:
        parts = find_data(settings)
    elif settings.revision is None:
        return _from_hub(settings)
    else:
        patterns = [f"*{suffix}{packed}" for suffix in DATA_SUFFIXES for packed in ("", ".*")]
        folder = hub_folder(
            _hub_name(settings), settings.revision, [*patterns, "README.md", "*.py"]
        )
        parts = find_in_folder(folder, settings)
    return {
        split: [row for file in files for row in read_rows(file)] for split, files in parts.items()
    }


def _hub_name(settings: DatasetTaskSettings) -> str:
    name = settings.hub or settings.usual.hub
    if name is None:
        raise ConfigError(
            f"task.kind {settings.kind} needs task.path (a folder with train.jsonl and test.jsonl, "
            "or one file) or task.hub"
        )
    return name


def _from_hub(settings: DatasetTaskSettings) -> Mapping[str, list[Row]]:
    name, usual = _hub_name(settings), settings.usual
    found = read_hub(
        name,
        settings.config or (usual.config if name == usual.hub else None),
        ("train", "validation", "dev", "test"),
    )
    if "validation" in found and "dev" in found:
        raise DataError(
            f"{name} has both the splits validation and dev; set task.path to a local copy without "
            "one of them"
        )
    parts = {"dev" if split == "validation" else split: rows for split, rows in found.items()}
    if "train" in parts and "test" in parts:
        return parts
    if len(parts) == 1 and usual.may_be_cut:
        return {"all": next(iter(parts.values()))}
    raise DataError(
        f"{name} has the splits {sorted(parts) or 'none'}, but train and test are needed; check "
        "task.hub"
    )


def split_rows(
    settings: DatasetTaskSettings,
    rows: Mapping[str, Sequence[Row]],
    problem: Callable[[Row, str, int], Loaded],
    overlap: Literal["error", "drop"],
) -> Splits:
    """Problems in three splits, from rows. `problem` converts a row, given its split and its
    1-based number there; `overlap` as in `make_splits`. Raises DataError.
    """
    given = {
        split: [problem(row, split, number) for number, row in enumerate(part, start=1)]
        for split, part in rows.items()
    }
    return make_splits(
        given,
        n_dev=settings.n_dev,
        max_train=settings.max_train,
        max_test=settings.max_test,
        overlap=overlap,
    )


def split_graded_rows(
    settings: DatasetTaskSettings,
    rows: Mapping[str, Sequence[Row]],
    problem: Callable[..., Loaded],
    overlap: Literal["error", "drop"],
) -> tuple[Splits, LatexChecker]:
    """As `split_rows`, for a `problem` that also needs the settings and a checker to grade with.
    The checker is returned too. It is closed if reading fails.
    """
    checker = LatexChecker()
    try:
        return split_rows(
            settings, rows, partial(problem, settings=settings, checker=checker), overlap
        ), checker
    except BaseException:
        checker.close()
        raise


def splits_of(problems: Iterable[Problem]) -> Splits:
    """Problems that were read and checked earlier, by split."""
    known = list(problems)
    return Splits(
        {split: tuple(p for p in known if p.split == split) for split in SPLITS},
        n_duplicates=0,
        n_overlaps=0,
    )


def regrade_numbers(
    settings: Gsm8kTaskSettings | SvampTaskSettings, seed: int, problems: Iterable[Problem]
) -> DatasetTask:
    """A task whose answers are numbers, with problems that were read earlier."""
    return DatasetTask(settings.kind, splits_of(problems), boxed=settings.boxed)
