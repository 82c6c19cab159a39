"""The routes. `create_app` makes an ASGI application that any server of such can run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

from glore.serve.bodies import ErrorBody
from glore.serve.counted import Counted
from glore.serve.guard import Guard
from glore.serve.handlers import add_handlers
from glore.serve.limits import Limits
from glore.serve.playground import Browsed
from glore.serve.routes import Routes
from glore.serve.served import Served
from glore.serve.tracing import Traced

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


def create_app(
    served: Served,
    limits: Limits | None = None,
    key: str | None = None,
    browsed: Browsed | None = None,
) -> FastAPI:
    """An application that serves these models, which its caller closes. `key`: asked of clients.
    `browsed`: the run whose test set the playground shows.

    Its worker starts at once. It drains and ends with the application's lifespan.
    """
    limits = limits or Limits()
    routes = Routes(served, limits, browsed)

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
    for path, answer, responses in (
        ("/v1/completions", routes.completions, STREAMS),
        ("/v1/chat/completions", routes.chat, STREAMS),
        ("/v1/refine", routes.refine, REFUSALS),
        ("/v1/score", routes.score, REFUSALS),
    ):
        app.add_api_route(path, answer, methods=["POST"], response_model=None, responses=responses)
    for path, shown in (
        ("/v1/models", routes.models),
        ("/v1/models/{name}", routes.model),
        ("/healthz", routes.health),
        ("/playground/run", routes.run),
        ("/playground/questions", routes.questions),
    ):
        app.add_api_route(path, shown, response_model=None, responses=REFUSALS)
    app.add_api_route("/metrics", routes.metrics_text, response_class=PlainTextResponse)
    app.add_api_route("/", routes.playground, response_class=HTMLResponse)
    add_handlers(app)
    app.add_middleware(Guard, limits=limits, key=key)
    app.add_middleware(Counted, metrics=routes.metrics)
    app.add_middleware(Traced)
    return app
