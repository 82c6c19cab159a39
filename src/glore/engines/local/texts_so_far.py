"""Tells listeners the text of completions that are being drawn, and finished completions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from glore.engines.local.queue import LocalJob
from glore.engines.partial import ListenerOf, OnCompletion, OnText, certain

__all__ = ["TextsSoFar"]

_SHARE = 10
"""Telling takes at most one part in so many of the time, so that streams slow nothing down."""


class TextsSoFar:
    """Who listens to which request, and what they have been told.

    `decode`: token rows → texts, special tokens left out. `on_completion`: is told each
    completion.
    """

    def __init__(
        self,
        decode: Callable[[list[list[int]]], list[str]],
        listener_of: ListenerOf | None = None,
        on_completion: OnCompletion | None = None,
    ) -> None:
        self._decode, self._listener_of, self._on_completion = decode, listener_of, on_completion
        self._listeners: dict[LocalJob, OnText] = {}
        self._told: dict[tuple[LocalJob, int], str] = {}
        self._next = 0.0

    def add(self, job: LocalJob) -> None:
        """Ask who listens to a new request."""
        listener = None if self._listener_of is None else self._listener_of(job.request)
        if listener is not None:
            self._listeners[job] = listener

    @property
    def is_due(self) -> bool:
        """Whether to tell what has been drawn now."""
        return bool(self._listeners) and time.monotonic() >= self._next

    def listens(self, job: LocalJob | None) -> bool:
        """Whether somebody listens to a request."""
        return job in self._listeners

    def tell(self, rows: Iterable[tuple[LocalJob, int, list[int]]]) -> None:
        """Tell the texts of completions in progress: job, index of the seed, tokens so far."""
        begin = time.monotonic()
        drawn = list(rows)
        texts = self._decode([tokens for _, _, tokens in drawn])
        for (job, index, _), whole in zip(drawn, texts, strict=True):
            stop = job.request.params.stop
            text = certain(whole, (stop,) if stop else ())
            if text != self._told.get((job, index), ""):
                self._told[job, index] = text
                self._listeners[job](index, text)
        end = time.monotonic()
        self._next = end + (_SHARE - 1) * (end - begin)

    def finished(self, job: LocalJob, index: int) -> None:
        """The completion of seed `index` is finished, and told to who wants completions. After the
        last one nobody listens to the request any more.
        """
        completion = job.completions[index]
        if self._on_completion is not None and completion is not None:
            self._on_completion(job.request, index, completion)
        self._told.pop((job, index), None)
        if job.is_complete:
            self._listeners.pop(job, None)
