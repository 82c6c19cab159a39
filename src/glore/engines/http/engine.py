"""Sampling from an OpenAI-compatible completions server: vLLM, SGLang, llama.cpp, …
(docs/engines.md).

Calls run side by side on an event loop in a thread, at most `concurrency` at once. Every completion
is a call of its own with its seed, so that it depends on (prompt, params, seed) as far as the
server respects that. `siblings: together` trades this for one call a prompt; its completions depend
on how many were asked for together.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Coroutine, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glore.engines.encoding import checked_tokens, new_tokens
from glore.engines.http.answer import Answer, Choice, Payload
from glore.engines.http.api import CompletionsApi
from glore.engines.lifetime import Closable
from glore.engines.protocol import FollowUp, Request, Result
from glore.engines.requests import Job, run_requests
from glore.errors import EngineError, shown

if TYPE_CHECKING:
    import httpx2

    from glore.config import HttpEngineSettings

__all__ = ["HttpEngine"]

T = TypeVar("T")

_LACKS = {
    "top_k": "it is not OpenAI's; use engine.extensions=true with a server that knows it, or 0",
    "stop": (
        "servers that know OpenAI's parameters only don't tell a stop from the end of the text; "
        "use engine.extensions=true with one that does (vLLM, SGLang), or sample without it"
    ),
}
STOP_SECONDS = 5.0
"""How long calls in progress may take to close their connections when a run ends early."""


class HttpEngine(Closable):
    """An `Engine` over a completions server.

    `model_path` is the model in the run: it names the served one and has its tokenizer. Raises
    EngineError when the server can't be reached or doesn't serve the model, ModelError when there
    is no tokenizer.
    """

    def __init__(self, model_path: str | Path, settings: HttpEngineSettings) -> None:
        from glore.model_folder import split_reference
        from glore.models import load_tokenizer

        self._settings = settings
        self.tokenizer = load_tokenizer(model_path)
        whole, revision = split_reference(model_path)
        name = Path(whole).name
        url = _filled(settings.urls.get(name, settings.url or ""), name, whole)
        model = _filled(settings.models.get(name, settings.model), name, whole)
        pinned = f" --revision {revision}" if revision else ""
        how = (
            f"serve it, for example: vllm serve {whole}{pinned} --served-model-name {model}; or "
            "set engine.url and engine.model to fit"
        )
        self.api = CompletionsApi(url, model, settings, how)
        self.api.check()
        self.name = f"{shown(name)} on {self.api.url}"

    @property
    def backend(self) -> str:
        """The server's address."""
        return f"http {self.api.url}"

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """Draw every request's completions; see `glore.engines.protocol.Engine.run`.

        Leaving it early ends the calls in progress.
        """
        self.check_open()
        return self._guarded(self._results(requests, follow_up))

    def _results(
        self, requests: Iterable[Request], follow_up: FollowUp | None
    ) -> Generator[Result]:
        with _Calls(self.api, self._settings.concurrency) as calls:
            yield from run_requests(_HttpStepper(self, calls), requests, follow_up)

    def calls_of(self, request: Request) -> list[_Call]:
        """The calls that draw a request's completions. Raises EngineError naming the request."""
        lacks = {} if self._settings.extensions else _LACKS
        tokens = checked_tokens(self.tokenizer, request, lacks)
        prompt = tokens if self._settings.prompt == "tokens" else "".join(request.segments)
        # As torch draws them: a vLLM server would refuse more than its context leaves.
        context = self.api.context
        max_new = request.params.max_new_tokens
        if context is not None:
            max_new = new_tokens(request, len(tokens), context)
        job = _HttpJob(request, prompt, max_new)
        n_seeds = len(request.seeds)
        n = n_seeds if self._settings.siblings == "together" else 1
        return [
            _Call(job, first, n, self._payload(job, first, n)) for first in range(0, n_seeds, n)
        ]

    def _payload(self, job: _HttpJob, first: int, n: int) -> Payload:
        params = job.request.params
        payload: Payload = {
            "model": self.api.model,
            "prompt": job.prompt,
            "max_tokens": job.max_new,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": job.request.seeds[first],
        }
        if n > 1:
            payload["n"] = n
        if params.stop:
            payload["stop"] = params.stop
        if params.logprobs:
            # The number of likeliest tokens wanted beside the drawn one: vLLM would take 0,
            # llama.cpp reads that as "no".
            payload["logprobs"] = 1
        if self._settings.extensions:
            payload |= {"top_k": params.top_k or -1, "min_p": 0.0, "repetition_penalty": 1.0}
        return payload

    def keep(self, call: _Call, answer: Answer) -> bool:
        """Store the completions of an answer. Returns whether its request is complete."""
        is_complete = False
        for index, choice in enumerate(answer.choices, call.first):
            n_logprobs = len(choice.logprobs or ()) or None
            counted = answer.n_tokens if call.n == 1 else n_logprobs
            if n_logprobs is not None and counted not in (None, n_logprobs):
                raise EngineError(
                    f"{self.api.url}/completions, request {shown(_label(call))}: {n_logprobs} "
                    f"log-probabilities for {counted} tokens; sample without logprobs, or serve "
                    "the model with vLLM"
                )
            n_tokens = counted or n_logprobs or self._n_tokens(choice, call.job)
            is_complete = call.job.finish(
                index, choice.text, n_tokens, choice.stop, choice.logprobs
            )
        return is_complete

    def _n_tokens(self, choice: Choice, job: _HttpJob) -> int:
        """The tokens of a completion where the server counts only their sum.

        The text is encoded again; special tokens inside it are not seen.
        """
        if choice.stop == "length":
            return job.max_new
        drawn = choice.text + (job.request.params.stop if choice.stop == "stop" else "")
        return max(
            1,
            len(self.tokenizer(drawn, add_special_tokens=False)["input_ids"])
            + (choice.stop == "eos"),
        )


