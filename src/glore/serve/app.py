"""The routes. `create_app` makes an ASGI application that any server of such can run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from glore.errors import GloreError, shown
from glore.serve.asking import Asking
from glore.serve.bodies import (
    ChatBody,
    CompletionBody,
    ErrorBody,
    RefineBody,
    SamplingBody,
    ScoreBody,
)
from glore.serve.failures import ApiError, invalid
from glore.serve.guard import App, Guard, Receive, Scope, Send
from glore.serve.limits import Limits
from glore.serve.metrics import Metrics
from glore.serve.perform import Performer
from glore.serve.served import MODELS, Served
from glore.serve.wire import Wire, event, model_entry, models_list, trace
from glore.serve.work import Answer, Job, Sampling, Scores, Scoring
from glore.serve.worker import Worker

__all__ = ["create_app"]

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": what}
    for status, what in (("4XX", "A refused request"), ("5XX", "A failure"))
}
"""Answers of every route besides the good one, for the schema."""
STREAMS: dict[int | str, dict[str, Any]] = {
    **REFUSALS,
    200: {"content": {"text/event-stream": {}}, "description": "The answer, whole or as a stream"},
}
_LOG = logging.getLogger("glore.serve")
KEEP_ALIVE_SECONDS = 10.0
"""A stream says something at least so often, so that nothing between takes it for dead."""


def create_app(served: Served, limits: Limits | None = None, key: str | None = None) -> FastAPI:
    """An application that serves these models, which its caller closes. `key`: asked of clients.

    Its worker starts at once. It drains and ends with the application's lifespan.
    """
    limits = limits or Limits()
    routes = _Routes(served, limits)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(routes.worker.close, limits.drain_seconds)

    app = FastAPI(
        title="glore",
        description="A trained run behind OpenAI's API.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.worker = routes.worker
    app.add_api_route(
        "/v1/completions",
        routes.completions,
        methods=["POST"],
        response_model=None,
        responses=STREAMS,
    )
    app.add_api_route(
        "/v1/chat/completions",
        routes.chat,
        methods=["POST"],
        response_model=None,
        responses=STREAMS,
    )
    app.add_api_route(
        "/v1/refine", routes.refine, methods=["POST"], response_model=None, responses=REFUSALS
    )
    app.add_api_route(
        "/v1/score", routes.score, methods=["POST"], response_model=None, responses=REFUSALS
    )
    app.add_api_route("/v1/models", routes.models, response_model=None, responses=REFUSALS)
    app.add_api_route("/v1/models/{name}", routes.model, response_model=None, responses=REFUSALS)
    app.add_api_route("/healthz", routes.health, response_model=None, responses=REFUSALS)
    app.add_api_route("/metrics", routes.metrics_text, response_class=PlainTextResponse)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _body_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(GloreError, _unexpected)
    app.add_exception_handler(Exception, _unexpected)  # uvicorn logs these
    app.add_middleware(Guard, limits=limits, key=key)
    app.add_middleware(_Counted, metrics=routes.metrics)
    return app


class _Routes:
    """What the routes do."""

    def __init__(self, served: Served, limits: Limits) -> None:
        self._asking, self._limits, self._served = Asking(served, limits), limits, served
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
        job = self._submit(work)  # a full queue is refused before the stream begins
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(
            self._stream(wire, job, request), media_type="text/event-stream", headers=headers
        )

    async def _stream(self, wire: Wire, job: Job, request: Request) -> AsyncIterator[str]:
        for piece in wire.opening():
            yield event(piece)
        waiting = asyncio.ensure_future(self._wait(job, request))
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=KEEP_ALIVE_SECONDS)
                if not waiting.done():
                    yield ": still at work\n\n"
            answer = waiting.result()
        except ApiError as error:
            yield event(error.body)
            return
        except Exception as error:
            if not isinstance(error, GloreError):
                _LOG.error("a stream failed", exc_info=error)
            yield event(_of(error).body)
            return
        finally:
            waiting.cancel()
            job.future.cancel()
        assert isinstance(answer, Answer)
        self._count(wire.work, answer)
        for piece in wire.pieces(answer):
            yield event(piece)
        yield event("[DONE]")

    async def _answer(self, work: Sampling, request: Request) -> Answer:
        answer = await self._wait(self._submit(work), request)
        assert isinstance(answer, Answer)
        self._count(work, answer)
        return answer

    def _submit(self, work: Sampling | Scoring) -> Job:
        job = Job(work)
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
            gone.cancel()
            job.future.cancel()
            answered.cancel()

    def _count(self, work: Sampling, answer: Answer) -> None:
        prompt = sum(p.n_tokens for p in work.prompts)
        self.metrics.add("glore_prompt_tokens_total", prompt, model=work.model)
        tokens = answer.completion_tokens
        self.metrics.add("glore_completion_tokens_total", tokens, model=work.model)


class _Counted:
    """An ASGI middleware that counts requests and their seconds."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it has been answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.monotonic(), "none"

        async def noted(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.add("glore_requests_total", route=route, status=status)
            self._metrics.add("glore_request_seconds_sum", time.monotonic() - begin, route=route)
            self._metrics.add("glore_request_seconds_count", route=route)


def _both(*futures: asyncio.Future[Any]) -> set[asyncio.Future[Any]]:
    """Futures of different results as one set."""
    return set(futures)


async def _disconnected(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _of(error: Exception) -> ApiError:
    """What a model's failure says to a client. A bug says nothing of the server's inside."""
    if isinstance(error, GloreError):
        return ApiError(500, f"the models could not answer: {error}")
    return ApiError(500, f"unexpected {type(error).__name__}; the server's log has more")


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, headers=error.headers)


async def _body_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    got = "" if first["type"] == "missing" else f", got {shown(first.get('input'), 60)}"
    what = "the body is not JSON" if first["type"] == "json_invalid" else place[:100] or "the body"
    found = invalid(place or None, f"{what}: {first['msg'][:200]}{got}")
    return await _api_error(request, found)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = ApiError(error.status_code, str(error.detail)[:200], headers=error.headers)
    return await _api_error(request, found)


async def _unexpected(request: Request, error: Exception) -> Response:
    return await _api_error(request, _of(error))
