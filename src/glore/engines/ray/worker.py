"""What runs in each actor of a Ray pool: an engine on a thread of its own.

One call, `exchange`, takes requests in and gives results back. Requests that arrive while the
engine works are given to it as follow-ups of the next result, so its batch stays full. This module
knows nothing of Ray.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from glore.config import EngineSettings
from glore.engines.open import open_engine
from glore.engines.protocol import Engine, Request, Result
from glore.errors import GloreError

__all__ = ["EngineWorker", "Exchange", "Failure", "ModelFiles", "OpenModel", "Started", "unpacked"]

MORE_SECONDS = 0.02
"""How long to wait after a first result for others that come with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker's engine stopped."""

    message: str
    kind: str | None
    """The name of the GloreError, which any other worker would raise too; none: another worker may
    succeed.
    """


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """What a worker reports when its engine is open."""

    backend: str
    warning: str


@dataclasses.dataclass(frozen=True, slots=True)
class Exchange:
    """What a call of `exchange` returns."""

    results: tuple[Result, ...]
    failure: Failure | None


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model folder in the object store: file names, and what fetches the bytes of each."""

    names: tuple[str, ...]
    fetch: Callable[[int], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class OpenModel:
    """Opens the inner engine in the worker: over `path`, or over files that were sent along."""

    path: str
    settings: EngineSettings
    files: ModelFiles | None = None

    def __call__(self) -> Engine:
        with unpacked(self.path, self.files) as place:
            return open_engine(place, self.settings)


@contextlib.contextmanager
def unpacked(path: str, files: ModelFiles | None) -> Iterator[str | Path]:
    """Where a model is while it is loaded: at `path`, or in a temporary folder with the files that
    were sent along. Once loaded they are not needed again, and a worker that is killed can't remove
    them.
    """
    if files is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="glore-model-") as folder:
        place = Path(folder) / Path(path).name
        place.mkdir()
        for index, name in enumerate(files.names):
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(files.fetch(index))
        yield place


class EngineWorker:
    """An engine behind `exchange`.

    A run has a number. A call with another number ends the run before.
    """

    def __init__(self, opened: Callable[[], Engine]) -> None:
        self._open = opened
        self._state = threading.Condition()
        self._run = 0
        self._waiting: deque[Request] = deque()
        self._done: list[Result] = []
        self._failure: Failure | None = None
        self._engine: Engine | None = None

    def start(self) -> Started | Failure:
        """Open the engine. Returns what it uses, or why it failed."""
        try:
            self._engine = self._open()
            started = Started(self._engine.backend, self._engine.warning)
        except Exception as error:  # carried to the driver
            return _failure(error)
        threading.Thread(target=self._serve, name="glore-engine", daemon=True).start()
        return started

    def exchange(self, run: int, requests: Sequence[Request], wait_seconds: float) -> Exchange:
        """Take in requests of run number `run`. Returns the results that are complete.

        Waits up to `wait_seconds` for a first one.
        """
        with self._state:
            if run != self._run:
                self._run, self._done, self._failure = run, [], None
                self._waiting.clear()
            self._waiting.extend(requests)
            self._state.notify_all()
            if (
                self._state.wait_for(
                    lambda: bool(self._done) or self._failure is not None, wait_seconds
                )
                and self._failure is None
            ):
                self._state.wait_for(lambda: self._failure is not None, MORE_SECONDS)
            done, self._done = tuple(self._done), []
            return Exchange(done, self._failure)

    def _serve(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: bool(self._waiting))
                run, requests = self._run, self._taken(self._run)
            try:
                self._draw(run, requests)
            except Exception as error:  # carried to the driver
                with self._state:
                    if run == self._run:
                        self._failure = _failure(error)
                        self._waiting.clear()
                        self._state.notify_all()

    def _draw(self, run: int, requests: list[Request]) -> None:
        assert self._engine is not None
        stream: Iterator[Result] = self._engine.run(requests, lambda _: self._taken(run))
        for result in stream:
            with self._state:
                if run != self._run:
                    break
                self._done.append(result)
                self._state.notify_all()
        if hasattr(stream, "close"):
            stream.close()

    def _taken(self, run: int) -> list[Request]:
        """Requests of this run that have arrived since."""
        with self._state:
            if run != self._run:
                return []
            arrived = list(self._waiting)
            self._waiting.clear()
            return arrived


def _failure(error: Exception) -> Failure:
    message = " ".join(str(error).split()) or type(error).__name__
    return (
        Failure(message, type(error).__name__)
        if isinstance(error, GloreError)
        else Failure(f"{type(error).__name__}: {message}", None)
    )
