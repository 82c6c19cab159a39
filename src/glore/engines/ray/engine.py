"""A pool of engines on one or many machines with Ray: `engine: {kind: ray, workers: N, inner: {…}}`
(docs/cluster.md).

The driver (the process of `glore run`) reads requests, asks `follow_up` and places requests; actors
draw. Results are handed out as they come. A worker that dies, with its machine or alone, is
replaced if the cluster has room, and what it had is drawn elsewhere, the same since a completion
depends on its seed alone. When there is nothing new to place, workers that have been idle for a
while draw copies of what others are still at, and the first result counts: a slow machine doesn't
hold the end.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glore.engines.protocol import Engine, FollowUp, Request, Result, followed
from glore.engines.ray.assignments import Book
from glore.engines.ray.cluster import connect, import_ray, resources, shipped
from glore.engines.ray.worker import EngineWorker, Exchange, Failure, OpenModel
from glore.errors import ConfigError, EngineError, GloreError, ModelError, shown

if TYPE_CHECKING:
    from types import ModuleType

    from glore.config import EngineSettings

__all__ = ["RayEngine"]

START_SECONDS = 900.0
"""A first worker has to be ready by then (loading a large model from a slow disk takes minutes)."""
POLL_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""A worker that has been without work for so long draws copies of what others are at."""
OPEN_PER_ROW = 3
"""Seeds that a worker has at hand for each row it decodes at once."""


class _Method(Protocol):
    def remote(self, *arguments: object) -> object: ...


class _Handle(Protocol):
    """An actor that runs an EngineWorker."""

    start: _Method
    exchange: _Method


@dataclasses.dataclass(slots=True, eq=False)
class _Worker:
    """An actor as the driver sees it."""

    handle: _Handle
    call: object
    """The reference of the call under way; none: no call."""
    ready: bool = False
    idle_since: float = 0.0


