"""MATH (Hendrycks et al. 2021) and its relatives: the gold answer stands in `\\boxed{}` and is LaTeX (method 8).

A worked solution becomes its lines plus the answer line `#### …`, so that a step means the same as everywhere else.
"""

from __future__ import annotations

from functools import partial

from glore.config import TaskSettings
from glore.errors import DataError, shown
from glore.records import Problem
from glore.tasks.dataset import DatasetTask, load_rows, split_rows, worked_steps
from glore.tasks.grading import MAX_LATEX_CHARS, answer_line, find_boxed, normalise_gold
from glore.tasks.latex import LatexChecker
from glore.tasks.source import Row, optional_text, text_field
from glore.tasks.splits import Loaded

__all__ = ["load_math"]


def load_math(settings: TaskSettings) -> DatasetTask:
    """JSON lines with `problem` (or `question`), `solution` and perhaps `answer`, from `task.path` or the Hub. Raises DataError."""
    rows = load_rows(settings, "DigitalLearningGmbH/MATH-lighteval")
    return DatasetTask("math", split_rows(settings, rows, partial(_problem, settings=settings), "drop"), LatexChecker())


def _problem(row: Row, split: str, number: int, *, settings: TaskSettings) -> Loaded:
    question, solution = text_field(row, "problem", "question"), text_field(row, "solution")
    answer = optional_text(row, "answer") or find_boxed(solution)
    if answer is None:
        raise DataError(f"{row.where}: the field 'solution' has no \\boxed{{…}} and there is no field 'answer'; add one")
    if len(answer) > MAX_LATEX_CHARS:
        raise DataError(f"{row.where}: the answer {shown(answer)} is longer than {MAX_LATEX_CHARS} characters; shorten it")
    # Plain words ("even") are answers here too: they are compared as text.
    gold = normalise_gold(answer) or f"\\text{{{answer.strip()}}}"
    steps = worked_steps(f"{solution}\n{answer_line(' '.join(answer.split()))}", row, "solution", merge=settings.merge_answer_line)
    return Loaded(Problem(f"math-{split}-{number:05d}", question.strip(), gold, steps, split), row.where)
