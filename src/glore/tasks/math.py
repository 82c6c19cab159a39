"""MATH (Hendrycks et al. 2021) and datasets like it: the gold answer is LaTeX in `\\boxed{}`
(method 8).

A worked solution becomes its lines plus the answer line `#### …`, so a step means the same as in
other tasks. A field `answer` must agree with the solution; with it, the solution may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from glore.config import MathTaskSettings
from glore.errors import DataError
from glore.prompts import LINES, StepFormat, split_steps
from glore.records import Problem
from glore.tasks.data.dataset import DatasetTask, load_rows, split_graded_rows, splits_of
from glore.tasks.data.row import Row, optional_text, text_field
from glore.tasks.data.splits import Loaded
from glore.tasks.data.worked_solutions import gold_answer, worked_solution
from glore.tasks.grading.grade import find_answer, find_boxed, grade_answer
from glore.tasks.grading.latex import LatexChecker

__all__ = ["open_math", "regrade_math"]


def open_math(settings: MathTaskSettings, seed: int, form: StepFormat = LINES) -> DatasetTask:
    """Rows with `problem` (or `question`), and `solution` or `answer` or both, from `task.path` or
    the Hub, the same for every seed. `form`: how worked solutions are cut into steps. Raises
    DataError.
    """
    problem = partial(_problem, form=form)
    return DatasetTask("math", *split_graded_rows(settings, load_rows(settings), problem, "drop"))


def regrade_math(settings: MathTaskSettings, seed: int, problems: Iterable[Problem]) -> DatasetTask:
    """The task with problems that `open_math` read earlier."""
    return DatasetTask("math", splits_of(problems), LatexChecker())


def _problem(
    row: Row,
    split: str,
    number: int,
    *,
    settings: MathTaskSettings,
    checker: LatexChecker,
    form: StepFormat,
) -> Loaded:
    question, text, given = (
        text_field(row, "problem", "question"),
        optional_text(row, "solution"),
        optional_text(row, "answer"),
    )
    stated = None if text is None else find_boxed(text) or find_answer(split_steps(text))
    answer = given or stated
    if answer is None:
        raise DataError(
            f"{row.where}: there is neither a field 'answer' nor a \\boxed{{…}} in the field "
            "'solution'; add one"
        )
    gold = gold_answer(row, "answer" if given else "solution", answer, mixed=True)
    grade = partial(grade_answer, checker=checker)
    solution = (
        None
        if text is None
        else worked_solution(row, text, answer, gold, settings.merge_answer_line, grade, form)
    )
    return Loaded(
        Problem(f"math-{split}-{number:05d}", question.strip(), gold, solution, split), row.where
    )
