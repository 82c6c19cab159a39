"""What stands before every route: the API key, and the limit on bodies.

A body is read whole before a route sees it, so that one that is too long, or comes too slowly, is
refused as every other mistake is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from glore.serve.failures import ApiError
from glore.serve.limits import Limits

__all__ = ["App", "Guard", "Receive", "Scope", "Send"]

OPEN = frozenset(("/healthz", "/"))
"""Routes that ask for no key: the page at `/` holds nothing of the run, and asks for one itself."""
DISCARDED = 16
"""Bodies that are refused are read to their end, up to so many times the limit."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI middleware. `key`: what clients send as `Authorization: Bearer KEY`; none: no key."""

    def __init__(self, app: App, limits: Limits, key: str | None) -> None:
        self._app, self._limits = app, limits
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        incoming = _Incoming(receive)
        try:
            headers = dict(scope["headers"])
            if scope["path"] not in OPEN:
                self._check_key(headers.get(b"authorization", b""))
            body = await self._body(headers.get(b"content-length", b""), incoming)
        except ApiError as error:
            await self._discard(incoming)
            await _refuse(send, error)
            return
        if body is None:
            return  # the client has gone
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Scope:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    def _check_key(self, header: bytes) -> None:
        if self._key is None:
            return
        scheme, _, given = header.partition(b" ")
        # Compared in constant time, also where the scheme is wrong.
        same = hmac.compare_digest(given.strip(), self._key)
        if not same or scheme.lower() != b"bearer":
            raise ApiError(
                401,
                "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, length: bytes, incoming: _Incoming) -> bytes | None:
        """The whole body; none if the client has gone. Raises ApiError."""
        most = self._limits.body_bytes
        said = int(length) if length.isdigit() and len(length) < 20 else most + 1 if length else 0
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while incoming.is_open and max(said, len(body)) <= most:
                    body += await incoming.part()
        except TimeoutError:
            raise ApiError(
                408, f"the body did not arrive within {self._limits.body_seconds:g} seconds"
            ) from None
        if max(said, len(body)) > most:
            raise ApiError(
                413, f"the body is larger than {most:,} bytes; send fewer prompts at once"
            )
        return None if incoming.is_gone else bytes(body)

    async def _discard(self, incoming: _Incoming) -> None:
        """Read what a client is still sending, within bounds: closing at once would reset the
        connection, and the client would never see why.
        """
        n_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(5.0, self._limits.body_seconds)):
                while incoming.is_open and n_bytes < DISCARDED * self._limits.body_bytes:
                    n_bytes += len(await incoming.part())


class _Incoming:
    """The body of a request as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_open, self.is_gone = True, False

    async def part(self) -> bytes:
        """The next part."""
        message = await self._receive()
        self.is_gone = message["type"] == "http.disconnect"
        self.is_open = not self.is_gone and message.get("more_body", False)
        return bytes(message.get("body", b""))


async def _refuse(send: Send, error: ApiError) -> None:
    body = json.dumps(error.body).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",  # what is left of the body is not read
        **{name.lower(): value for name, value in error.headers.items()},
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
