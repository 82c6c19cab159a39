"""A pool of engines on one or many machines with Ray: `engine: {kind: ray, workers: N, inner: {…}}`
(docs/cluster.md).

The driver (the process of `glore run`) reads requests, asks `follow_up` and assigns requests to
workers, which are Ray actors and draw. A worker that dies, with its machine or alone, is replaced
if the cluster has room. Its requests are drawn elsewhere, to the same texts, since a completion
depends on its seed alone. When the source is empty, workers that have been idle for a while draw
copies of what others are still at. The first result counts, so a slow machine doesn't delay the
end.
"""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from glore.config import HttpEngineSettings
from glore.engines.lifetime import Closable
from glore.engines.protocol import Engine, FollowUp, Request, Result
from glore.engines.ray.assignments import Assignments
from glore.engines.ray.cluster import connect, disconnect, import_ray, resources, shipped
from glore.engines.ray.worker import (
    EngineWorker,
    Exchange,
    Failure,
    ModelFiles,
    OpenModel,
    Started,
)
from glore.engines.requests import run_requests
from glore.errors import ConfigError, EngineError, GloreError, ModelError, shown
from glore.models import merged_folder

if TYPE_CHECKING:
    from types import ModuleType

    from glore.config import RayEngineSettings

__all__ = ["Opener", "RayEngine"]

Opener = Callable[[str, "ModelFiles | None"], Callable[[], Engine]]
"""Path of a model and its files, if they are sent along → what opens an engine in a worker."""

START_SECONDS = 900.0
"""Time for a first worker to be ready: a large model on a slow disk loads for minutes."""
POLL_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""A worker that has been without work for this long draws copies of what others are at."""
OPEN_PER_ROW = 3
"""Seeds that a worker has for each row that it decodes at once."""


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
    """The reference of the call in progress; none: no call."""
    ready: bool = False
    idle_since: float = 0.0


class RayEngine(Closable):
    """An `Engine` over a pool.

    Raises EngineError without Ray or room in the cluster, ModelError when no worker can load the
    model.
    """

    def __init__(self, model_path: str | Path, settings: RayEngineSettings) -> None:
        self._open(
            model_path, settings, lambda path, files: OpenModel(path, settings.sampler, files)
        )

    @classmethod
    def over(cls, model_path: str | Path, settings: RayEngineSettings, opener: Opener) -> RayEngine:
        """A pool of other engines over the model at this path: `opener` takes the path and, if they
        are sent along, the model's files, and returns what opens the engine in a worker. That must
        be picklable.
        """
        engine = cls.__new__(cls)
        engine._open(model_path, settings, opener)
        return engine

    @classmethod
    def of(cls, opened: Callable[[], Engine], settings: RayEngineSettings) -> RayEngine:
        """A pool of the engines that `opened` returns in each worker. It must be picklable."""
        engine = cls.__new__(cls)
        engine._set_up(settings)
        engine._begin(opened)
        return engine

    def _open(self, model_path: str | Path, settings: RayEngineSettings, opener: Opener) -> None:
        self._set_up(settings)
        folder = Path(model_path)
        path = str(folder.resolve()) if folder.exists() else str(model_path)
        files = None
        if settings.ship_models:
            # An adapter's base may not be on the workers' machines. Elsewhere, a worker that is
            # started later still has to find the model, so it merges the adapter itself.
            with merged_folder(model_path) as whole:
                files = shipped(self._ray, Path(whole))
        self._begin(opener(path, files))

    def _set_up(self, settings: RayEngineSettings) -> None:
        self._ray = import_ray()
        self._settings = settings
        inner = settings.sampler
        self._seeds_per_worker = OPEN_PER_ROW * (
            inner.concurrency if isinstance(inner, HttpEngineSettings) else inner.max_rows
        )
        self._run = 0
        self._n_started = 0
        self._n_failed_starts = 0
        self._workers: dict[int, _Worker] = {}
        self._started: Started | None = None
        """What the first worker to be ready reported."""
        connect(self._ray, settings)
        # For a pool that nobody closes: the next one needs its room at once, not when Ray finds
        # the actors unused.
        self._end = weakref.finalize(self, _end, self._ray, self._workers)
        self._end.atexit = False

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

    @property
    def backend(self) -> str:
        """The pool, and what its engines use, which is known once a worker is ready."""
        n, inner = self._settings.workers, self._settings.sampler
        return f"ray × {n} ({self._started.backend if self._started else inner.kind})"

    def _free(self) -> None:
        self._end()

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`.

        Leaving it early stops the workers.
        """
        self.check_open()
        return self._guarded(self._results(requests, follow_up))

    def _results(
        self, requests: Iterable[Request], follow_up: FollowUp | None
    ) -> Generator[Result]:
        stepper = _PoolStepper(self, self._new_assignments())
        try:
            yield from run_requests(stepper, stepper.watched(requests), follow_up)
        finally:
            self._rest()

    def _new_assignments(self) -> Assignments:
        self._run += 1
        self._none_since = time.monotonic()
        assignments = Assignments(self._settings.retries)
        for number, worker in self._workers.items():
            if worker.ready:
                worker.call, worker.idle_since = None, time.monotonic()
                assignments.add_worker(number)
        return assignments

    def has_room(self, assignments: Assignments) -> bool:
        """Whether the workers have fewer seeds than `OPEN_PER_ROW` asks for."""
        return assignments.n_seeds < self._seeds_per_worker * max(1, len(assignments.workers))

    def keep_busy(self, assignments: Assignments, may_copy: bool) -> None:
        """Assign requests and send them to every worker that has no call in progress.

        `may_copy`: idle workers draw copies of what others are still at.
        """
        assignments.assign()
        now = time.monotonic()
        for number in assignments.workers:
            worker = self._workers[number]
            if may_copy and not assignments.busy(number) and now - worker.idle_since > IDLE_SECONDS:
                assignments.copy_to(number)
            if assignments.busy(number):
                worker.idle_since = now
                if worker.call is None:
                    worker.call = worker.handle.exchange.remote(
                        self._run, assignments.unsent(number), POLL_SECONDS
                    )

    def finished(self, assignments: Assignments) -> tuple[list[Result], GloreError | None]:
        """Wait a while for calls to end. Returns their results, and an error that ends the run."""
        results: list[Result] = []
        for number in self._ended_calls():
            worker = self._workers[number]
            call, worker.call = worker.call, None
            try:
                value = self._ray.get(call)
            except self._ray.exceptions.RayError as error:
                self._lose(number, assignments, str(error))
                continue
            if isinstance(value, Exchange):
                results += value.results
            else:
                assert isinstance(value, Started | Failure)
            if isinstance(value, Started):
                self._started = self._started or value
                self.warning = self._started.warning
            failure = _failure_of(value)
            if failure is not None and failure.kind is not None:
                return results, _named_error(failure)
            if failure is not None:
                self._lose(number, assignments, failure.message)
            elif not worker.ready:
                worker.ready, worker.idle_since = True, time.monotonic()
                assignments.add_worker(number)
        self._check_start(assignments)
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

    def _check_start(self, assignments: Assignments) -> None:
        now = time.monotonic()
        if assignments.workers:
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

    def _lose(self, number: int, assignments: Assignments, why: str) -> None:
        """Replace a lost worker; its requests are drawn elsewhere."""
        worker = self._workers.pop(number)
        self._ray.kill(worker.handle)
        if worker.ready:
            assignments.remove_worker(number, " ".join(why.split()))
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
        """Stop what workers are still at: copies, or a run that was left early."""
        self._run += 1
        for worker in self._workers.values():
            if worker.ready:
                worker.call = None
                worker.handle.exchange.remote(self._run, (), 0.0)


