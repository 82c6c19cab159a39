"""Requests that have no row yet: encoded, and in the order in which they get one."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING

from glore.engines.local.prefix_tree import PAGE_SIZE, Chunk
from glore.engines.requests import Job

if TYPE_CHECKING:
    import torch

    from glore.engines.local.prefix_tree import Node

__all__ = ["LocalJob", "RequestQueue"]

_PUT_BACK, _FOLLOW_UP, _SOURCE = range(3)


@dataclasses.dataclass(slots=True, eq=False)
class LocalJob(Job):
    """A request in progress with its encoded prompt and the seeds that have no row yet."""

    chunks: list[Chunk]
    """The prompt's tokens, a page at a time."""
    n_tokens: int
    """Tokens of the prompt."""
    max_new: int
    """Tokens that each completion may have."""
    pending: deque[int]
    """Indices of the seeds that have no row yet."""
    queued: bool = False
    """Whether it is in the queue."""
    leaf: Node | None = None
    """Where the prompt ends in the prefix tree, held until every seed has a row."""
    logits: torch.Tensor | None = None
    """Next-token logits after the prompt [V], likewise."""

    @property
    def n_pages(self) -> int:
        """Pages that one completion of full length needs, its prompt included."""
        return len(self.chunks) + -(-self.max_new // PAGE_SIZE)

    def restart(self) -> None:
        """Unfinished completions begin again: their seeds are pending, the prompt is not stored."""
        self.leaf = self.logits = None
        self.pending = deque(i for i, c in enumerate(self.completions) if c is None)


class RequestQueue:
    """Jobs in the order in which they get rows.

    Preempted jobs come first, then follow-ups (the prefixes that they share are still stored), then
    the source's. With `by_length` the longest prompt comes first.
    """

    def __init__(self, max_rows: int, by_length: bool = False) -> None:
        self._low, self._high = 2 * max_rows, 4 * max_rows
        self._is_filling = False
        self._by_length = by_length
        self._heap: list[tuple[int, int, LocalJob, int]] = []
        self._count = itertools.count()
        self._n_seeds = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    def wants_more(self) -> bool:
        """Whether to add jobs: from fewer than twice `max_rows` seeds on, up to four times as many.

        So an endless source is read as it is needed.
        """
        limit = self._high if self._is_filling else self._low
        self._is_filling = not self._heap or self._n_seeds < limit
        return self._is_filling

    def add(self, job: LocalJob, is_follow_up: bool) -> None:
        """Put a new job into the queue."""
        self._push(job, _FOLLOW_UP if is_follow_up else _SOURCE)

    def put_back(self, job: LocalJob) -> None:
        """Put back a job some of whose seeds lost their rows or never got one."""
        if not job.queued:
            self._push(job, _PUT_BACK)

    def pop(self) -> LocalJob | None:
        """Take out the next job, or none from an empty queue."""
        if not self._heap:
            return None
        _, _, job, n_seeds = heapq.heappop(self._heap)
        job.queued = False
        self._n_seeds -= n_seeds
        return job

    def next_length(self) -> int:
        """Prompt tokens of the job that `pop` would give; 0 if there is none."""
        return self._heap[0][2].n_tokens if self._heap else 0

    def _push(self, job: LocalJob, rank: int) -> None:
        job.queued = True
        self._n_seeds += len(job.pending)
        order = -job.n_tokens if self._by_length else rank
        heapq.heappush(self._heap, (order, next(self._count), job, len(job.pending)))
