"""What the routes do: a body, checked, becomes a job; its answer becomes JSON or a stream."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)

from glore.errors import GloreError, shown
from glore.serve.asking import Asking
from glore.serve.bodies import ChatBody, CompletionBody, RefineBody, SamplingBody, ScoreBody
from glore.serve.failures import ApiError
from glore.serve.handlers import as_api_error
from glore.serve.limits import Limits
from glore.serve.metrics import Metrics
from glore.serve.perform import Performer
from glore.serve.playground import Browsed, playground_page
from glore.serve.served import MODELS, STUDENT, Served
from glore.serve.streaming import TextsSoFar
from glore.serve.tracing import span_of_job
from glore.serve.wire import Wire, event, model_entry, models_list, trace
from glore.serve.work import Answer, Job, Sampling, Scores, Scoring
from glore.serve.worker import Worker

__all__ = ["Routes"]

_LOG = logging.getLogger("glore.serve")
KEEP_ALIVE_SECONDS = 10.0
"""A stream says something at least so often, so that nothing between takes it for dead."""


class Routes:
    """What the routes do with these models, within these limits."""

    def __init__(self, served: Served, limits: Limits, browsed: Browsed | None = None) -> None:
        self._asking, self._limits, self._served = Asking(served, limits), limits, served
        self._browsed = browsed
        self.metrics = Metrics()
        self.worker = Worker(
            Performer(served), limits.queue, lambda: self.metrics.add("glore_batches_total")
        )
        self._created = int(time.time())

    async def completions(self, body: CompletionBody, request: Request) -> Response:
        """Complete prompts. Each is a question; `echo` is refused."""
        return await self._sampled(body, self._asking.completion(body), request, is_chat=False)

    async def chat(self, body: ChatBody, request: Request) -> Response:
        """Answer the last message of a conversation."""
        return await self._sampled(body, self._asking.chat(body), request, is_chat=True)

    async def refine(self, body: RefineBody, request: Request) -> Response:
        """Answer a question with every value on the way."""
        work = self._asking.refine(body)
        return JSONResponse(trace(work, await self._answer(work, request)))

    async def score(self, body: ScoreBody, request: Request) -> Response:
        """Score the steps of a solution."""
        work = self._asking.score(body)
        scores = await self._wait(self._submit(work), request)
        assert isinstance(scores, Scores)
        options = self._served.refiner.options
        return JSONResponse(
            {
                "object": "scores",
                "orm": scores.orm,
                "sorm": scores.sorm,
                "score": options.score(scores.orm),
                "needs_work": options.needs_work(scores.orm),
                "first_bad_step": options.first_bad_step(scores.sorm),
            }
        )

    async def playground(self) -> Response:
        """The page for people."""
        text, headers = playground_page()
        return HTMLResponse(text, headers=headers)

    async def run(self) -> Response:
        """What the playground needs to know of the run and the server."""
        options = self._served.refiner.options
        return JSONResponse(
            {
                "name": None if self._browsed is None else self._browsed.name,
                "threshold": options.threshold,
                "aggregate": options.aggregate,
                "max_tokens": min(options.max_new_tokens, self._limits.tokens),
                "most_tokens": self._limits.tokens,
                "most_chars": self._limits.prompt_chars,
            }
        )

    async def questions(self) -> Response:
        """The run's test set with everything that was done to it, as the report shows it."""
        if self._browsed is None:
            raise ApiError(404, "this server was started without a run's records")
        try:
            text = await asyncio.to_thread(self._browsed.text)
        except GloreError as error:
            raise ApiError(404, f"the run's test set can't be shown: {error}") from error
        return Response(text, media_type="application/json")

    async def models(self) -> Response:
        """List the models."""
        return JSONResponse(models_list(MODELS, self._created))

    async def model(self, name: str) -> Response:
        """One model."""
        if name not in MODELS:
            raise ApiError(404, f"there is no model {shown(name)}", code="model_not_found")
        return JSONResponse(model_entry(name, self._created))

    async def health(self) -> Response:
        """Whether requests are accepted."""
        ready = self.worker.is_ready
        return JSONResponse({"status": "ok" if ready else "draining"}, 200 if ready else 503)

    async def metrics_text(self) -> Response:
        """Counts for Prometheus."""
        gauges = {
            "glore_queue_waiting": ("Requests that wait.", float(self.worker.n_waiting)),
            "glore_queue_limit": ("Most requests that may wait.", float(self._limits.queue)),
            "glore_requests_running": (
                "Requests that the models work on.",
                float(self.worker.n_running),
            ),
        }
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return PlainTextResponse(self.metrics.text(gauges), media_type=kind)

    async def _sampled(
        self, body: SamplingBody, work: Sampling, request: Request, is_chat: bool
    ) -> Response:
        options = body.stream_options
        wire = Wire(work, is_chat, bool(options and options.include_usage))
        if not body.stream:
            return JSONResponse(wire.whole(await self._answer(work, request)))
        is_work = work.model != STUDENT
        texts = TextsSoFar(asyncio.get_running_loop(), work.draw.stops, is_work)
        # A full queue is refused before the stream begins.
        # With log-probabilities, a stream goes token by token, and those are known at the end.
        job = self._submit(work, texts.take if work.draw.n_logprobs is None else None)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._stream(wire, job, texts, request),
            media_type="text/event-stream",
            headers=headers,
        )

    async def _stream(
        self, wire: Wire, job: Job, texts: TextsSoFar, request: Request
    ) -> AsyncIterator[str]:
        for piece in wire.opening():
            yield event(piece)
        waiting = asyncio.ensure_future(self._wait(job, request))
        try:
            while not waiting.done():
                is_new = await texts.wait(waiting, KEEP_ALIVE_SECONDS)
                for index, text in texts.new():
                    yield event(wire.part(index, text))
                if not is_new and not waiting.done():
                    yield ": still at work\n\n"
            answer = waiting.result()
            assert isinstance(answer, Answer)
            texts.check(answer)
        except ApiError as error:
            yield event(error.body)
            return
        except Exception as error:
            if not isinstance(error, GloreError):
                _LOG.error("a stream failed", exc_info=error)
            yield event(as_api_error(error).body)
            return
        finally:
            waiting.cancel()
            job.give_up()
        self._count(wire.work, answer)
        for piece in wire.pieces(answer, texts.sent):
            yield event(piece)
        yield event("[DONE]")

    async def _answer(self, work: Sampling, request: Request) -> Answer:
        answer = await self._wait(self._submit(work), request)
        assert isinstance(answer, Answer)
        self._count(work, answer)
        return answer

    def _submit(
        self, work: Sampling | Scoring, on_text: Callable[[int, str], None] | None = None
    ) -> Job:
        job = Job(work, on_text)
        self.worker.submit(job)
        return job

    async def _wait(self, job: Job, request: Request) -> Answer | Scores:
        """The answer of a job. Its place is freed if the client goes, or its time is over."""
        answered = asyncio.wrap_future(job.future)
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                _both(answered, gone),
                timeout=self._limits.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answered.done():
                return answered.result()
            if gone.done():
                self.metrics.add("glore_disconnected_total")
                raise ApiError(499, "the client went away")
            raise ApiError(
                504,
                f"no answer within {self._limits.seconds:g} seconds; ask for fewer tokens, or "
                "later",
                code="timeout",
                headers={"x-should-retry": "false"},
            )
        except asyncio.CancelledError:  # the stream to a client that went away
            self.metrics.add("glore_disconnected_total")
            raise
        finally:
            span_of_job(job.submitted, job.begun, time.time_ns(), _attributes(job, answered))
            gone.cancel()
            job.give_up()
            answered.cancel()

    def _count(self, work: Sampling, answer: Answer) -> None:
        prompt = sum(p.n_tokens for p in work.prompts)
        self.metrics.add("glore_prompt_tokens_total", prompt, model=work.model)
        tokens = answer.completion_tokens
        self.metrics.add("glore_completion_tokens_total", tokens, model=work.model)


def _attributes(job: Job, answered: asyncio.Future[Answer | Scores]) -> dict[str, str | int | bool]:
    """What a span says of a job, in OpenTelemetry's words for generative models."""
    work = job.work
    if not isinstance(work, Sampling):
        return {"glore.work": "score"}
    said: dict[str, str | int | bool] = {
        "glore.work": "sample",
        "gen_ai.request.model": work.model,
        "gen_ai.request.max_tokens": work.draw.max_tokens,
        "gen_ai.usage.input_tokens": sum(p.n_tokens for p in work.prompts),
    }
    if answered.done() and not answered.cancelled() and answered.exception() is None:
        answer = answered.result()
        assert isinstance(answer, Answer)
        said["gen_ai.usage.output_tokens"] = answer.completion_tokens
    return said


def _both(*futures: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    """Futures of different results as one set."""
    return set(futures)


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