class _PoolStepper:
    """The requests of one `run`, drawn by the pool's workers."""

    def __init__(self, pool: RayEngine, assignments: Assignments) -> None:
        self._pool, self._assignments = pool, assignments
        self._is_source_empty = False
        self._answered: list[Request] = []
        self._error: GloreError | None = None

    def watched(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The same requests; notes when there are no more, since copies are drawn only then."""
        yield from requests
        self._is_source_empty = True

    @property
    def is_busy(self) -> bool:
        """Whether some of the requests are not answered, or an error is to be raised."""
        return bool(self._assignments) or self._error is not None

    def has_room(self) -> bool:
        """Whether to add a request from the source now."""
        return self._pool.has_room(self._assignments)

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Let a request be assigned to a worker."""
        self._assignments.add(request)

    def step(self) -> list[Result]:
        """Send requests to workers and wait for some of their results."""
        if self._error is not None:
            raise self._error
        # Follow-ups of these have been added since, and go to the same workers.
        for request in self._answered:
            self._assignments.close(request)
        self._answered.clear()
        self._pool.keep_busy(self._assignments, may_copy=self._is_source_empty)
        results, self._error = self._pool.finished(self._assignments)
        complete: list[Result] = []
        for result in results:
            n_asked = self._assignments.answer(result.request)
            complete += [result] * n_asked
            if n_asked:
                self._answered.append(result.request)
        return complete


def _end(ray: ModuleType, workers: dict[int, _Worker]) -> None:
    """Kill all workers, if Ray still runs, and leave or stop the cluster after the last pool."""
    if ray.is_initialized():
        for worker in workers.values():
            ray.kill(worker.handle)
    workers.clear()
    disconnect(ray)


def _failure_of(value: Started | Exchange | Failure) -> Failure | None:
    if isinstance(value, Exchange):
        return value.failure
    return value if isinstance(value, Failure) else None


def _named_error(failure: Failure) -> GloreError:
    kinds = {kind.__name__: kind for kind in (ConfigError, ModelError, EngineError)}
    return kinds.get(failure.kind or "", EngineError)(failure.message)
