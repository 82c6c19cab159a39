"""The final answer is found where it stands; verdicts are right, wrong and unknown; no answer costs
more than its limit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.config import TaskSettings
from glore.prompts import split_steps
from glore.tasks import Grade, open_task
from glore.tasks.grading.answers import with_answer_line
from glore.tasks.grading.grade import (
    find_answer,
    find_boxed,
    grade_answer,
    grade_number_answer,
    merge_answer_line,
    normalise_gold,
    strip_annotations,
)
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.number_bases import parse_numeral

CASES = Path(__file__).parents[1] / "cases"
mantissas = st.decimals(-10, 10, places=8).filter(bool)


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("9 + 9 = 18\n#### 18", Grade("right", "18")),
        ("#### $18.00", Grade("right", "18")),
        ("#### 18 apples\nThat is a lot: 19 would be more.", Grade("right", "18")),
        ("#### 17\nNo, wait.\n#### 18", Grade("right", "18")),
        ("#### 18\n#### 17", Grade("wrong", "17")),
        ("She has 18. #### 18", Grade("right", "18")),
        ("##### 18", Grade("right", "18")),
        ("The answer is 18", Grade("wrong", None)),
        ("#### 18\n####", Grade("right", "18")),
        ("#### 18 ####", Grade("right", "18")),
        ("#### 17 #### 18 ######", Grade("right", "18")),
        ("She has 18. ####", Grade("wrong", None)),
        ("#### \\boxed{18}", Grade("right", "18")),
        ("#### $\\boxed{18}$", Grade("right", "18")),
        ("#### \\boxed{18} apples", Grade("right", "18")),
        ("#### \\boxed{18} + 1", Grade("unknown", "\\boxed{18} + 1")),
        ("#### \\boxed{18} or \\boxed{17}", Grade("unknown", "\\boxed{18} or \\boxed{17}")),
        ("#### \\boxed{1}8", Grade("unknown", "\\boxed{1}8")),
        ("#### \\boxed{18\\%}", Grade("wrong", "18%")),
        ("#### 18\u200b", Grade("right", "18")),
        ("#### ~18", Grade("right", "18")),
        ("#### 18!", Grade("unknown", "18!")),
        ("####", Grade("wrong", None)),
        ("", Grade("wrong", None)),
        ("#### 18%", Grade("wrong", "18%")),
        ("#### 0.18", Grade("wrong", "0.18")),
        ("#### eighteen", Grade("unknown", "eighteen")),
        ("#### 9**9**9**9", Grade("unknown", "9**9**9**9")),
        ("#### 17 or 18", Grade("unknown", "17 or 18")),
        ("#### nan", Grade("unknown", "nan")),
        ("#### " + "9" * 10_000, Grade("unknown", "9" * 80)),
    ],
)
def test_numbers(text: str, grade: Grade) -> None:
    assert grade_number_answer("18", split_steps(text)) == grade


def test_exact_decimals() -> None:
    assert grade_number_answer("0.5", ["#### 1/2"]).verdict == "right"
    assert grade_number_answer("1/3", ["#### 0.3333333333"]).verdict == "wrong"
    assert grade_number_answer("25%", ["#### 0.25"]).verdict == "right"


def test_boxes_are_found_with_their_braces() -> None:
    assert find_boxed(r"so \boxed{1} and \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert find_boxed(r"\boxed 5$") == "5"
    assert find_boxed(r"\fbox{7}") is None or find_boxed(r"\fbox{7}") == "7"
    assert find_boxed(r"\boxed{\frac{1}{2}") is None
    assert find_boxed("\\boxed{" * 3000) is None
    assert find_answer([r"\boxed{3}", "#### 4"], boxed=True) == "4"
    assert find_answer([r"so \boxed{3}"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 2800,
        "\\boxed{5}" * 2000,
        "\\boxed 5 " * 2000,
        "{" * 20_000,
        "#### " * 4000,
        "#### Step\n" * 2000,
        "#### a\n" * 2800,
        "#" * 20_000,
    ],
    ids=lambda text: f"{text[:10]}…",
)
def test_a_hostile_solution_costs_little(text: str) -> None:
    start = time.thread_time()  # the processor's, not the clock's: a busy machine doesn't fail it
    grade_number_answer("18", split_steps(text), boxed=True)
    assert time.thread_time() - start < 1.5, "the work isn't bounded"


def test_annotations_go_as_a_whole_and_the_answer_line_can_be_merged() -> None:
    assert strip_annotations(("48/2 = <<48/2=24>>24", "a << b")) == ("48/2 = 24", "a << b")
    assert merge_answer_line(("a", "b", "#### 2")) == ("a", "b #### 2")
    assert merge_answer_line(("#### 2",)) == ("#### 2",)


def test_gold_answers_have_one_spelling() -> None:
    spellings = {
        r"$\frac{1}{2}$": "0.5",
        r"\$1{,}234": "1234",
        r"25\%": "25%",
        r"\boxed{x^2}": "x^2",
        r"\boxed{\boxed{7}}": "7",
        r"\boxed{72} + 1": "72 + 1",
        "blue": None,
        "17 or 18": None,
        "": None,
    }
    assert {text: normalise_gold(text) for text in spellings} == spellings


@pytest.fixture(scope="module")
def checker() -> Iterator[LatexChecker]:
    made = LatexChecker(limit_seconds=20)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("gold", "found", "verdict"),
    [
        ("x+1", "1+x", "right"),
        (r"\frac{\sqrt{3}}{2}", r"$\sqrt{3}/2$", "right"),
        ("7", r"\sqrt{49}", "right"),
        ("(1,2)", "(1, 2)", "right"),
        ("(1,2)", "(2,1)", "wrong"),
        (r"\text{Evelyn}", "evelyn", "right"),
        (r"\text{(C)}", "C", "right"),
        (r"\text{Evelyn}", "Bob", "wrong"),
        # What math-verify would get wrong by itself:
        ("25", r"25\%", "wrong"),
        ("0.25", r"25\%", "wrong"),
        ("25", r"\sqrt{625}\%", "unknown"),
        ("1000", "1e3", "right"),
        ("1", "1e3", "wrong"),
        ("-5", "−5", "right"),
        ("3", "18 and 3", "unknown"),
        ("x^2", "{" * 60, "unknown"),
        # Mathematics without a backslash:
        ("2i+1", "1+2i", "right"),
        ("2i+1", r"1 + 2\cdot i", "right"),
        ("6 - 5i", "-5i+6", "right"),
        ("6 - 5i", "6+5i", "wrong"),
        ("p - q", "-q+p", "right"),
        ("p - q", "q - p", "wrong"),
        ("pq", "qp", "right"),
        ("(3,4)", r"(\frac{6}{2},4)", "right"),
        ("(3,4)", "(4,3)", "wrong"),
        ("3/x", r"\frac{3}{x}", "right"),
        ("12 + 3x", "3x+12.", "right"),
        ("y = 2x+1", "2x+1", "right"),
        # Lists:
        ("3,5", "5, 3", "right"),
        ("3,5", "3.5", "wrong"),
        ("3,5", "5", "wrong"),
        ("x = 3, x = 5", "5, 3", "right"),
        ("3,5", "(5,3)", "unknown"),
        ("x = 3, y = 5", "5, 3", "unknown"),
        ("3500", "3, 500", "unknown"),
        ("3, 500", "3,500", "unknown"),
        ("500, 3", "3,500", "unknown"),
        ("(1,200)", "1200", "unknown"),
        (r"3{,}500\pi", r"3500\pi", "right"),
        (r"3,500\pi", r"3500\pi", "unknown"),
        (r"500\sqrt{4}", "1,000", "right"),
        # Words, and what might be some:
        ("Evelyn", r"\text{evelyn}", "right"),
        ("Friday", "Monday", "wrong"),
        ("Friday", "5", "wrong"),
        ("no solution", r"\emptyset", "unknown"),
        ("x+1", "no solution", "unknown"),
        ("abc", "bca", "unknown"),
        ("C", r"\text{(C)}", "right"),
        ("C", "B", "wrong"),
        ("June 20", "20", "unknown"),
        ("sin x", r"\sin x", "unknown"),
        # What the checker would take for the same:
        ("12 - 5d", "-5d+12", "right"),
        ("12 - 5d", "12 - 5", "unknown"),
        (r"10\sqrt{2}", r"10\sqrt{2}\text{ cm}", "right"),
        ("R - r", "0", "unknown"),
        ("x^2", "x^2 + 3 {", "unknown"),
        ("x^2", "9" * 10_000, "unknown"),
    ],
)
def test_latex(checker: LatexChecker, gold: str, found: str, verdict: str) -> None:
    assert grade_answer(gold, [f"#### {found}"], checker).verdict == verdict


def test_the_box_counts_without_an_answer_line(checker: LatexChecker) -> None:
    assert grade_answer("0.5", [r"Hence $\boxed{\dfrac{1}{2}}$."], checker) == Grade("right", "0.5")
    assert grade_answer("0.5", ["Hence one half."], checker) == Grade("wrong", None)


def test_a_hostile_answer_is_stopped_and_the_next_one_is_graded_in_any_thread() -> None:
    checker = LatexChecker(limit_seconds=3)
    verdicts: list[str] = []

    def work() -> None:
        pairs = [("x+1", "1+x"), ("x+1", "9^{9^{9^{9^9}}}"), ("x+2", "2+x")]
        verdicts.extend(
            grade_answer(gold, [f"#### {found}"], checker).verdict for gold, found in pairs
        )

    thread = threading.Thread(target=work)
    start = time.perf_counter()
    thread.start()
    thread.join(timeout=60)
    assert verdicts == ["right", "unknown", "right"]
    assert time.perf_counter() - start < 20
    worker = checker._worker
    assert worker is not None
    checker.close()
    assert worker.returncode is not None


def test_a_killed_worker_is_replaced() -> None:
    checker = LatexChecker(limit_seconds=5)
    assert checker.check("x+1", "1+x") == "right"
    assert checker._worker is not None
    os.kill(checker._worker.pid, signal.SIGKILL)
    assert checker.check("x+3", "3+x") == "unknown"
    assert checker.check("x+2", "2+x") == "right"
    checker.close()


def read_cases(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((CASES / f"{name}.json").read_text(encoding="utf-8"))
    return cases


@pytest.mark.parametrize(
    "case", read_cases("grading"), ids=lambda case: f"{case['gold']} | {case['found']}"
)
def test_a_pair_that_was_judged_wrongly_once(checker: LatexChecker, case: dict[str, Any]) -> None:
    gold, found = case["gold"], case["found"]
    for steps in ((f"#### {found}",), (rf"So \boxed{{{found}}}.",)):
        assert grade_answer(gold, steps, checker).verdict in case["verdict"]
    assert grade_number_answer(gold, (f"#### {found}",)).verdict in [*case["verdict"], "unknown"]


@pytest.mark.parametrize(
    "case", read_cases("pairs"), ids=lambda case: f"{case['one']} | {case['other']}"
)
def test_the_table_of_pairs_in_both_directions(checker: LatexChecker, case: dict[str, Any]) -> None:
    one, other = case["one"], case["other"]
    assert grade_answer(one, (f"#### {other}",), checker).verdict in case["one_is_gold"]
    assert grade_answer(other, (f"#### {one}",), checker).verdict in case.get(
        "other_is_gold", case["one_is_gold"]
    )


def test_grading_is_symmetric_over_all_answers_of_the_table(checker: LatexChecker) -> None:
    """Every answer against a sample of the others, of whatever kind. Percentages are left out: only
    a gold one accepts 25 for 25%.
    """
    answers = sorted(
        {
            case[side]
            for case in read_cases("pairs")
            for side in ("one", "other")
            if not re.search("%|cent", case[side])
        }
    )
    assert len(answers) > 300
    pairs = [(a, b) for n, a in enumerate(answers) for b in answers[n % 120 : n : 120]]
    uneven = [
        (a, b)
        for a, b in pairs
        if grade_answer(a, (f"#### {b}",), checker).verdict
        != grade_answer(b, (f"#### {a}",), checker).verdict
    ]
    assert uneven == []


@given(
    mantissas,
    mantissas,
    st.integers(-40, 40),
    st.sampled_from(["{}e{}", r"{}\times10^{{{}}}", r"{}\cdot 10^{{{}}}"]),
)
def test_scaling_both_sides_alike_never_changes_the_verdict(
    one: Decimal, other: Decimal, power: int, form: str
) -> None:
    for gold, found in ((one, other), (one, one)):
        small = grade_number_answer(
            form.format(f"{gold:f}", power), [f"#### {form.format(f'{found:f}', power)}"]
        ).verdict
        plain = grade_number_answer(
            f"{gold.scaleb(power):f}", [f"#### {found.scaleb(power):f}"]
        ).verdict
        assert small == plain == ("right" if gold == found else "wrong")


@given(st.integers(2, 200), st.decimals(1, 15, places=5), st.integers(-40, 40))
@settings(max_examples=40)
def test_scaling_an_irrational_number_and_its_decimal_never_changes_the_verdict(
    checker: LatexChecker, radicand: int, noise: Decimal, power: int
) -> None:
    root = Decimal(radicand).sqrt()
    for decimal in (round(root, 3), round(root, 6), round(root, 1), noise):
        verdicts = {
            grade_answer(gold, [f"#### {found}"], checker).verdict
            for n in (0, power)
            for a, b in [(rf"\sqrt{{{radicand}}}\cdot10^{{{n}}}", rf"{decimal}\times10^{{{n}}}")]
            for gold, found in ((a, b), (b, a))
        }
        assert len(verdicts) == 1


@pytest.mark.parametrize("case", read_cases("solutions"), ids=lambda case: case["text"])
def test_a_solution_whose_answer_was_not_found_once(
    checker: LatexChecker, case: dict[str, Any]
) -> None:
    steps = split_steps(case["text"])
    assert grade_answer(case["gold"], steps, checker).verdict in case["verdict"]
    assert grade_number_answer(case["gold"], steps, boxed=True).verdict in case["verdict"]


@pytest.mark.parametrize("text", ["0x0:", "0x", "0b1²", "0x1.8", "0o٣", "0xgg", "1:2_8", "²_8"])
def test_what_only_begins_like_a_numeral_is_none(text: str) -> None:
    """Found by the fuzz target."""
    assert parse_numeral(text) is None


@pytest.mark.parametrize(
    ("gold", "text", "verdict"),
    [
        ("Step 2", "The second step is wrong.\n#### Step 2", "right"),
        ("Step 2", "#### step  2\n", "right"),
        ("Step 2", "#### Step 2\nThe first two are right.", "wrong"),
        ("Step 2", "#### Step 3", "wrong"),
        ("STEP^", "#### STEP^", "right"),
    ],
)
def test_an_answer_that_reads_like_a_heading(gold: str, text: str, verdict: str) -> None:
    """The last line is no heading where it is the gold answer, word for word. Found by the fuzz
    target.
    """
    checker = LatexChecker()
    try:
        assert grade_answer(gold, split_steps(text), checker).verdict == verdict
    finally:
        checker.close()


@pytest.mark.parametrize(
    ("text", "boxed", "grade"),
    [
        # The last mark that something gradable follows:
        ("#### 18\n####", True, Grade("right", "18")),
        ("#### 18\n#### Check", True, Grade("right", "18")),
        ("#### Step 2\nSo it is 18.", True, Grade("wrong", None)),
        ("#### 17\n#### 18", True, Grade("right", "18")),
        ("#### 1. Find the sum\n9 + 9 = 18\n#### 2. Answer\n#### 18", True, Grade("right", "18")),
        ("#### 18. Find the sum\nIt is \\boxed{18}.", True, Grade("right", "18")),
        ("#### 1. Find the sum\nIt is 17.", True, Grade("wrong", None)),
        ("#### Final Answer\n18", True, Grade("right", "18")),
        ("#### **Answer:** 18", True, Grade("right", "18")),
        ("#### Answer: $18$", True, Grade("right", "18")),
        # Else the last box:
        ("\\boxed{17}\nso \\boxed{18}", True, Grade("right", "18")),
        ("so \\boxed{18}", False, Grade("wrong", None)),
        ("so $\\boxed{18}$ apples.", True, Grade("right", "18")),
        ("so \\boxed{18}\\%.", True, Grade("wrong", "18%")),
        ("so \\boxed{18} million.", True, Grade("unknown", "18000000")),
        ("so $\\boxed{18}_{19}$.", True, Grade("unknown", "18_{19}")),
        ("so \\boxed{18", True, Grade("wrong", None)),
        ("so \\boxed{}", True, Grade("wrong", None)),
        # Both:
        ("\\boxed{18}\n#### 18 apples", True, Grade("right", "18")),
        ("\\boxed{17}\n#### 18", True, Grade("unknown", "18")),
        ("\\boxed{17}\n#### 18", False, Grade("right", "18")),
        ("#### 18\nno, \\boxed{17}", True, Grade("unknown", "18")),
        ("\\boxed{9}, then \\boxed{18}\n#### 18", True, Grade("right", "18")),
        ("\\boxed{x}\n#### 18", True, Grade("right", "18")),
        ("#### done \\boxed{18}", True, Grade("unknown", "done \\boxed{18}")),
    ],
)
def test_where_the_answer_is(text: str, boxed: bool, grade: Grade) -> None:
    assert grade_number_answer("18", split_steps(text), boxed=boxed) == grade


def test_a_box_that_contradicts_the_answer_line_makes_formulas_unknown_too(
    checker: LatexChecker,
) -> None:
    assert grade_answer("x+1", (r"\boxed{1+x}", "#### x+1"), checker).verdict == "right"
    assert grade_answer("x+1", (r"\boxed{x+2}", "#### x+1"), checker).verdict == "unknown"
    assert (
        grade_answer("x+1", (r"\boxed{x+2}", "#### x+1"), checker, boxed=False).verdict == "right"
    )
    assert (
        grade_answer("3, 5", (r"\boxed{3} or \boxed{5}", "#### 3, 5"), checker).verdict == "right"
    )
    assert (
        grade_answer("Evelyn", ("#### Step 1", r"It is \boxed{\text{Evelyn}}."), checker).verdict
        == "right"
    )


def test_what_is_learnt_ends_in_an_answer_line() -> None:
    assert with_answer_line(("9 + 9 = 18", r"So \boxed{18}.")) == (
        "9 + 9 = 18",
        r"So \boxed{18}.",
        "#### 18",
    )
    assert with_answer_line(("9 + 9 = 18", r"So \boxed{18}."), merge=True) == (
        "9 + 9 = 18",
        r"So \boxed{18}. #### 18",
    )
    assert with_answer_line(("#### Step 1", r"\boxed{1{,}000}"))[-1] == "#### 1000"
    for steps in (("9 + 9 = 18", "#### 18"), (r"\boxed{18}", "#### 18"), ("no answer",), ()):
        assert with_answer_line(steps) == steps


@pytest.mark.parametrize(("kind", "n_problems"), [("gsm8k", 8792), ("svamp", 1000)])
def test_every_real_gold_answer_parses_and_grades_right(
    data_dir: Path, kind: str, n_problems: int
) -> None:
    task = open_task(
        TaskSettings.model_validate({"kind": kind, "path": str(data_dir / kind)}), seed=0
    )
    problems = [problem for split in ("train", "dev", "test") for problem in task.problems(split)]
    assert len(problems) == n_problems
    wrong = [
        p.id
        for p in problems
        if task.grade(p, p.solution or (f"#### {p.answer}",)) != Grade("right", p.answer)
    ]
    assert wrong == []
