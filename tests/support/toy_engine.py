"""An engine for tests of the pool: texts from hashes, no torch, and workers that are slow or die
when a request tells them to.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from glore.engines.lifetime import Closable
from glore.engines.protocol import Completion, FollowUp, Request, Result
from glore.errors import EngineError
from glore.seeds import stable_seed


@dataclasses.dataclass(frozen=True)
class OpenToy:
    """Opens a toy in a worker. `folder` is where workers leave notes for the test: who opened, and
    what each drew.
    """

    folder: str
    seconds: float = 0.0
    """Per request."""
    first_seconds: float | None = None
    """Per request in the worker that opens first."""
    n_failing: int = 0
    """So many workers fail to open."""

    def __call__(self) -> ToyEngine:
        number = note(self.folder, "opened")
        if number < self.n_failing:
            raise OSError(f"worker {number} has no disk")
        seconds = (
            self.first_seconds if number == 0 and self.first_seconds is not None else self.seconds
        )
        return ToyEngine(self.folder, number, seconds)


class ToyEngine(Closable):
    """Draws one request after the other."""

    backend = "toy"

    def __init__(self, folder: str = "", number: int = 0, seconds: float = 0.0) -> None:
        self.folder, self.number, self.seconds = folder, number, seconds

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        waiting = deque(requests)
        while waiting:
            result = self.draw(waiting.popleft())
            if follow_up is not None:
                waiting.extend(follow_up(result))
            yield result

    def draw(self, request: Request) -> Result:
        if not "".join(request.segments):
            raise EngineError(f"request {request.id!r}: the prompt is empty")
        if self.folder:
            self.misbehave(request)
        time.sleep(self.seconds)
        texts = [str(stable_seed(request.segments, seed)) for seed in request.seeds]
        return Result(
            request,
            tuple(
                Completion(t, 1 + seed % 7, "eos", seed)
                for t, seed in zip(texts, request.seeds, strict=True)
            ),
        )

    def misbehave(self, request: Request) -> None:
        """What the request's name says: `die…` and `raise…` at its first try, `poison…` at every
        one.
        """
        note(self.folder, f"drawn-{self.number}", request.id)
        if request.id.startswith("poison") or (
            request.id.startswith("die") and note(self.folder, request.id) == 0
        ):
            os._exit(1)
        if request.id.startswith("raise") and note(self.folder, request.id) == 0:
            raise MemoryError("out of memory")


def note(folder: str, name: str, text: str = "") -> int:
    """Leave a note of that name. Returns how many there were."""
    for number in range(10_000):
        try:
            with (Path(folder) / f"{name}.{number}").open("x") as file:
                file.write(text)
            return number
        except FileExistsError:
            continue
    raise AssertionError("too many notes")


def notes(folder: Path, name: str) -> list[str]:
    """The notes whose names begin so."""
    return [p.read_text() for p in sorted(folder.glob(f"{name}*"))]
