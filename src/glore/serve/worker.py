"""One thread that owns the models: it takes all requests that wait as one batch."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from glore.serve.failures import ApiError
from glore.serve.work import Job

__all__ = ["More", "Worker"]

More = Callable[[Callable[[Job], bool]], list[Job]]
"""A test → the jobs that now stand first in the queue and pass it. The worker has them then."""
Perform = Callable[[Sequence[Job], More], None]


class Worker:
    """Performs jobs in a thread. `perform` answers the jobs of a batch by their futures, and may
    take more jobs while it works.

    A job whose future is cancelled before its turn leaves the queue and is not performed.
    """

    def __init__(
        self, perform: Perform, max_waiting: int, on_batch: Callable[[], None] = lambda: None
    ) -> None:
        self._perform, self._max_waiting, self._on_batch = perform, max_waiting, on_batch
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._taken: list[Job] = []
        self._is_closing = False
        self._last_seconds = 1.0
        self._thread = threading.Thread(target=self._run, name="glore models", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    @property
    def n_running(self) -> int:
        """Jobs of the batch at work that have no answer yet."""
        return sum(not job.future.done() for job in list(self._taken))

    @property
    def is_ready(self) -> bool:
        """Whether jobs are accepted."""
        return self._thread.is_alive() and not self._is_closing

    def submit(self, job: Job) -> None:
        """Let a job wait. Raises ApiError where the queue is full (429) or closed (503)."""
        with self._changed:
            if not self.is_ready:
                raise ApiError(503, "the server is shutting down; ask another one")
            if len(self._queue) >= self._max_waiting:
                wait = max(1, min(60, math.ceil(self._last_seconds)))
                raise ApiError(
                    429,
                    f"{len(self._queue)} requests wait already; ask again in {wait} s",
                    code="queue_full",
                    headers={"Retry-After": str(wait)},
                )
            self._queue.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda _: self._forget(job))

    def close(self, seconds: float = 60) -> None:
        """Accept nothing more, finish what waits, and end the thread; wait so long for that."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _forget(self, job: Job) -> None:
        """A cancelled job frees its place."""
        if job.future.cancelled():
            with self._changed:
                if job in self._queue:
                    self._queue.remove(job)

    def _take(self, fits: Callable[[Job], bool]) -> list[Job]:
        taken = []
        with self._changed:
            while self._queue and fits(self._queue[0]):
                taken.append(self._queue.popleft())
        # Outside the lock: a future that was cancelled just now calls `_forget`.
        ready = [job for job in taken if job.future.set_running_or_notify_cancel()]
        for job in ready:
            job.begun = time.time_ns()
        self._taken += ready
        return ready

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_closing:
                    self._changed.wait()
                if not self._queue:
                    return
            self._taken = []
            jobs = self._take(lambda _: True)
            if not jobs:
                continue
            begin = time.monotonic()
            self._on_batch()
            error: BaseException = RuntimeError("a job was left without an answer; this is a bug")
            try:
                self._perform(jobs, self._take)
            except Exception as failure:  # the thread must outlive whatever a model does
                error = failure
            for job in self._taken:
                if not job.future.done():
                    job.future.set_exception(error)
            self._last_seconds = time.monotonic() - begin
