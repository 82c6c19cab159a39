"""A request in progress, and the loop that runs requests through an engine.

`run_requests` is the `run` of every engine. It reads the source only as the engine has room, adds
what `follow_up` asks for, and yields results as they become complete. What differs between engines
is a `Stepper`: the local scheduler, calls of a server, vLLM's own engine, a pool of workers, or a
script. vLLM's `LLMEngine` has the same two verbs, add and step.

A pool keeps no `Job`: its workers return whole results, and equal requests share one
(`glore.engines.ray.assignments`). The backward scan (`glore.where.scan`) pulls nothing itself. It
gives its first requests to an engine and the others as follow-ups.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from glore.engines.protocol import Completion, FollowUp, Request, Result

__all__ = ["Job", "Stepper", "run_requests"]


@dataclasses.dataclass(slots=True, eq=False)
class Job:
    """A request in progress. Engines derive a class with what else they need to know of it."""

    request: Request
    completions: list[Completion | None] = dataclasses.field(init=False)
    """In the order of the seeds; none: not finished yet."""
    n_finished: int = dataclasses.field(default=0, init=False)

    def __post_init__(self) -> None:
        self.completions = [None] * len(self.request.seeds)

    def finish(
        self,
        index: int,
        text: str,
        n_tokens: int,
        stop: str,
        logprobs: tuple[float, ...] | None = None,
        tokens: tuple[int, ...] | None = None,
    ) -> bool:
        """Store the completion of seed `index`. Returns whether it was the last one."""
        seed = self.request.seeds[index]
        self.completions[index] = Completion(text, n_tokens, stop, seed, logprobs, tokens)
        self.n_finished += 1
        return self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether all completions are finished."""
        return self.n_finished == len(self.completions)

    def result(self) -> Result:
        """The result of a request whose completions are all finished."""
        return Result(self.request, tuple(c for c in self.completions if c is not None))


class Stepper(Protocol):
    """Works on the requests that were added, a step at a time. It serves one call of `run`."""

    @property
    def is_busy(self) -> bool:
        """Whether some of the requests are not finished."""
        ...

    def has_room(self) -> bool:
        """Whether to add a request from the source now. True while it is not busy."""
        ...

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Take a request with at least one seed. A follow-up comes whether there is room or not.

        Raises EngineError for a request that can't be drawn.
        """
        ...

    def step(self) -> Sequence[Result]:
        """Work for a while. Returns the results that became complete, which may be none."""
        ...


def run_requests(
    stepper: Stepper, requests: Iterable[Request], follow_up: FollowUp | None = None
) -> Generator[Result]:
    """Every request's result, as it becomes complete (`glore.engines.protocol.Engine.run`).

    `follow_up` is asked before a result is yielded. A request without seeds has a result at once.
    """
    source = iter(requests)
    is_open = True
    complete: deque[Result] = deque()

    def add(new: Iterable[Request], is_follow_up: bool) -> None:
        for request in new:
            if request.seeds:
                stepper.add(request, is_follow_up)
            else:
                complete.append(Result(request, ()))

    while True:
        while is_open and not complete and stepper.has_room():
            request = next(source, None)
            if request is None:
                is_open = False
            else:
                add((request,), is_follow_up=False)
        if not complete:
            if not stepper.is_busy:
                return
            complete.extend(stepper.step())
        while complete:
            result = complete.popleft()
            if follow_up is not None:
                add(follow_up(result), is_follow_up=True)
            yield result
