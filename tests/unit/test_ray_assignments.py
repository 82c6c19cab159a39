"""The pool's bookkeeping: questions stay together, nothing is lost or answered twice, whatever
happens to workers.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.engines.protocol import Request, SamplingParams
from glore.engines.ray.assignments import Assignments
from glore.errors import EngineError


def request(question: int, step: int = 0, n: int = 1) -> Request:
    return Request(
        f"{question}.{step}",
        (f"question {question}", f"step {step}"),
        tuple(range(n)),
        SamplingParams(),
    )


def assignments_of(n_workers: int, *requests: Request, most_lost: int = 2) -> Assignments:
    assignments = Assignments(most_lost)
    for worker in range(n_workers):
        assignments.add_worker(worker)
    for item in requests:
        assignments.add(item)
    assignments.assign()
    return assignments


def test_an_open_question_stays_with_its_worker_and_new_ones_go_to_the_least_loaded() -> None:
    assignments = assignments_of(2, request(0, n=5), request(1), request(2), request(3))
    assert assignments.unsent(0) == [request(0, n=5)]
    assert assignments.unsent(1) == [request(1), request(2), request(3)]
    assert assignments.unsent(0) == []
    assignments.add(request(0, 1))
    assignments.add(request(1, 1))
    assignments.assign()
    assert (assignments.unsent(0), assignments.unsent(1)) == ([request(0, 1)], [request(1, 1)])
    assert assignments.answer(request(1)) == 1
    assignments.add(request(1, 2))  # a follow-up
    assignments.close(request(1))
    assignments.assign()
    assert assignments.unsent(1) == [request(1, 2)]
    assert assignments.n_seeds == 5 + 1 + 1 + 1 + 1 + 1


def test_equal_requests_are_drawn_once_and_answered_as_often_as_asked() -> None:
    assignments = assignments_of(1, request(0), request(0), request(0))
    assert assignments.unsent(0) == [request(0)]
    assert assignments.n_seeds == 1
    assert assignments.answer(request(0)) == 3
    assert assignments.answer(request(0)) == 0
    assert not assignments


def test_what_a_lost_worker_had_goes_to_others_until_it_was_lost_too_often() -> None:
    assignments = assignments_of(3, *(request(i) for i in range(6)), most_lost=1)
    assignments.remove_worker(2, "gone")
    assignments.assign()
    assert sorted(r.id for w in (0, 1) for r in assignments.unsent(w)) == [
        f"{i}.0" for i in range(6)
    ]
    with pytest.raises(
        EngineError, match=r"'\d\.0' was lost with its worker 2 times, the last: 'fire'"
    ):
        assignments.remove_worker(0, "fire")


def test_with_no_worker_requests_wait() -> None:
    assignments = assignments_of(0, request(0))
    assignments.add_worker(7)
    assignments.assign()
    assert assignments.unsent(7) == [request(0)]


def test_the_later_half_of_the_largest_share_is_copied_and_the_first_answer_counts() -> None:
    assignments = assignments_of(2, *(request(i) for i in range(4)))
    assert assignments.answer(request(1)) == 1
    assert assignments.answer(request(3)) == 1
    assignments.unsent(0)
    assert not assignments.busy(1)
    assert assignments.copy_to(1) == 1
    assert assignments.unsent(1) == [request(2)]
    assert assignments.copy_to(1) == 1
    assert assignments.copy_to(1) == 0
    assert assignments.answer(request(2)) == 1
    assignments.remove_worker(0, "gone")
    assert assignments.answer(request(0)) == 1
    assert not assignments
    assert assignments.n_seeds == 0


@given(st.integers(0, 10**6))
def test_every_request_is_answered_once_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    items = [request(rng.randrange(6), i, rng.randint(1, 4)) for i in range(rng.randint(1, 25))]
    assignments, answered, next_worker = Assignments(10**6), [], 3
    for worker in range(3):
        assignments.add_worker(worker)
    sent: dict[int, list[Request]] = {0: [], 1: [], 2: []}
    todo = list(items)
    while todo or assignments:
        for _ in range(rng.randint(0, 4)):
            if todo:
                assignments.add(todo.pop())
        assignments.assign()
        for worker in assignments.workers:
            sent[worker] += assignments.unsent(worker)
        event = rng.random()
        if event < 0.15:
            gone = rng.choice(assignments.workers)
            assignments.remove_worker(gone, "gone")
            del sent[gone]
            assignments.add_worker(next_worker)
            sent[next_worker] = []
            next_worker += 1
        elif event < 0.3:
            assignments.copy_to(rng.choice(assignments.workers))
        else:
            for worker in assignments.workers:
                if sent[worker] and rng.random() < 0.7:
                    done = sent[worker].pop(rng.randrange(len(sent[worker])))
                    n = assignments.answer(done)
                    answered += [done] * n
                    if n:
                        assignments.close(done)
    assert sorted(r.id for r in answered) == sorted(r.id for r in items)
    assert assignments.n_seeds == 0
    assert not any(assignments.busy(w) for w in assignments.workers)
    assignments.add_worker(next_worker)
    assignments.add(request(0))  # no question is bound to its worker any more: the least loaded
    assignments.assign()
    assert assignments.unsent(assignments.workers[0]) == [request(0)]
