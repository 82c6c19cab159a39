"""An engine without a model, for tests: completions come from a function or a table.

Otherwise it does as the others do. Results can be shuffled, to prove that a caller does not rely on
their order. Tokens are counted as words, and one more for the end of the text (none for a stop).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from glore.engines.encoding import check
from glore.engines.lifetime import Closable
from glore.engines.protocol import Completion, FollowUp, Request, Result
from glore.engines.requests import run_requests
from glore.errors import EngineError, shown

__all__ = ["ScriptedEngine"]

Script = Callable[[Request, int], str]
_LACKS = {"logprobs": "a script has no probabilities; sample without it, or from a model"}


class ScriptedEngine(Closable):
    """An `Engine` that answers from a script.

    `script`: a function (request, seed) → text, or a table from the request's id (or else its whole
    prompt) to texts, one per seed in order, starting over when there are more seeds than texts.
    `shuffle`: a seed for the order of results, each drawn out of the `window` next requests; none:
    in order. A text longer than `max_new_tokens` words is cut there. `requests` and `n_tokens`
    record the requests with seeds and the tokens of their answers.
    """

    def __init__(
        self,
        script: Script | Mapping[str, Sequence[str]],
        shuffle: int | None = None,
        window: int = 8,
    ) -> None:
        self._script = script if callable(script) else _from_table(script)
        self._random = None if shuffle is None else random.Random(shuffle)
        self._window = window
        self.requests: list[Request] = []
        self.n_tokens = 0

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Answer every request; see `glore.engines.protocol.Engine.run`."""
        stepper = _ScriptStepper(self._answer, self._random, self._window)
        return self._guarded(run_requests(stepper, requests, follow_up))

    @property
    def backend(self) -> str:
        """Always `script`."""
        return "script"

    def _answer(self, request: Request) -> Result:
        check(request, len("".join(request.segments)), _LACKS)
        self.requests.append(request)
        completions = tuple(
            self._complete(request, seed, self._script_text(request, index, seed))
            for index, seed in enumerate(request.seeds)
        )
        self.n_tokens += sum(c.n_tokens for c in completions)
        return Result(request, completions)

    def _script_text(self, request: Request, index: int, seed: int) -> str:
        return self._script(request, seed if not isinstance(self._script, _Table) else index)

    def _complete(self, request: Request, seed: int, text: str) -> Completion:
        limit = request.params.max_new_tokens
        if request.params.stop:
            before, mark, _ = text.partition(request.params.stop)
            n_words = len((before + mark).split())
            if mark and n_words <= limit:
                return Completion(before, max(1, n_words), "stop", seed)
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        if len(text.split()) + 1 <= limit:
            return Completion(text, len(text.split()) + 1, "eos", seed)
        kept, left = "", limit
        for line in lines:
            words = line.split()
            if len(words) > left:
                kept += " ".join(words[:left])
                break
            kept += line
            left -= len(words)
        return Completion(kept, limit, "length", seed)


class _ScriptStepper:
    """The requests of one `run`, answered one at a time."""

    def __init__(
        self, answer: Callable[[Request], Result], order: random.Random | None, window: int
    ) -> None:
        self._answer, self._random, self._window = answer, order, window
        self._waiting: list[Request] = []

    @property
    def is_busy(self) -> bool:
        """Whether requests wait."""
        return bool(self._waiting)

    def has_room(self) -> bool:
        """Whether the window has room."""
        return len(self._waiting) < self._window

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Let a request wait."""
        self._waiting.append(request)

    def step(self) -> list[Result]:
        """Answer the first request, or a random one."""
        index = self._random.randrange(len(self._waiting)) if self._random else 0
        return [self._answer(self._waiting.pop(index))]


class _Table:
    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        self._table = table

    def __call__(self, request: Request, index: int) -> str:
        texts = self._table.get(request.id) or self._table.get("".join(request.segments))
        if not texts:
            raise EngineError(
                f"the script has no answer for request {shown(request.id)} (known: "
                f"{shown(sorted(self._table))})"
            )
        return texts[index % len(texts)]


def _from_table(table: Mapping[str, Sequence[str]]) -> Script:
    return _Table(table)
