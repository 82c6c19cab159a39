"""The lifetime of what holds a model: open, closed once, refused afterwards."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

from glore.engines.protocol import Result
from glore.errors import EngineError, shown

__all__ = ["Closable", "ClosedAtExit"]


class ClosedAtExit(ABC):
    """Base of what `with` closes at the end."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Closable(ClosedAtExit):
    """Base of engines and scorers: `close`, `with`, and an error for use after that.

    A class derived from it frees what it holds in `_free`, sets `name`, and calls `check_open`
    before it works. Runs go through `_guarded`.
    """

    name: str = "the model"
    """What errors call it."""
    warning: str = ""
    """Why a slower backend is used than the model's kind has, and what that costs; "": it is not.
    """
    is_closed: bool = False
    _streams: weakref.WeakSet[_Stream] | None = None

    def close(self) -> None:
        """Free the model's memory and end what was started for it. Closing again does nothing.

        Runs in progress end: reading on from them raises EngineError. Raises EngineError inside a
        run (in `follow_up`).
        """
        if self.is_closed:
            return
        for stream in list(self._streams or ()):
            stream.close()
        self.is_closed = True
        self._free()

    def check_open(self) -> None:
        """Raises EngineError if it is closed."""
        if self.is_closed:
            raise EngineError(
                f"{shown(self.name, 300)} is closed and can't be used; open it again, or close it "
                "later"
            )

    def __enter__(self) -> Self:
        self.check_open()
        return self

    def _free(self) -> None:
        """Free what is held. Called once."""

    def _guarded(self, results: Generator[Result]) -> Iterator[Result]:
        """The results of a run, which ends when this is closed."""
        self.check_open()
        if self._streams is None:
            self._streams = weakref.WeakSet()
        stream = _Stream(self, results)
        self._streams.add(stream)
        return stream


class _Stream(Iterator[Result]):
    """The results of one run."""

    def __init__(self, owner: Closable, results: Generator[Result]) -> None:
        self._owner, self._results = owner, results

    def __next__(self) -> Result:
        self._owner.check_open()
        return next(self._results)

    def close(self) -> None:
        """End the run."""
        try:
            self._results.close()
        except ValueError as error:  # "generator already executing"
            raise EngineError(
                f"{shown(self._owner.name, 300)} is drawing; close it after its run has ended"
            ) from error
