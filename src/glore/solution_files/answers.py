"""The gold answer of each solution: its own, one in a field that its layout kept, or one of a
second file, found by the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glore.errors import DataError, shown
from glore.formats import LabelledSolution
from glore.prompts import split_steps
from glore.tasks.data.readers import read_rows
from glore.tasks.data.row import Row, text_field
from glore.tasks.data.worked_solutions import gold_answer
from glore.tasks.grading.grade import ANSWER_MARK, find_answer

__all__ = ["QUESTIONS", "answer_of", "question_key", "read_answers", "readable_answer"]

QUESTIONS = ("question", "problem", "prompt", "Question")
"""Names of the question in files of answers."""
ANSWERS = ("answer", "final_answer", "Answer")


def question_key(question: str) -> str:
    """A question without what differs between copies of it: blanks."""
    return " ".join(question.split())


def read_answers(path: Path, verified: bool = False) -> dict[str, str]:
    """Question (as `question_key` spells it) → gold answer, from a file with a row per question.

    Raises DataError for a row without one and for two answers to one question. `verified`: answers
    are any text, for a verifier of the user's own.
    """
    found: dict[str, tuple[str, str]] = {}
    for row in read_rows(path):
        key = question_key(text_field(row, *QUESTIONS))
        answer = readable_answer(text_field(row, *ANSWERS), row.where, verified)
        before = found.setdefault(key, (answer, row.where))
        if before[0] != answer:
            raise DataError(
                f"{row.where}: the answer is {shown(answer)}, but {shown(before[0])} to the same "
                f"question in {before[1]}; correct one of them"
            )
    if not found:
        raise DataError(f"{path} has no rows; give a file with a question and an answer per row")
    return {key: answer for key, (answer, _) in found.items()}


def answer_of(solution: LabelledSolution, answers: Mapping[str, str]) -> str | None:
    """The gold answer as it is written; none if nothing says it. A second file counts first."""
    given = answers.get(question_key(solution.question))
    if given is None:
        given = solution.answer
    kept = next((solution.fields[name] for name in ANSWERS if name in solution.fields), None)
    if given is None and isinstance(kept, (str, int, float)) and not isinstance(kept, bool):
        given = str(kept)
    return given if given is not None and given.strip() else None


def readable_answer(text: str, where: str, verified: bool = False) -> str:
    """A gold answer in the spelling of `Problem.answer`. Of a worked solution, the text after
    `####`. Raises DataError for one that no grader can compare.
    """
    if verified:
        return text.strip()
    stated = find_answer(split_steps(text)) if ANSWER_MARK in text else None
    return gold_answer(Row(where, {"answer": text}), "answer", stated or text)