@dataclasses.dataclass(slots=True, eq=False)
class _HttpJob(Job):
    """A request in progress with what is sent for it."""

    prompt: list[int] | str
    max_new: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One HTTP request for `n` completions of a request, from index `first` on."""

    job: _HttpJob
    first: int
    n: int
    payload: Payload


class _HttpStepper:
    """The requests of one `run`, as calls."""

    def __init__(self, engine: HttpEngine, calls: _Calls) -> None:
        self._engine, self._calls = engine, calls
        self._waiting: deque[_Call] = deque()

    @property
    def is_busy(self) -> bool:
        """Whether calls are in progress or wait."""
        return bool(self._calls.n_open or self._waiting)

    def has_room(self) -> bool:
        """Whether another call would be started at once."""
        return not self._waiting and self._calls.has_room

    def add(self, request: Request, is_follow_up: bool) -> None:
        """Start the calls of a request, or let them wait in order."""
        self._waiting.extend(self._engine.calls_of(request))
        self._start()

    def step(self) -> list[Result]:
        """Wait for an answer. Returns the result if it completes its request."""
        self._start()
        call, answer = self._calls.next_done()
        return [call.job.result()] if self._engine.keep(call, answer) else []

    def _start(self) -> None:
        while self._waiting and self._calls.has_room:
            self._calls.start(self._waiting.popleft())


class _Calls:
    """Calls side by side, on an event loop in a thread of its own.

    So it works inside notebooks, whose own thread has a loop already.
    """

    def __init__(self, api: CompletionsApi, concurrency: int) -> None:
        self._api, self._concurrency = api, concurrency
        self._done: queue.SimpleQueue[tuple[_Call, Answer | BaseException]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="glore-http", daemon=True
        )
        self._closing = False
        self.n_open = 0

    def __enter__(self) -> _Calls:
        self._thread.start()
        self._client, self._places = self._on_loop(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TimeoutError):
            self._on_loop(self._close(), STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    @property
    def has_room(self) -> bool:
        """Whether to start a call.

        Twice as many as run at once are started: the rest begins while results are handled.
        """
        return self.n_open < 2 * self._concurrency

    def start(self, call: _Call) -> None:
        """Send a call as soon as fewer than `concurrency` are open."""
        self.n_open += 1
        asyncio.run_coroutine_threadsafe(self._carry_out(call), self._loop)

    def next_done(self) -> tuple[_Call, Answer]:
        """Wait for any call and return it with its answer. Raises the error that it failed with."""
        call, answer = self._done.get()
        self.n_open -= 1
        if isinstance(answer, EngineError):
            raise answer
        if isinstance(answer, BaseException):
            raise self._api.error(
                f"{self._api.url}: {type(answer).__name__}: {shown(str(answer), 200)}"
            ) from None
        return call, answer

    async def _carry_out(self, call: _Call) -> None:
        try:
            async with self._places:
                if self._closing:
                    return
                answer: Answer | BaseException = await self._api.complete(
                    self._client, call.payload, _label(call)
                )
        except Exception as error:  # carried to the thread that asked
            answer = error
        self._done.put((call, answer))

    async def _open(self) -> tuple[httpx2.AsyncClient, asyncio.Semaphore]:
        return self._api.client(), asyncio.Semaphore(self._concurrency)

    async def _close(self) -> None:
        self._closing = True
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if others:
            # anyio complains of a coroutine never awaited when a connection is cancelled in the
            # moment it is begun.
            await asyncio.sleep(0.02)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()

    def _on_loop(self, coroutine: Coroutine[object, object, T], timeout: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)


def _label(call: _Call) -> str:
    return (
        call.job.request.id
        if call.n == len(call.job.request.seeds)
        else f"{call.job.request.id}#{call.first}"
    )


def _filled(template: str, name: str, path: str | Path) -> str:
    return template.replace("{name}", name).replace("{path}", str(path))
