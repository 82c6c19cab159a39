"""The user's own problems: rows with `question`, `answer`, optional `solution` and optional `id`.

The answer is a number (`18`, `"1,234"`, `"25%"`, `"1/2"`), LaTeX (`"\\\\frac{\\\\pi}{2}"`), an
expression or words. Everything is checked before any training: fields, ids, that the answer of a
worked solution is the given one, that no question is in two splits.

With `task.verifier`, the user's own function grades solutions. The answer may then be any text, and
a worked solution is used as it is if the verifier calls it right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from glore.config import JsonlTaskSettings
from glore.config.plugins import plugin
from glore.errors import ConfigError, DataError, shown
from glore.prompts import LINES, StepFormat, lines_of
from glore.records import Problem
from glore.tasks.data.dataset import (
    DatasetTask,
    load_rows,
    split_graded_rows,
    split_rows,
    splits_of,
)
from glore.tasks.data.row import Row, optional_text, text_field
from glore.tasks.data.splits import Loaded
from glore.tasks.data.worked_solutions import gold_answer, worked_solution, worked_steps
from glore.tasks.grading.grade import grade_answer
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.numbers import parse_number
from glore.tasks.protocol import VERDICTS, Grade, Verifier

__all__ = ["open_jsonl", "regrade_jsonl"]


def open_jsonl(settings: JsonlTaskSettings, seed: int, form: StepFormat = LINES) -> DatasetTask:
    """The problems under `task.path` or `task.hub`, the same for every seed. `form`: how worked
    solutions are cut into steps. Raises DataError naming file, line, field and fix, ConfigError for
    an unknown verifier.
    """
    verify = _verifier(settings)
    rows = load_rows(settings)
    if verify is not None:
        problem = partial(_verified_problem, settings=settings, verify=verify, form=form)
        return DatasetTask("jsonl", split_rows(settings, rows, problem, "error"), verifier=verify)
    problem = partial(_problem, form=form)
    splits, checker = split_graded_rows(settings, rows, problem, "error")
    if not _any_latex(p for problems in splits.problems.values() for p in problems):
        checker.close()
        return DatasetTask("jsonl", splits, None, settings.boxed)
    return DatasetTask("jsonl", splits, checker, settings.boxed)


def regrade_jsonl(
    settings: JsonlTaskSettings, seed: int, problems: Iterable[Problem]
) -> DatasetTask:
    """The task with problems that `open_jsonl` read earlier."""
    known = list(problems)
    verify = _verifier(settings)
    checker = LatexChecker() if verify is None and _any_latex(known) else None
    return DatasetTask("jsonl", splits_of(known), checker, settings.boxed, verify)


def _any_latex(problems: Iterable[Problem]) -> bool:
    return any(parse_number(problem.answer) is None for problem in problems)


def _problem(
    row: Row,
    split: str,
    number: int,
    *,
    settings: JsonlTaskSettings,
    checker: LatexChecker,
    form: StepFormat,
) -> Loaded:
    question, answer = text_field(row, "question"), text_field(row, "answer")
    gold = gold_answer(row, "answer", answer)
    text = optional_text(row, "solution")
    grade = partial(grade_answer, checker=checker)
    solution = (
        None
        if text is None
        else worked_solution(row, text, gold, gold, settings.merge_answer_line, grade, form)
    )
    name = _name(row, split, number)
    return Loaded(Problem(name, question.strip(), gold, solution, split), row.where)


def _verified_problem(
    row: Row,
    split: str,
    number: int,
    *,
    settings: JsonlTaskSettings,
    verify: Verifier,
    form: StepFormat,
) -> Loaded:
    question, answer = text_field(row, "question"), text_field(row, "answer").strip()
    text = optional_text(row, "solution")
    solution = None
    if text is not None:
        solution = worked_steps(text, row, "solution", settings.merge_answer_line, form)
        verdict = verify(answer, lines_of(solution)).verdict
        if verdict != "right":
            raise DataError(
                f"{row.where}: the verifier {shown(settings.verifier)} calls the field 'solution' "
                f"{verdict}; correct it, or leave it out"
            )
    name = _name(row, split, number)
    return Loaded(Problem(name, question.strip(), answer, solution, split), row.where)


def _name(row: Row, split: str, number: int) -> str:
    return optional_text(row, "id") or f"jsonl-{split}-{number:05d}"


def _verifier(settings: JsonlTaskSettings) -> Verifier | None:
    """The function that `task.verifier` names, with checks of its results; none if it is not
    set.
    """
    if settings.verifier is None:
        return None
    name, found = settings.verifier, plugin("glore.verifiers", settings.verifier)
    if not callable(found):
        raise ConfigError(
            f"task.verifier {shown(name)} is {shown(found)}; it must be a function of an answer "
            "and a solution's steps"
        )

    def verify(answer: str, steps: Sequence[str]) -> Grade:
        grade = found(answer, steps)
        if not isinstance(grade, Grade) or grade.verdict not in VERDICTS:
            raise ConfigError(
                f"the verifier {shown(name)} returned {shown(grade)}; it must return a "
                f"glore.tasks.Grade whose verdict is {', '.join(VERDICTS)}"
            )
        return grade

    return verify
