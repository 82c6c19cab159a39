"""The loop that every engine's `run` is: lazy, follow-ups at once, every request answered once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from glore.engines.protocol import Completion, Request, Result, SamplingParams
from glore.engines.requests import Job, run_requests


def request(name: str, n: int = 1) -> Request:
    return Request(name, (name,), tuple(range(n)), SamplingParams())


class RandomStepper:
    """Finishes some completions of the open requests in each step, in a random order."""

    def __init__(self, seed: int, room: int) -> None:
        self._random, self._room = random.Random(seed), room
        self._open: list[tuple[Job, int]] = []
        self.log: list[str] = []

    @property
    def is_busy(self) -> bool:
        return bool(self._open)

    def has_room(self) -> bool:
        return len(self._open) < self._room

    def add(self, new: Request, is_follow_up: bool) -> None:
        assert new.seeds, "a request without seeds needs no engine"
        self.log.append(f"{new.id}{'+' if is_follow_up else ''}")
        job = Job(new)
        self._open += [(job, index) for index in range(len(new.seeds))]

    def step(self) -> list[Result]:
        self.log.append("step")
        self._random.shuffle(self._open)
        n = self._random.randint(0, len(self._open))
        done, self._open = self._open[:n], self._open[n:]
        return [job.result() for job, index in done if job.finish(index, f"text {index}", 2, "eos")]


def test_a_job_is_complete_with_its_last_completion_and_keeps_the_order_of_the_seeds() -> None:
    job = Job(request("a", 3))
    assert not job.finish(2, "last", 1, "eos")
    assert not job.finish(0, "first", 2, "length", (-0.5, -1.0))
    assert job.finish(1, "second", 3, "stop")
    assert job.result().completions == (
        Completion("first", 2, "length", 0, (-0.5, -1.0)),
        Completion("second", 3, "stop", 1),
        Completion("last", 1, "eos", 2),
    )


@given(st.integers(0, 10**6), st.integers(1, 9), st.lists(st.integers(0, 4), max_size=12))
def test_every_request_and_follow_up_is_answered_once(seed: int, room: int, ns: list[int]) -> None:
    """A request of n seeds is followed by one of n - 1, also by one without seeds."""

    def shorter(result: Result) -> list[Request]:
        n = len(result.completions)
        return [request(f"{result.request.id}.{n - 1}", n - 1)] if n else []

    stepper = RandomStepper(seed, room)
    results = list(run_requests(stepper, (request(f"r{i}", n) for i, n in enumerate(ns)), shorter))
    names = [
        ".".join([f"r{i}", *map(str, range(n - 1, m - 1, -1))])
        for i, n in enumerate(ns)
        for m in range(n + 1)
    ]
    assert sorted(r.request.id for r in results) == sorted(names)
    for result in results:
        assert [c.text for c in result.completions] == [f"text {i}" for i in result.request.seeds]
    assert not stepper.is_busy


def test_the_source_is_read_as_there_is_room_and_not_ahead() -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        for taken in itertools.count(1):
            yield request(f"r{taken}")

    results = run_requests(RandomStepper(1, 3), endless())
    assert taken == 0
    for n in range(1, 20):
        next(results)
        assert taken <= n + 3


def test_follow_ups_are_added_before_their_result_is_yielded_and_need_no_room() -> None:
    stepper = RandomStepper(0, 1)
    results = run_requests(
        stepper,
        [request("a"), request("b")],
        lambda result: (
            [request(f"{result.request.id}{i}") for i in range(3)]
            if len(result.request.id) == 1
            else []
        ),
    )
    assert next(results).request.id == "a"
    assert stepper.log[-3:] == ["a0+", "a1+", "a2+"]
    assert "b" not in stepper.log
    assert len(list(results)) == 7


def test_a_request_without_seeds_is_answered_without_the_engine() -> None:
    stepper = RandomStepper(0, 1)
    results = list(run_requests(stepper, [request("empty", 0)]))
    assert results == [Result(request("empty", 0), ())]
    assert stepper.log == []
