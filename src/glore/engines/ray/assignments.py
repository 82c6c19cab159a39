"""Which worker of a pool has which request: placing, answering, losing and copying. Plain
bookkeeping, no Ray.

All requests of a question (the same first segment) go to the worker that has others of them, while
any is open, so that prefixes stay together; else to the one with the least to do. Equal requests
are drawn once, as their results are equal.
"""

from __future__ import annotations

import dataclasses
from collections import Counter

from glore.engines.protocol import Request
from glore.errors import EngineError, shown

__all__ = ["Book"]


@dataclasses.dataclass(slots=True, eq=False)
class _Entry:
    """An open request."""

    n_asked: int = 1
    """Equal requests that wait for its result."""
    workers: set[int] = dataclasses.field(default_factory=set)
    n_lost: int = 0
    """Workers that were lost with it."""


class Book:
    """Open requests and where they are. Workers are numbers."""

    def __init__(self, most_lost: int) -> None:
        """A request that goes down with more than `most_lost` workers is an error."""
        self._most_lost = most_lost
        self._entries: dict[Request, _Entry] = {}
        self._homeless: dict[Request, None] = {}
        """Open and with no worker, in order."""
        self._load: dict[int, dict[Request, None]] = {}
        self._unsent: dict[int, list[Request]] = {}
        self._n_seeds: Counter[int] = Counter()
        self._home: dict[str, int] = {}
        self._n_open: Counter[str] = Counter()
        """Open requests by question."""
        self.n_seeds = 0
        """Of all open requests."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def workers(self) -> list[int]:
        """The workers there are."""
        return list(self._load)

    def join(self, worker: int) -> None:
        """A worker is ready."""
        self._load[worker], self._unsent[worker] = {}, []

    def ask(self, request: Request) -> None:
        """A new request."""
        if (entry := self._entries.get(request)) is not None:
            entry.n_asked += 1
            return
        self._entries[request] = _Entry()
        self._homeless[request] = None
        self._n_open[_question(request)] += 1
        self.n_seeds += len(request.seeds)

    def place(self) -> None:
        """Give every request that has no worker to one, if there are any."""
        while self._homeless and self._load:
            request = next(iter(self._homeless))
            del self._homeless[request]
            home = self._home.get(_question(request))
            worker = (
                home if home in self._load else min(self._load, key=lambda w: (self._n_seeds[w], w))
            )
            self._home[_question(request)] = worker
            self._give(request, worker)

    def unsent(self, worker: int) -> list[Request]:
        """What to send to this worker now; each is told once."""
        requests, self._unsent[worker] = (
            [r for r in self._unsent[worker] if r in self._load[worker]],
            [],
        )
        return requests

    def busy(self, worker: int) -> bool:
        """Whether the worker has open requests."""
        return bool(self._load[worker])

    def answer(self, request: Request) -> int:
        """A result came. How many wait for it: 0 for a copy that came later. Call `close` after its
        follow-ups are asked.
        """
        self._homeless.pop(request, None)
        entry = self._entries.pop(request, None)
        if entry is None:
            return 0
        for worker in entry.workers:
            self._take(request, worker)
        self.n_seeds -= len(request.seeds)
        return entry.n_asked

    def close(self, request: Request) -> None:
        """Forget where the question's requests went, if it has no open ones."""
        question = _question(request)
        self._n_open[question] -= 1
        if not self._n_open[question]:
            del self._n_open[question]
            self._home.pop(question, None)

    def lose(self, worker: int, why: str) -> None:
        """A worker is gone: what it had alone has no worker. Raises EngineError for a request that
        was lost too often.
        """
        requests = self._load.pop(worker, {})
        self._unsent.pop(worker, None)
        del self._n_seeds[worker]
        for question in [q for q, w in self._home.items() if w == worker]:
            del self._home[question]
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
                self._homeless[request] = None

    def copy_to(self, worker: int) -> int:
        """Copy the later half of the requests of the worker with most to do, where they have no
        copy yet. Returns how many.
        """
        lonely = {
            w: [r for r in load if len(self._entries[r].workers) == 1]
            for w, load in self._load.items()
            if w != worker
        }
        donor = max(lonely, key=lambda w: (len(lonely[w]), -w), default=None)
        if donor is None or not lonely[donor]:
            return 0
        chosen = lonely[donor][len(lonely[donor]) // 2 :]
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
