"""Which worker of a pool has which request. Bookkeeping only, no Ray.

A request goes to the worker that has open requests of the same question (the same first segment),
so that prefixes stay together; otherwise to the worker with the least to do. Equal requests are
drawn once, since their results are equal.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from glore.engines.protocol import Request
from glore.errors import EngineError, shown

__all__ = ["Assignments"]


@dataclasses.dataclass(slots=True, eq=False)
class _Entry:
    """An open request."""

    n_asked: int = 1
    """Equal requests that need its result."""
    workers: set[int] = dataclasses.field(default_factory=set)
    n_lost: int = 0
    """Workers that were lost while they had it."""


class Assignments:
    """Open requests and the workers that have them. Workers are numbers."""

    def __init__(self, most_lost: int) -> None:
        """A request is an error once it was lost with more than `most_lost` workers."""
        self._most_lost = most_lost
        self._entries: dict[Request, _Entry] = {}
        self._unassigned: dict[Request, None] = {}
        """Open requests without a worker, in order."""
        self._load: dict[int, dict[Request, None]] = {}
        self._unsent: dict[int, list[Request]] = {}
        self._n_seeds: Counter[int] = Counter()
        self._worker_of: dict[str, int] = {}
        self._n_open: Counter[str] = Counter()
        """Open requests by question."""
        self.n_seeds = 0
        """Of all open requests."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def workers(self) -> list[int]:
        """The workers that are ready."""
        return list(self._load)

    def add_worker(self, worker: int) -> None:
        """Add a worker that is ready."""
        self._load[worker], self._unsent[worker] = {}, []

    def add(self, request: Request) -> None:
        """Add a request."""
        if (entry := self._entries.get(request)) is not None:
            entry.n_asked += 1
            return
        self._entries[request] = _Entry()
        self._unassigned[request] = None
        self._n_open[_question(request)] += 1
        self.n_seeds += len(request.seeds)

    def assign(self) -> None:
        """Assign every request that has no worker, if there are workers."""
        while self._unassigned and self._load:
            request = next(iter(self._unassigned))
            del self._unassigned[request]
            known = self._worker_of.get(_question(request))
            worker = (
                known
                if known in self._load
                else min(self._load, key=lambda w: (self._n_seeds[w], w))
            )
            self._worker_of[_question(request)] = worker
            self._give(request, worker)

    def unsent(self, worker: int) -> list[Request]:
        """Requests to send to this worker now; each is returned once."""
        requests, self._unsent[worker] = (
            [r for r in self._unsent[worker] if r in self._load[worker]],
            [],
        )
        return requests

    def busy(self, worker: int) -> bool:
        """Whether the worker has open requests."""
        return bool(self._load[worker])

    def answer(self, request: Request) -> int:
        """Note a result. Returns how many requests it answers; 0 for a copy that came later.

        Call `close` after its follow-ups are added.
        """
        self._unassigned.pop(request, None)
        entry = self._entries.pop(request, None)
        if entry is None:
            return 0
        for worker in entry.workers:
            self._take(request, worker)
        self.n_seeds -= len(request.seeds)
        return entry.n_asked

    def close(self, request: Request) -> None:
        """Forget the question's worker, if the question has no open requests."""
        question = _question(request)
        self._n_open[question] -= 1
        if not self._n_open[question]:
            del self._n_open[question]
            self._worker_of.pop(question, None)

    def remove_worker(self, worker: int, why: str) -> None:
        """Remove a lost worker; what only it had is unassigned again.

        Raises EngineError for a request that was lost too often.
        """
        requests = self._load.pop(worker, {})
        self._unsent.pop(worker, None)
        del self._n_seeds[worker]
        for question in [q for q, w in self._worker_of.items() if w == worker]:
            del self._worker_of[question]
        for request in requests:
            entry = self._entries[request]
            entry.workers.discard(worker)
            entry.n_lost += 1
            if entry.n_lost > self._most_lost:
                raise EngineError(
                    f"request {shown(request.id)} was lost with its worker {entry.n_lost} times, "
                    f"the last: {shown(why, 240)}; see Ray's logs (often memory: lower max_rows), "
                    "then run again: finished shards are kept (engine.retries: tries)"
                )
            if not entry.workers:
                self._unassigned[request] = None

    def copy_to(self, worker: int) -> int:
        """Assign copies of the later half of what the worker with most to do has to this worker.

        Requests that have a copy are left out. Returns the number of copies.
        """
        uncopied = {
            w: [r for r in load if len(self._entries[r].workers) == 1]
            for w, load in self._load.items()
            if w != worker
        }
        donor = max(uncopied, key=lambda w: (len(uncopied[w]), -w), default=None)
        if donor is None or not uncopied[donor]:
            return 0
        chosen = uncopied[donor][len(uncopied[donor]) // 2 :]
        for request in chosen:
            self._give(request, worker)
        return len(chosen)

    def _give(self, request: Request, worker: int) -> None:
        self._entries[request].workers.add(worker)
        self._load[worker][request] = None
        self._unsent[worker].append(request)
        self._n_seeds[worker] += len(request.seeds)

    def _take(self, request: Request, worker: int) -> None:
        del self._load[worker][request]
        self._n_seeds[worker] -= len(request.seeds)


def _question(request: Request) -> str:
    return request.segments[0] if request.segments else ""
