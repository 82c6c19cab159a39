"""Grade a solution (method 8, grading): find its final answer and compare it with the gold one.

Verdicts: `right`; `wrong` (another answer, or none); `unknown` (the answer can't be compared, or a
box contradicts the answer after `####`). Gold answers have one spelling (`normalise_gold`): numbers
as `numbers.canonical` writes them (`18`, `0.5`, `1/3`, `25%`), others as LaTeX source, words as
words. `answers` finds the answer; `numbers`, `text_rules` and `formulas` compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glore.tasks.grading.answers import (
    ANSWER_MARK,
    answer_line,
    ends_with_answer,
    find_answer,
    find_boxed,
    find_marked,
    merge_answer_line,
    strip_annotations,
)
from glore.tasks.grading.formulas import compare_answers
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.latex_markup import box_contents, plain_latex, unboxed
from glore.tasks.grading.numbers import Number, canonical, compare_numbers, parse_number
from glore.tasks.grading.text_rules import MAX_LATEX_CHARS, looks_like_latex, read_number
from glore.tasks.protocol import Grade

__all__ = [
    "ANSWER_MARK",
    "MAX_LATEX_CHARS",
    "answer_line",
    "find_answer",
    "find_boxed",
    "grade_answer",
    "grade_number_answer",
    "merge_answer_line",
    "normalise_gold",
    "strip_annotations",
]

_SHOWN_CHARS = 80
Compare = Callable[[str, str], str]


def normalise_gold(text: str) -> str | None:
    """A gold answer in the spelling of `Problem.answer`; none if it is neither a number nor
    LaTeX.
    """
    number = read_number(text)
    if number is not None:
        return canonical(number)
    text = text.strip()
    return (
        unboxed(text) or None if len(text) <= MAX_LATEX_CHARS and looks_like_latex(text) else None
    )


def grade_number_answer(gold: str, steps: Sequence[str], boxed: bool = False) -> Grade:
    """The grade of a solution against a gold number, in microseconds. An answer that isn't one
    number is `unknown`.

    `boxed`: without a `####`, the last box counts, and a box that contradicts the `####` makes the
    verdict `unknown`.
    """

    def compare(one: str, other: str) -> str:
        numbers = _number(one), _number(other)
        return compare_numbers(numbers[0], numbers[1]) if numbers[0] and numbers[1] else "unknown"

    return _grade(gold, steps, compare, _number, boxed, words=False)


def grade_answer(
    gold: str, steps: Sequence[str], checker: LatexChecker, boxed: bool = True
) -> Grade:
    """The grade of a solution whose answer may be LaTeX. Plain numbers never reach the slow
    checker. `boxed` as in `grade_number_answer`.
    """
    words = read_number(gold) is None
    return _grade(
        gold,
        steps,
        lambda one, other: compare_answers(one, other, checker),
        read_number,
        boxed,
        words,
    )


def _grade(
    gold: str,
    steps: Sequence[str],
    compare: Compare,
    read: Callable[[str], Number | None],
    boxed: bool,
    words: bool,
) -> Grade:
    marked = gold.strip() if ends_with_answer(steps, gold) else find_marked(steps, words)
    boxes = box_contents("\n".join(steps)) if boxed else []
    found = marked if marked is not None else boxes[-1] if boxes else find_marked(steps)
    if found is None:
        return Grade("wrong", None)
    number = read(found)
    shown = canonical(number) if number else found[:_SHOWN_CHARS]
    verdict = compare(gold, found)
    if verdict != "unknown" and marked is not None and _contradicts(marked, boxes, compare):
        verdict = "unknown"
    return Grade(verdict, shown)


def _contradicts(marked: str, boxes: Sequence[str], compare: Compare) -> bool:
    """Whether the last box is certainly another answer than the marked one. The answer may also be
    all boxes together, or contain the box.
    """
    if not boxes or "boxed" in marked:
        return False
    options = {boxes[-1], ", ".join(boxes)}
    return all("wrong" == compare(marked, box) == compare(box, marked) for box in options)


def _number(text: str) -> Number | None:
    """The number in a text in which letters after a number are units, not variables."""
    number = parse_number(text)
    return (
        parse_number(plain_latex(text))
        if number is None and len(text) <= MAX_LATEX_CHARS
        else number
    )
