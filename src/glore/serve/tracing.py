"""OpenTelemetry spans of requests, where its API is installed (the extra `otel`).

A request is a span of the kind `server`, the child of its client's (`traceparent`). Below it are
`glore queue`, how long it waited, and `glore models`, how long its batch took. Spans hold no text
of anybody. Without a tracer provider they cost next to nothing and go nowhere.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

from glore.errors import ConfigError
from glore.serve.guard import App, Receive, Scope, Send

__all__ = ["Traced", "set_up_tracing", "span_of_job"]

_NAME = "glore.serve"
WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Environment variables that say where spans go."""
_HAS_API = importlib.util.find_spec("opentelemetry") is not None
Value = str | int | bool


def set_up_tracing() -> None:
    """Send spans to where the environment says (OTLP over HTTP); nothing, where it says nothing.

    Raises ConfigError where a package for that is missing.
    """
    if not any(os.environ.get(name) for name in WANTED):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"${WANTED[0]} is set, and {error.name} is not installed; install the extra: pip "
            "install 'glore[otel]', or unset the variable"
        ) from error
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return  # opentelemetry-instrument has set one up
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "glore")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class Traced:
    """An ASGI middleware: a span around every request."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, inside its span."""
        if scope["type"] != "http" or not _HAS_API:
            await self._app(scope, receive, send)
            return
        status = 0

        async def noted(message: Scope) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with _request_span(scope) as found:
            try:
                await self._app(scope, receive, noted)
            finally:
                route = getattr(scope.get("route"), "path", None)
                if route is not None:
                    found["http.route"] = route
                if status:
                    found["http.response.status_code"] = status


@contextmanager
def _request_span(scope: Scope) -> Iterator[dict[str, Value]]:
    """The span of a request. What is put into the dictionary become attributes at its end."""
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode

    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    found: dict[str, Value] = {"http.request.method": scope["method"]}
    with trace.get_tracer(_NAME).start_as_current_span(
        scope["method"], context=propagate.extract(headers), kind=SpanKind.SERVER
    ) as span:
        try:
            yield found
        finally:
            if "http.route" in found:
                span.update_name(f"{scope['method']} {found['http.route']}")
            span.set_attributes(found)
            if int(found.get("http.response.status_code", 0)) >= 500:
                span.set_status(Status(StatusCode.ERROR))


def span_of_job(
    submitted: int, begun: int | None, ended: int, attributes: dict[str, Value]
) -> None:
    """The two spans of a job below the current one. Times: nanoseconds since 1970; `begun`: when
    the models took it, none: never.
    """
    if not _HAS_API:
        return
    from opentelemetry import trace

    tracer = trace.get_tracer(_NAME)
    tracer.start_span("glore queue", start_time=submitted).end(begun or ended)
    if begun is not None:
        tracer.start_span("glore models", start_time=begun, attributes=attributes).end(ended)
