"""Counts requests and their seconds, around every route."""

from __future__ import annotations

import time

from glore.serve.guard import App, Receive, Scope, Send
from glore.serve.metrics import Metrics

__all__ = ["Counted"]


class Counted:
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
