"""The user's own problems: rows with `question`, `answer`, optional `solution` and optional `id`.

The answer is a number (`18`, `"1,234"`, `"25%"`, `"1/2"`), LaTeX (`"\\\\frac{\\\\pi}{2}"`), an
expression or words. Everything is checked before any training: fields, ids, that the answer of a
worked solution is the given one, that no question stands in two splits.
"""

from __future__ import annotations

from functools import partial

from glore.config import TaskSettings
from glore.records import Problem
from glore.tasks.data.dataset import DatasetTask, load_rows, split_graded_rows
from glore.tasks.data.source import Row, optional_text, text_field
from glore.tasks.data.splits import Loaded
from glore.tasks.data.worked import gold_answer, worked_solution
from glore.tasks.grading.grade import grade_answer
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.numbers import parse_number

__all__ = ["load_jsonl"]


def load_jsonl(settings: TaskSettings) -> DatasetTask:
    """The problems under `task.path` or `task.hub`. Raises DataError naming file, line, field and
    mend.
    """
    rows = load_rows(settings)
    splits, checker = split_graded_rows(settings, rows, _problem, "error")
    any_latex = any(
        parse_number(problem.answer) is None
        for problems in splits.problems.values()
        for problem in problems
    )
    if not any_latex:
        checker.close()
    return DatasetTask("jsonl", splits, checker if any_latex else None, settings.boxed)


def _problem(
    row: Row, split: str, number: int, *, settings: TaskSettings, checker: LatexChecker
) -> Loaded:
    question, answer = text_field(row, "question"), text_field(row, "answer")
    gold = gold_answer(row, "answer", answer)
    text, name = (
        optional_text(row, "solution"),
        optional_text(row, "id") or f"jsonl-{split}-{number:05d}",
    )
    grade = partial(grade_answer, checker=checker)
    solution = (
        None
        if text is None
        else worked_solution(row, text, gold, gold, settings.merge_answer_line, grade)
    )
    return Loaded(Problem(name, question.strip(), gold, solution, split), row.where)
