"""Answers from models, whatever they hold: graded without an error, in bounded time, the same in
both directions.

GLORE_FUZZ_SECONDS=900 runs each for a quarter of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st

from glore.prompts import MAX_SOLUTION_CHARS, split_steps, step_text
from glore.tasks.grading.answers import find_answer, with_answer_line
from glore.tasks.grading.formulas import compare_answers
from glore.tasks.grading.grade import grade_answer, grade_number_answer, normalise_gold
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.numbers import canonical, parse_number
from support.fuzzing import fuzz

VERDICTS = ("right", "wrong", "unknown")
PIECES = (
    *"0123456789.,:;/-+*=<>()[]{}^_%$!|~ \n\\",
    *(
        "\u2028",
        "\x85",
        "\r\n",
        "\x0b",
        "\x00",
        "\u200b",
        "−",
        "½",
        "²",
        "₂",
        "∞",
        "∅",
        "×",
        "٣",
        "万",
        "\ud800",
    ),
    *(
        "18",
        "0.5",
        "1e3",
        "3e-9",
        "10^{",
        "1,234",
        "5 million",
        "$5M",
        "dozen",
        "thousandths",
        "110_2",
        "base 2",
    ),
    *(
        "apples",
        "cm",
        "x",
        "i",
        "e",
        "Evelyn",
        "percent",
        "or",
        "and",
        "all real numbers",
        "####",
        "#### ",
        "#### Step 1",
    ),
    *(
        "\\boxed{",
        "}",
        "{",
        "\\frac{1}{2}",
        "\\frac",
        "\\sqrt{",
        "\\text{",
        "\\infty",
        "\\cup",
        "\\le",
        "\\times",
        "\\emptyset",
        "\\pi",
    ),
    *(
        "\\pm",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "(C)",
        "\\textbf{(C)}",
        "\\left",
        "\\right",
        "<<1+1=2>>",
        "\\int",
        "\\sum_{",
    ),
    *("\\lim", "\\binom{", "^{9^9}", "!", "\\%"),
)
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=60))
USUAL = (
    "18",
    "0.5",
    "1/3",
    "25%",
    "x+1",
    "(1,2)",
    "\\frac{\\pi}{2}",
    "Evelyn",
    "\\emptyset",
    "x<3",
)
GOLD = st.one_of(TEXT, st.sampled_from((*USUAL, "110_2", "3e-9", "3, 5")))


def test_numbers() -> None:
    def attack(gold: str, text: str) -> None:
        steps = split_steps(text)
        start = time.thread_time()
        for boxed in (False, True):
            grade = grade_number_answer(gold, steps, boxed=boxed)
            assert grade.verdict in VERDICTS
            assert (grade.answer is None) <= (grade.verdict == "wrong")
        assert time.thread_time() - start < 2, "the work isn't bounded"
        number = parse_number(text)
        assert number is None or parse_number(canonical(number)) == number
        longer = with_answer_line(steps)
        assert longer[: len(steps)] == steps
        assert find_answer(longer) is not None or find_answer(steps, boxed=True) is None
        expected = parse_number(gold)
        if expected is not None:
            answer = canonical(expected)
            assert grade_number_answer(gold, (f"#### {answer}",)).verdict == "right"
            assert (
                grade_number_answer(gold, (rf"\boxed{{{answer}}}",), boxed=True).verdict == "right"
            )

    fuzz(attack, GOLD, TEXT, examples=400)


@pytest.fixture(scope="module")
def checker() -> Iterator[LatexChecker]:
    made = LatexChecker(limit_seconds=2)
    yield made
    made.close()


def test_formulas_in_both_directions(checker: LatexChecker) -> None:
    def attack(gold: str, text: str) -> None:
        start = time.monotonic()
        verdict = compare_answers(gold, text, checker)
        assert verdict in VERDICTS
        assert grade_answer(gold, split_steps(text), checker).verdict in VERDICTS
        assert time.monotonic() - start < 60, "the work isn't bounded"
        if not any("%" in t or "cent" in t.lower() for t in (gold, text)):
            assert compare_answers(text, gold, checker) == verdict
        normal = normalise_gold(gold)
        if normal is not None and "#" not in normal:
            assert grade_answer(normal, (f"#### {normal}",), checker).verdict != "wrong"

    fuzz(attack, GOLD, TEXT, examples=150)


def test_steps() -> None:
    def attack(text: str) -> None:
        steps = split_steps(text)
        assert all(step == step.strip() and step and "\n" not in step for step in steps)
        assert sum(map(len, steps)) <= MAX_SOLUTION_CHARS
        assert split_steps("".join(map(step_text, steps))) == steps
        assert len(steps) <= text.count("\n") + 1

    fuzz(
        attack,
        st.one_of(TEXT, st.text(alphabet="a \r\n\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e")),
        examples=400,
    )
