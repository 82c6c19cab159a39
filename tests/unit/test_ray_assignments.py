"""The pool's bookkeeping: questions stay together, nothing is lost or answered twice, whatever
happens to workers.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.engines.protocol import Request, SamplingParams
from glore.engines.ray.assignments import Book
from glore.errors import EngineError


def request(question: int, step: int = 0, n: int = 1) -> Request:
    return Request(
        f"{question}.{step}",
        (f"question {question}", f"step {step}"),
        tuple(range(n)),
        SamplingParams(),
    )


def book_of(n_workers: int, *requests: Request, most_lost: int = 2) -> Book:
    book = Book(most_lost)
    for worker in range(n_workers):
        book.join(worker)
    for item in requests:
        book.ask(item)
    book.place()
    return book


def test_an_open_question_stays_with_its_worker_and_new_ones_go_to_the_least_loaded() -> None:
    book = book_of(2, request(0, n=5), request(1), request(2), request(3))
    assert book.unsent(0) == [request(0, n=5)]
    assert book.unsent(1) == [request(1), request(2), request(3)]
    assert book.unsent(0) == []
    book.ask(request(0, 1))
    book.ask(request(1, 1))
    book.place()
    assert (book.unsent(0), book.unsent(1)) == ([request(0, 1)], [request(1, 1)])
    assert book.answer(request(1)) == 1
    book.ask(request(1, 2))  # a follow-up
    book.close(request(1))
    book.place()
    assert book.unsent(1) == [request(1, 2)]
    assert book.n_seeds == 5 + 1 + 1 + 1 + 1 + 1


def test_equal_requests_are_drawn_once_and_answered_as_often_as_asked() -> None:
    book = book_of(1, request(0), request(0), request(0))
    assert book.unsent(0) == [request(0)]
    assert book.n_seeds == 1
    assert book.answer(request(0)) == 3
    assert book.answer(request(0)) == 0
    assert not book


def test_what_a_lost_worker_had_goes_to_others_until_it_was_lost_too_often() -> None:
    book = book_of(3, *(request(i) for i in range(6)), most_lost=1)
    book.lose(2, "gone")
    book.place()
    assert sorted(r.id for w in (0, 1) for r in book.unsent(w)) == [f"{i}.0" for i in range(6)]
    with pytest.raises(
        EngineError, match=r"'\d\.0' was lost with its worker 2 times, the last: 'fire'"
    ):
        book.lose(0, "fire")


def test_with_no_worker_requests_wait() -> None:
    book = book_of(0, request(0))
    book.join(7)
    book.place()
    assert book.unsent(7) == [request(0)]


def test_the_later_half_of_the_largest_share_is_copied_and_the_first_answer_counts() -> None:
    book = book_of(2, *(request(i) for i in range(4)))
    assert book.answer(request(1)) == 1
    assert book.answer(request(3)) == 1
    book.unsent(0)
    assert not book.busy(1)
    assert book.copy_to(1) == 1
    assert book.unsent(1) == [request(2)]
    assert book.copy_to(1) == 1
    assert book.copy_to(1) == 0
    assert book.answer(request(2)) == 1
    book.lose(0, "gone")
    assert book.answer(request(0)) == 1
    assert not book
    assert book.n_seeds == 0


@given(st.integers(0, 10**6))
def test_every_request_is_answered_once_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    items = [request(rng.randrange(6), i, rng.randint(1, 4)) for i in range(rng.randint(1, 25))]
    book, answered, next_worker = Book(10**6), [], 3
    for worker in range(3):
        book.join(worker)
    sent: dict[int, list[Request]] = {0: [], 1: [], 2: []}
    todo = list(items)
    while todo or book:
        for _ in range(rng.randint(0, 4)):
            if todo:
                book.ask(todo.pop())
        book.place()
        for worker in book.workers:
            sent[worker] += book.unsent(worker)
        event = rng.random()
        if event < 0.15:
            gone = rng.choice(book.workers)
            book.lose(gone, "gone")
            del sent[gone]
            book.join(next_worker)
            sent[next_worker] = []
            next_worker += 1
        elif event < 0.3:
            book.copy_to(rng.choice(book.workers))
        else:
            for worker in book.workers:
                if sent[worker] and rng.random() < 0.7:
                    done = sent[worker].pop(rng.randrange(len(sent[worker])))
                    n = book.answer(done)
                    answered += [done] * n
                    if n:
                        book.close(done)
    assert sorted(r.id for r in answered) == sorted(r.id for r in items)
    assert book.n_seeds == 0
    assert not any(book.busy(w) for w in book.workers)
    assert book._home == {}
    assert book._n_open == {}
