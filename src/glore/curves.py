"""Live curves of sampling for TensorBoard: rate, share of right answers, balance of step labels.

A stage reports to `Curves` while it works. Trainings have curves of their own, which the Trainer
writes. Curves change no result: what can't be written is left out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

__all__ = ["SECONDS_PER_POINT", "Curves"]

SECONDS_PER_POINT = 2.0
"""A point of the rate is at least this long; the end of a shard always is one."""


class Curves:
    """The curves of one stage, in `folder`; none: nothing is written.

    `n_done` of a point, its place on the x axis, counts items of the part: those of an earlier
    attempt too, so a curve goes on where it stopped.
    """

    def __init__(
        self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self._clock = folder, clock
        self._writer: EventFileWriter | None = None
        self._part, self._n_done = "part", 0
        self._items, self._tokens = 0, 0
        self._since = clock()
        self._shares: dict[str, tuple[int, int]] = {}

    def begin(self, part: str, n_done: int) -> None:
        """Start a part of which `n_done` items are there already."""
        self._part, self._n_done, self._shares = part, n_done, {}
        self._items, self._tokens, self._since = 0, 0, self._clock()

    def advance(self, items: int, tokens: int) -> None:
        """Count what was just done. Every few seconds that is a point of the rate."""
        self._items += items
        self._tokens += tokens
        if self._folder is not None and self._clock() - self._since >= SECONDS_PER_POINT:
            self._rate()

    def share(self, name: str, n: int, of: int) -> None:
        """Count `n` of `of` for the curve `name`, such as right answers."""
        before = self._shares.get(name, (0, 0))
        self._shares[name] = (before[0] + n, before[1] + of)

    def end_shard(self) -> None:
        """A shard is committed: a point of the rate, and one of each share in this shard."""
        if self._folder is None:
            return
        self._rate()
        self._write({name: n / of for name, (n, of) in self._shares.items() if of})
        self._shares = {}

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _rate(self) -> None:
        if not self._items and not self._tokens:
            return
        seconds = max(self._clock() - self._since, 1e-9)
        self._n_done += self._items
        self._write(
            {"items_per_second": self._items / seconds, "tokens_per_second": self._tokens / seconds}
        )
        self._items, self._tokens, self._since = 0, 0, self._clock()

    def _write(self, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        suffix = "" if self._part == "part" else f"/{self._part}"
        summary = Summary(
            value=[
                Summary.Value(tag=f"sampling/{name}{suffix}", simple_value=value)
                for name, value in values.items()
            ]
        )
        with contextlib.suppress(OSError):  # a run must not end for a curve
            if self._writer is None:
                self._writer = EventFileWriter(str(self._folder), flush_secs=5)
            self._writer.add_event(Event(wall_time=time.time(), step=self._n_done, summary=summary))
