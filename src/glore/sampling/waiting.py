"""Requests on their way: encoded jobs, and the queue of those that have no row yet."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from glore.sampling.protocol import Completion, Request, Result

if TYPE_CHECKING:
    import torch

__all__ = ["Job", "Waiting"]


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """One request on its way: encoded prompt, seeds begun, completions so far."""

    request: Request
    tokens: list[int]
    max_new: int
    completions: list[Completion | None]
    n_begun: int = 0
    n_done: int = 0
    node: int = -1
    logits: torch.Tensor | None = None
    """Next-token logits after the prompt [V], kept until every seed has begun."""

    @property
    def n_waiting(self) -> int:
        """Seeds that have no row yet."""
        return len(self.request.seeds) - self.n_begun

    def finish(self, index: int, token_ids: list[int], text: str, by_end: bool) -> bool:
        """Completion `index` is drawn. Returns whether it was the last of the request."""
        self.completions[index] = Completion(text, len(token_ids), "eos" if by_end else "length", self.request.seeds[index])
        self.n_done += 1
        return self.n_done == len(self.completions)

    def result(self) -> Result:
        """The result of a request all of whose completions are there."""
        return Result(self.request, tuple(c for c in self.completions if c is not None))


class Waiting:
    """Requests that have no row yet, longest prompt first; takes more from the source as they run low.

    Between two and four times `max_rows` seeds are held, so that an endless source is fine.
    """

    def __init__(self, source: Iterable[Request], encode: Callable[[Request], Job], max_rows: int) -> None:
        self._source = iter(source)
        self._open = True
        self._encode = encode
        self._low, self._high = 2 * max_rows, 4 * max_rows
        self._heap: list[tuple[int, int, Job]] = []
        self._count = itertools.count()
        self._n_seeds = 0

    def __bool__(self) -> bool:
        self._refill()
        return bool(self._heap)

    def add(self, requests: Iterable[Request]) -> None:
        """Put requests into the queue."""
        for request in requests:
            self._push(request)

    def pop(self) -> Job | None:
        """The next request, or none."""
        if not self:
            return None
        job = heapq.heappop(self._heap)[2]
        self._n_seeds -= len(job.request.seeds)
        return job

    def next_length(self) -> int:
        """Prompt tokens of the request that `pop` would give, 0 if there is none."""
        return len(self._heap[0][2].tokens) if self else 0

    def _push(self, request: Request) -> None:
        job = self._encode(request)
        self._n_seeds += len(request.seeds)
        heapq.heappush(self._heap, (-len(job.tokens), next(self._count), job))

    def _refill(self) -> None:
        if not self._open or (self._heap and self._n_seeds >= self._low):
            return
        while not self._heap or self._n_seeds < self._high:
            request = next(self._source, None)
            if request is None:
                self._open = False
                return
            self._push(request)
