"""GSM8K (Cobbe et al. 2021): worked solutions with `<<48/2=24>>` annotations and a last line `####
18` (method 8).
"""

from __future__ import annotations

from functools import partial

from glore.config import Gsm8kTaskSettings
from glore.errors import DataError, shown
from glore.prompts import LINES, StepFormat, lines_of
from glore.records import Problem
from glore.tasks.data.dataset import DatasetTask, load_rows, split_rows
from glore.tasks.data.row import Row, text_field
from glore.tasks.data.splits import Loaded
from glore.tasks.data.worked_solutions import check_boxes, worked_steps
from glore.tasks.grading.grade import find_answer, grade_number_answer, strip_annotations
from glore.tasks.grading.numbers import canonical, parse_number

__all__ = ["open_gsm8k"]


def open_gsm8k(settings: Gsm8kTaskSettings, seed: int, form: StepFormat = LINES) -> DatasetTask:
    """GSM8K from `task.path` or the Hub (openai/gsm8k), the same for all seeds. `form`: how worked
    solutions are cut into steps. Raises DataError.
    """
    rows = load_rows(settings)
    splits = split_rows(settings, rows, partial(_problem, settings=settings, form=form), "drop")
    return DatasetTask("gsm8k", splits, boxed=settings.boxed)


def _problem(
    row: Row, split: str, number: int, *, settings: Gsm8kTaskSettings, form: StepFormat
) -> Loaded:
    question, text = text_field(row, "question"), text_field(row, "answer")
    steps = worked_steps(text, row, "answer", settings.merge_answer_line, form)
    found = find_answer(lines_of(steps))
    if found is None:
        raise DataError(f"{row.where}: the field 'answer' has no final line '#### number'; add it")
    gold = parse_number(found)
    if gold is None:
        raise DataError(
            f"{row.where}: the field 'answer' ends in {shown(found)}, which is not one number; "
            "correct the line after '####'"
        )
    check_boxes(row, "answer", text, canonical(gold), grade_number_answer, "the line after '####'")
    if not settings.keep_annotations:
        steps = strip_annotations(steps)
    return Loaded(
        Problem(f"gsm8k-{split}-{number:05d}", question.strip(), canonical(gold), steps, split),
        row.where,
    )
