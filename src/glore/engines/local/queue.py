"""Requests on their way: encoded jobs, and the queue of those that have no row yet."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from glore.engines.local.prefix_tree import PAGE_SIZE, Chunk
from glore.engines.protocol import Completion, Request, Result

if TYPE_CHECKING:
    import torch

    from glore.engines.local.prefix_tree import Node

__all__ = ["Job", "Waiting"]

_FIRST, _FOLLOW_UP, _SOURCE = range(3)


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """One request on its way: encoded prompt, seeds still to begin, completions so far."""

    request: Request
    chunks: list[Chunk]
    """The prompt's tokens, a page at a time."""
    n_tokens: int
    max_new: int
    completions: list[Completion | None]
    pending: deque[int]
    """Indices of the seeds that have no row yet."""
    n_done: int = 0
    queued: bool = False
    """Whether it is in the queue."""
    leaf: Node | None = None
    """Where the prompt ends in the tree, held until every seed has begun."""
    logits: torch.Tensor | None = None
    """Next-token logits after the prompt [V], likewise."""

    @property
    def n_pages(self) -> int:
        """Pages that one completion of full length needs, its prompt included."""
        return len(self.chunks) + -(-self.max_new // PAGE_SIZE)

    @property
    def is_done(self) -> bool:
        """Whether all completions are there; true from the start of a request without seeds."""
        return self.n_done == len(self.completions)

    def finish(
        self, index: int, n_tokens: int, text: str, stop: str, logprobs: tuple[float, ...] | None
    ) -> bool:
        """Completion `index` is drawn. Returns whether it was the last of the request."""
        self.completions[index] = Completion(
            text, n_tokens, stop, self.request.seeds[index], logprobs
        )
        self.n_done += 1
        return self.is_done

    def result(self) -> Result:
        """The result of a request all of whose completions are there."""
        return Result(self.request, tuple(c for c in self.completions if c is not None))


class Waiting:
    """Requests that have no row yet; takes more from the source as they run low.

    Requests put back come first, then those that were added on the way (what they share is still
    stored), then the source's, in its order; with `by_length` the longest prompt first. Between two
    and four times `max_rows` seeds are held, so that an endless source is fine.
    """

    def __init__(
        self,
        source: Iterable[Request],
        encode: Callable[[Request], Job],
        max_rows: int,
        by_length: bool = False,
    ) -> None:
        self._source = iter(source)
        self._open = True
        self._encode = encode
        self._low, self._high = 2 * max_rows, 4 * max_rows
        self._by_length = by_length
        self._heap: list[tuple[int, int, Job, int]] = []
        self._count = itertools.count()
        self._n_seeds = 0

    def __bool__(self) -> bool:
        self.refill()
        return bool(self._heap)

    def refill(self) -> None:
        """Take more from the source if requests run low. Whatever the source or the encoding raises
        comes from here.
        """
        if not self._open or (self._heap and self._n_seeds >= self._low):
            return
        while not self._heap or self._n_seeds < self._high:
            request = next(self._source, None)
            if request is None:
                self._open = False
                return
            self._push(self._encode(request), _SOURCE)

    def add(self, requests: Iterable[Request]) -> None:
        """Put requests into the queue."""
        for request in requests:
            self._push(self._encode(request), _FOLLOW_UP)

    def put_back(self, job: Job) -> None:
        """A job some of whose seeds lost their rows, or never got one."""
        if not job.queued:
            self._push(job, _FIRST)

    def pop(self) -> Job | None:
        """The next of the requests held, or none; nothing is taken from the source."""
        if not self._heap:
            return None
        _, _, job, n_seeds = heapq.heappop(self._heap)
        job.queued = False
        self._n_seeds -= n_seeds
        return job

    def next_length(self) -> int:
        """Prompt tokens of the request that `pop` would give, 0 if there is none."""
        return self._heap[0][2].n_tokens if self else 0

    def _push(self, job: Job, rank: int) -> None:
        job.queued = True
        self._n_seeds += len(job.pending)
        heapq.heappush(
            self._heap,
            (-job.n_tokens if self._by_length else rank, next(self._count), job, len(job.pending)),
        )
