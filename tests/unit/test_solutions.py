"""Completions → graded solutions."""

from __future__ import annotations

from glore.engines.protocol import Completion
from glore.solutions import by_problem, completion_text, first_of_each, graded_solution, same_text
from support.fakes import LastLineTask, problem, solution


def test_a_completion_becomes_a_graded_solution() -> None:
    completion = Completion("5 + 5 = 10\n\n  #### 10 ", 9, "eos", 77)
    found = graded_solution(
        LastLineTask(),
        problem(),
        completion,
        solution_id="x",
        source="local",
        temperature=0.5,
        draft_id="d",
    )
    assert found.steps == ("5 + 5 = 10", "#### 10")
    assert (found.correct, found.answer, found.source, found.draft_id) == (
        "right",
        "10",
        "local",
        "d",
    )
    assert (found.n_tokens, found.stop, found.seed, found.temperature, found.problem_id) == (
        9,
        "eos",
        77,
        0.5,
        "p0",
    )


def test_bytes_that_are_no_text_are_dropped() -> None:
    assert completion_text("a\ufffd\ufffdb\n\ufffd\n").steps == ("ab",)


def test_grouping_keeps_orders() -> None:
    solutions = [
        solution("a", name=f"s{n}", problem_id=p) for n, p in enumerate(["b", "a", "b", "b", "a"])
    ]
    assert {p: [s.id for s in g] for p, g in by_problem(solutions).items()} == {
        "b": ["s0", "s2", "s3"],
        "a": ["s1", "s4"],
    }
    assert [s.id for s in first_of_each(solutions, 2)] == ["s0", "s2", "s1", "s4"]


def test_the_same_text_but_for_blanks_is_the_same() -> None:
    assert same_text((" a ", "b")) == same_text(("a", "b "))
    assert same_text(("a b",)) != same_text(("ab",))
