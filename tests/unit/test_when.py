"""The ORM's data and the decision when to refine."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from glore.when import balanced_solutions, contrastive_pairs, needs_work, orm_labels
from support.fakes import solution


def test_every_step_has_the_label_of_the_answer() -> None:
    right, wrong = solution("a\nb\n#### 10", "right", "r"), solution("a\n#### 3", "wrong", "w")
    labels = orm_labels(
        [right, wrong, solution("#### ?", "unknown", "u"), solution("", "wrong", "e")]
    )
    assert [x.labels for x in labels] == [(True, True, True), (False, False), None, None]
    assert [x.first_error for x in labels] == [None, 0, None, None]
    assert labels[0].kept == (True, True, True)
    assert labels[0].rule == "orm"


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["right", "wrong", "unknown"])), max_size=40
    ),
    st.integers(0, 5),
)
def test_balanced_selection_keeps_as_many_of_each_kind_per_question(
    shape: list[tuple[int, str]], seed: int
) -> None:
    solutions = [solution("x", verdict, f"s{n}", f"p{p}") for n, (p, verdict) in enumerate(shape)]
    kept = balanced_solutions(solutions, seed)
    for p in range(5):
        mine = [s.correct for s in solutions if s.problem_id == f"p{p}"]
        verdicts = [s.correct for s in kept if s.problem_id == f"p{p}"]
        n = min(mine.count("right"), mine.count("wrong"))
        assert (verdicts.count("right"), verdicts.count("wrong"), verdicts.count("unknown")) == (
            n,
            n,
            0,
        )
    shuffled = solutions[:]
    random.Random(seed).shuffle(shuffled)
    assert {s.id for s in balanced_solutions(shuffled, seed)} == {s.id for s in kept}
    assert kept == [s for s in solutions if s in kept]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["right", "wrong", "unknown"])), max_size=30
    ),
    st.integers(0, 5),
)
def test_pairs_are_of_one_question_and_use_no_solution_twice(
    shape: list[tuple[int, str]], seed: int
) -> None:
    solutions = [solution("x", verdict, f"s{n}", f"p{p}") for n, (p, verdict) in enumerate(shape)]
    pairs = contrastive_pairs(solutions, seed)
    for right, wrong in pairs:
        assert (right.correct, wrong.correct) == ("right", "wrong")
        assert right.problem_id == wrong.problem_id
    used = [s.id for pair in pairs for s in pair]
    assert len(used) == len(set(used))
    # min(n+, n-) of each question: the solutions of the Balanced ORM.
    assert set(used) == {s.id for s in balanced_solutions(solutions, seed)}
    shuffled = solutions[:]
    random.Random(seed).shuffle(shuffled)
    ids = {(a.id, b.id) for a, b in pairs}
    assert {(a.id, b.id) for a, b in contrastive_pairs(shuffled, seed)} == ids


def test_balanced_selection_differs_between_seeds() -> None:
    solutions = [solution("x", "right" if n % 4 == 0 else "wrong", f"s{n}") for n in range(40)]
    chosen = {tuple(s.id for s in balanced_solutions(solutions, seed)) for seed in range(5)}
    assert len(chosen) == 5


def test_a_draft_needs_work_at_the_threshold_and_when_it_is_empty() -> None:
    assert needs_work((0.1, 0.5), 0.5)
    assert not needs_work((0.1, 0.51), 0.5)
    assert needs_work((), 0.5)
