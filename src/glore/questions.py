"""Questions to answer, checked before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence

from glore.errors import DataError, has_lone_surrogate, shown
from glore.prompts import MAX_QUESTION_CHARS

__all__ = ["checked_questions"]


def checked_questions(method: str, questions: Sequence[str]) -> list[str]:
    """The texts of questions that models can read. `method` is what was called with them.

    Raises DataError for one that is empty, oversized or no Unicode; TypeError for one that is no
    string, or a single string, whose letters would be questions.
    """
    if isinstance(questions, str):
        raise TypeError(
            f"{method} takes several questions, got the string {shown(questions)}; call the "
            "refiner itself, or give a list"
        )
    alone = len(questions) == 1
    return [
        _checked(question, "the question" if alone else f"question {n}")
        for n, question in enumerate(questions)
    ]


def _checked(question: object, name: str) -> str:
    """The text of a question that models can read. `name` is what errors call it."""
    if not isinstance(question, str):
        raise TypeError(
            f"{name} must be a string, got {shown(question)}; give the text of a problem"
        )
    text = question.strip()
    if not text:
        raise DataError(f"{name} is empty; give the text of a problem")
    if has_lone_surrogate(text):
        raise DataError(
            f"{name} holds half a Unicode character (a lone surrogate): {shown(text, 40)}; write "
            "the text again as UTF-8"
        )
    if len(text) > MAX_QUESTION_CHARS:
        raise DataError(
            f"{name} has {len(text):,} characters ({shown(text, 40)}), at most "
            f"{MAX_QUESTION_CHARS:,} are read; shorten it"
        )
    return text
