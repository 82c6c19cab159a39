"""Gold answers and worked solutions of a row: the answer must be gradable, and the solution must
agree with it.

A solution with another answer is refused: it would be trained on, but graded as wrong.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Sequence

from glore.errors import DataError, shown
from glore.prompts import LINES, MAX_SOLUTION_CHARS, StepFormat, lines_of, split_steps
from glore.tasks.data.row import Row
from glore.tasks.grading.grade import (
    ANSWER_MARK,
    MAX_LATEX_CHARS,
    answer_line,
    find_answer,
    find_boxed,
    merge_answer_line,
    normalise_gold,
)
from glore.tasks.grading.numbers import MAX_DIGITS, parse_number
from glore.tasks.protocol import Grade

__all__ = ["check_boxes", "gold_answer", "worked_solution", "worked_steps"]

GradeText = Callable[[str, Sequence[str]], Grade]
"""Gold answer and steps → verdict."""

_LONG_NUMBER = re.compile(rf"[0-9][0-9,]{{{MAX_DIGITS},}}|^\W*[0-9][0-9.,]*[eE][-+]?[0-9]+\W*$")
_LATEX_NAME = re.compile(r"\\[A-Za-z]+|\\(?:text|mathrm|mbox)\s*\{[^{}]*\}")
_WORD = re.compile(r"[^\W\d_]{4,}")
_MISSING = ("nan", "NaN", "<NA>")
"""Missing values as programs write them to text files."""
_ALONE = "write only the final answer, without the working"


def gold_answer(row: Row, field: str, answer: str, mixed: bool = False) -> str:
    """The field's answer as `Problem.answer`: a number, LaTeX, an expression or words. `mixed`:
    numbers among words are accepted.

    Raises DataError, with a hint, for an answer that no grader can compare.
    """
    gold = normalise_gold(answer)
    is_number = gold is not None and parse_number(gold) is not None
    why = (
        None
        if is_number
        else _not_comparable(answer.strip(), has_latex=gold is not None, mixed=mixed)
    )
    if why is not None:
        raise DataError(f"{row.where}: the field '{field}' is {shown(answer)}, {why}")
    return gold or answer.strip()


def _not_comparable(text: str, *, has_latex: bool, mixed: bool) -> str | None:
    """Why no grader can compare this answer, and the fix; none if one can."""
    if ANSWER_MARK in text:
        return (
            f"which has '{ANSWER_MARK}' in it; move everything before '{ANSWER_MARK}' to the field "
            "'solution'"
        )
    if len(text) > MAX_LATEX_CHARS:
        return f"longer than {MAX_LATEX_CHARS} characters, which are not compared; {_ALONE}"
    if "\n" in text and not has_latex:
        return f"which has several lines; {_ALONE}"
    if _LONG_NUMBER.search(text):
        return (
            f"a number too long or too large to be compared (at most {MAX_DIGITS} digits); round "
            "it, or leave the problem out"
        )
    if text in _MISSING:
        return "which stands for a missing value; write the answer, or leave the problem out"
    if all(unicodedata.category(c)[0] in "PZC" for c in text):
        return "which has no letter, digit or symbol; write the answer, or leave the problem out"
    bare = re.sub(r"\\[{}\\]", "", text)
    if bare.count("{") != bare.count("}"):
        return "LaTeX whose braces are not balanced; correct it"
    if (
        not mixed
        and not has_latex
        and re.search(r"\d", text)
        and _WORD.search(_LATEX_NAME.sub("", text))
    ):
        return (
            f"numbers among words, which can't be compared; {_ALONE}: one number, LaTeX, an "
            "expression such as x+1, or words"
        )
    return None


def worked_solution(
    row: Row,
    text: str,
    answer: str,
    gold: str,
    merge: bool,
    grade: GradeText,
    form: StepFormat = LINES,
) -> tuple[str, ...]:
    """The field `solution` as steps that end with the answer line, which is added if there is none.

    Raises DataError if the solution has another answer than `gold`, which is spelled `answer` in
    the data. `form`: how `worked_steps` cuts it.
    """
    _check_length(row, "solution", text, form)
    text = form.said(text).text
    check_boxes(row, "solution", text, gold, grade)
    stated = find_answer(split_steps(text))
    if stated is None:
        stated_text = f"{text}\n{answer_line(' '.join(answer.split()))}"
        return worked_steps(stated_text, row, "solution", merge, form)
    verdict = grade(gold, (answer_line(stated),)).verdict
    if verdict != "right":
        fix = (
            "correct one of them"
            if verdict == "wrong"
            else "can't tell whether they agree, so write them alike"
        )
        raise DataError(
            f"{row.where}: the field 'solution' ends in {shown(stated)}, but 'answer' is "
            f"{shown(gold)}; {fix}"
        )
    return worked_steps(text, row, "solution", merge, form)


def check_boxes(
    row: Row, field: str, text: str, gold: str, grade: GradeText, given: str = "'answer'"
) -> None:
    """Raises DataError if the last `\\boxed{…}` of a solution certainly isn't the answer. `given`
    names the place of the answer.
    """
    boxed = find_boxed(text)
    if boxed is None:
        return
    # The answer may be all boxes together.
    if (
        text.count("\\boxed") > 1
        and parse_number(gold) is None
        and re.search(r"[,;]|\b(?:and|or)\b", gold)
    ):
        return
    if grade(gold, (answer_line(boxed),)).verdict == "wrong":
        raise DataError(
            f"{row.where}: the field '{field}' has {shown(boxed)} in its \\boxed{{…}}, but {given} "
            f"is {shown(gold)}; correct one of them"
        )


def worked_steps(
    text: str, row: Row, field: str, merge: bool, form: StepFormat = LINES
) -> tuple[str, ...]:
    """A worked solution as steps: its lines, or the paragraphs where steps are paragraphs and it
    has several. Thoughts that are kept apart are left out. Raises DataError if it is longer than a
    solution may be.
    """
    _check_length(row, field, text, form)
    whole = dataclasses.replace(form, max_chars=len(text))
    steps = whole.split(text)
    if len(steps) < 2:  # its steps are its lines: it has no empty line between them
        steps = lines_of(steps)
    return merge_answer_line(steps) if merge else steps


def _check_length(row: Row, field: str, text: str, form: StepFormat) -> None:
    most = max(MAX_SOLUTION_CHARS, form.max_chars)
    if len(text) > most:
        raise DataError(
            f"{row.where}: the field '{field}' has {len(text)} characters; at most {most} are "
            "read, so shorten it, or raise prompt.max_solution_chars"
        )
