"""MATH (Hendrycks et al. 2021) and its relatives: the gold answer stands in `\\boxed{}` and is LaTeX (method 8).

A worked solution becomes its lines plus the answer line `#### …`, so that a step means the same as everywhere else. A field
`answer` must not contradict the box.
"""

from __future__ import annotations

from glore.config import TaskSettings
from glore.errors import DataError, shown
from glore.records import Problem
from glore.tasks.dataset import DatasetTask, load_rows, split_graded_rows, worked_steps
from glore.tasks.grading import MAX_LATEX_CHARS, answer_line, find_boxed, grade_answer, normalise_gold
from glore.tasks.latex import LatexChecker
from glore.tasks.source import Row, optional_text, text_field
from glore.tasks.splits import Loaded

__all__ = ["load_math"]


def load_math(settings: TaskSettings) -> DatasetTask:
    """JSON lines with `problem` (or `question`), `solution` and perhaps `answer`, from `task.path` or the Hub. Raises DataError."""
    rows = load_rows(settings, "DigitalLearningGmbH/MATH-lighteval")
    return DatasetTask("math", *split_graded_rows(settings, rows, _problem, "drop"))


def _problem(row: Row, split: str, number: int, *, settings: TaskSettings, checker: LatexChecker) -> Loaded:
    question, solution = text_field(row, "problem", "question"), text_field(row, "solution")
    given, boxed = optional_text(row, "answer"), find_boxed(solution)
    answer = given or boxed
    if answer is None:
        raise DataError(f"{row.where}: the field 'solution' has no \\boxed{{…}} and there is no field 'answer'; add one")
    if len(answer) > MAX_LATEX_CHARS:
        raise DataError(f"{row.where}: the answer {shown(answer)} is longer than {MAX_LATEX_CHARS} characters; shorten it")
    # `x + 1` and plain words ("even") are answers here too.
    gold = normalise_gold(answer) or answer.strip()
    if given is not None and boxed is not None:
        _compare(row, given, gold, boxed, solution, checker)
    steps = worked_steps(f"{solution}\n{answer_line(' '.join(answer.split()))}", row, "solution", merge=settings.merge_answer_line)
    return Loaded(Problem(f"math-{split}-{number:05d}", question.strip(), gold, steps, split), row.where)


def _compare(row: Row, given: str, gold: str, boxed: str, solution: str, checker: LatexChecker) -> None:
    """Raises DataError where the answer given certainly isn't the solution's. Equal texts and numbers don't reach the slow checker."""
    if solution.count("\\boxed") > 1:
        return  # the answer may be all of them together
    if grade_answer(gold, (answer_line(boxed),), checker).verdict == "wrong":
        raise DataError(
            f"{row.where}: the field 'solution' has {shown(boxed)} in its \\boxed{{…}}, but 'answer' is {shown(given)}; correct one of them"
        )
