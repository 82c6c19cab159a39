"""The user's own problems: JSON lines with `question`, `answer`, optional `solution` and optional `id`.

The answer is a number (`18`, `"1,234"`, `"25%"`, `"1/2"`) or LaTeX (`"\\\\frac{\\\\pi}{2}"`). Everything is checked before any
training: fields, ids, that the answer of a worked solution is the given one, that no question stands in two splits.
"""

from __future__ import annotations

from glore.config import TaskSettings
from glore.errors import DataError, shown
from glore.prompts import split_steps
from glore.records import Problem
from glore.tasks.dataset import DatasetTask, load_rows, split_graded_rows, worked_steps
from glore.tasks.grading import ANSWER_MARK, answer_line, find_answer, grade_answer, normalise_gold
from glore.tasks.latex import LatexChecker
from glore.tasks.numbers import parse_number
from glore.tasks.source import Row, optional_text, text_field
from glore.tasks.splits import Loaded

__all__ = ["load_jsonl"]


def load_jsonl(settings: TaskSettings) -> DatasetTask:
    """The problems under `task.path` or `task.hub`. Raises DataError naming file, line, field and mend."""
    rows = load_rows(settings, None)
    splits, checker = split_graded_rows(settings, rows, _problem, "error")
    any_latex = any(parse_number(problem.answer) is None for problems in splits.problems.values() for problem in problems)
    if not any_latex:
        checker.close()
    return DatasetTask("jsonl", splits, checker if any_latex else None)


def _problem(row: Row, split: str, number: int, *, settings: TaskSettings, checker: LatexChecker) -> Loaded:
    question, answer = text_field(row, "question"), text_field(row, "answer")
    gold = normalise_gold(answer)
    if gold is None:
        hint = (
            "move everything before '####' to the field 'solution'"
            if ANSWER_MARK in answer
            else "write only the final answer, without the working"
        )
        raise DataError(f"{row.where}: the field 'answer' is {shown(answer)}, neither one number nor LaTeX; {hint}")
    name = optional_text(row, "id") or f"jsonl-{split}-{number:05d}"
    return Loaded(Problem(name, question.strip(), gold, _solution(row, gold, settings, checker), split), row.where)


def _solution(row: Row, gold: str, settings: TaskSettings, checker: LatexChecker) -> tuple[str, ...] | None:
    text = optional_text(row, "solution")
    if text is None:
        return None
    if not any(ANSWER_MARK in step for step in split_steps(text)):
        text = f"{text}\n{answer_line(gold)}"
    steps = worked_steps(text, row, "solution", merge=settings.merge_answer_line)
    if grade_answer(gold, steps, checker).verdict != "right":
        raise DataError(
            f"{row.where}: the field 'solution' ends in {shown(find_answer(steps))}, but 'answer' is {shown(gold)}; correct one of them"
        )
    return steps