class RayEngine:
    """An `Engine` over a pool. Raises EngineError without Ray or room in the cluster, ModelError
    when no worker can load the model.
    """

    def __init__(self, model_path: str | Path, settings: EngineSettings) -> None:
        self._set_up(settings)
        folder = Path(model_path)
        path = str(folder.resolve()) if folder.exists() else str(model_path)
        self._begin(
            OpenModel(
                path, settings.sampler, shipped(self._ray, folder) if settings.ship_models else None
            )
        )

    @classmethod
    def of(cls, opened: Callable[[], Engine], settings: EngineSettings) -> RayEngine:
        """A pool of whatever `opened` gives in each worker (it travels by pickle)."""
        engine = cls.__new__(cls)
        engine._set_up(settings)
        engine._begin(opened)
        return engine

    def _set_up(self, settings: EngineSettings) -> None:
        self._ray = import_ray()
        self._settings = settings
        inner = settings.sampler
        self._at_hand = OPEN_PER_ROW * (
            inner.concurrency if inner.kind == "http" else inner.max_rows
        )
        self._run = 0
        self._n_started = 0
        self._n_failed_starts = 0
        self._workers: dict[int, _Worker] = {}
        # The next stage's pool needs the room of this one at once, not when Ray finds the actors
        # unused.
        weakref.finalize(self, _end, self._ray, self._workers).atexit = False
        connect(self._ray, settings)

    def _begin(self, opened: Callable[[], Engine]) -> None:
        settings = self._settings
        options = {
            "num_cpus": settings.cpus_per_worker,
            "num_gpus": settings.gpus_per_worker,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        self._actor = self._ray.remote(EngineWorker).options(
            scheduling_strategy="SPREAD", **options
        )
        self._opened = self._ray.put(opened)
        for _ in range(settings.workers):
            self._start_worker()

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`. Leaving it
        early stops the workers.
        """
        source = iter(requests)
        book = self._new_book()
        empty: deque[Request] = deque()
        """Requests without seeds: answered here."""
        more = True
        try:
            while more or book or empty:
                more = more and self._read(source, book, empty)
                while empty:
                    result = Result(empty.popleft(), ())
                    _ask(followed(result, follow_up), book, empty)
                    yield result
                if not book:
                    continue
                self._keep_busy(book, may_copy=not more)
                results, error = self._finished(book)
                for result in results:
                    n_asked = book.answer(result.request)
                    for _ in range(n_asked):
                        _ask(followed(result, follow_up), book, empty)
                    if n_asked:
                        book.close(result.request)
                    for _ in range(n_asked):
                        yield result
                if error is not None:
                    raise error
        finally:
            self._rest()

    def _new_book(self) -> Book:
        self._run += 1
        self._none_since = time.monotonic()
        book = Book(self._settings.retries)
        for number, worker in self._workers.items():
            if worker.ready:
                worker.call, worker.idle_since = None, time.monotonic()
                book.join(number)
        return book

    def _read(self, source: Iterator[Request], book: Book, empty: deque[Request]) -> bool:
        """Take in what the workers have room for. Returns whether the source may have more."""
        while not empty and book.n_seeds < self._at_hand * max(1, len(book.workers)):
            request = next(source, None)
            if request is None:
                return False
            _ask((request,), book, empty)
        return True

    def _keep_busy(self, book: Book, may_copy: bool) -> None:
        """Place requests and send them to every worker that has no call under way."""
        book.place()
        now = time.monotonic()
        for number in book.workers:
            worker = self._workers[number]
            if may_copy and not book.busy(number) and now - worker.idle_since > IDLE_SECONDS:
                book.copy_to(number)
            if book.busy(number):
                worker.idle_since = now
                if worker.call is None:
                    worker.call = worker.handle.exchange.remote(
                        self._run, book.unsent(number), POLL_SECONDS
                    )

    def _finished(self, book: Book) -> tuple[list[Result], GloreError | None]:
        """Wait a while for calls to end. Their results, and what puts an end to the run, if
        anything.
        """
        results: list[Result] = []
        for number in self._ended_calls():
            worker = self._workers[number]
            call, worker.call = worker.call, None
            try:
                value = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._lose(number, book, str(error))
                continue
            if isinstance(value, Exchange):
                results += value.results
            else:
                assert value is None or isinstance(value, Failure)
            failure = value.failure if isinstance(value, Exchange) else value
            if failure is not None and failure.kind is not None:
                return results, _named_error(failure)
            if failure is not None:
                self._lose(number, book, failure.message)
            elif not worker.ready:
                worker.ready, worker.idle_since = True, time.monotonic()
                book.join(number)
        self._check_start(book)
        return results, None

    def _ended_calls(self) -> list[int]:
        calls = {
            worker.call: number
            for number, worker in self._workers.items()
            if worker.call is not None
        }
        if not calls:
            return []
        waited, _ = self._ray.wait(list(calls), num_returns=1, timeout=POLL_SECONDS)
        if waited:
            waited, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [calls[call] for call in waited]

    def _check_start(self, book: Book) -> None:
        now = time.monotonic()
        if book.workers:
            self._none_since = now
        elif now - self._none_since > START_SECONDS:
            raise EngineError(
                f"no worker of the Ray pool was ready within {START_SECONDS:g} s; the cluster has "
                f"{resources(self._ray)}, a worker takes {self._settings.cpus_per_worker:g} CPU "
                f"and {self._settings.gpus_per_worker:g} GPU; see ray status"
            )

    def _start_worker(self) -> None:
        handle = self._actor.remote(self._opened)
        self._workers[self._n_started] = _Worker(handle, handle.start.remote())
        self._n_started += 1

    def _lose(self, number: int, book: Book, why: str) -> None:
        """A worker is gone: another is started in its place, and what it had is drawn elsewhere."""
        worker = self._workers.pop(number)
        self._ray.kill(worker.handle)
        if worker.ready:
            book.lose(number, " ".join(why.split()))
        else:
            self._n_failed_starts += 1
        if self._n_failed_starts <= self._settings.retries:
            self._start_worker()
        elif not self._workers:
            raise EngineError(
                "no worker of the Ray pool could be started, the last: "
                f"{shown(' '.join(why.split()), 300)}; see Ray's logs"
            )

    def _rest(self) -> None:
        """Put an end to what workers are still at: copies, or a run that was left early."""
        self._run += 1
        for worker in self._workers.values():
            if worker.ready:
                worker.call = None
                worker.handle.exchange.remote(self._run, (), 0.0)


def _end(ray: ModuleType, workers: dict[int, _Worker]) -> None:
    """Kill all workers, if Ray still runs."""
    if ray.is_initialized():
        for worker in workers.values():
            ray.kill(worker.handle)


def _ask(requests: Iterable[Request], book: Book, empty: deque[Request]) -> None:
    for request in requests:
        if request.seeds:
            book.ask(request)
        else:
            empty.append(request)


def _named_error(failure: Failure) -> GloreError:
    kinds = {kind.__name__: kind for kind in (ConfigError, ModelError, EngineError)}
    return kinds.get(failure.kind or "", EngineError)(failure.message)
