"""Calls of an OpenAI-compatible `/v1/completions`: a payload in, its answer out
(`glore.engines.http.answer`), with retries.

These are tried again, with growing waits and seeded jitter: no connection, a broken connection, a
time-out, a malformed answer, and the statuses in `TRANSIENT`. The server's `Retry-After` is
respected. Every other status is final. An answer is read only up to the size that its request can
need. No redirect is followed. The API key goes into one header and nowhere else: it is removed from
answers and errors (`apikey`), also where the server echoes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urljoin

import httpx2

from glore.engines.http.answer import (
    Answer,
    MissingFieldError,
    Payload,
    TransientError,
    read_answer,
)
from glore.engines.http.apikey import ApiKey
from glore.errors import EngineError, shown
from glore.seeds import stable_seed

if TYPE_CHECKING:
    from glore.config import HttpEngineSettings

__all__ = ["CompletionsApi"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

TRANSIENT = frozenset(
    {408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 598, 599}
)
"""Statuses after which another try may succeed. From 520 on they are those of proxies whose server
is away or busy.
"""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
CONNECT_SECONDS = 10.0
BASE_BYTES, BYTES_PER_TOKEN = 1 << 20, 256
"""Bounds of an answer: a constant, and a number for every token that may be drawn."""
UNREADABLE = (ValueError, AttributeError, KeyError, TypeError, RecursionError)
"""What reading JSON raises if it is invalid, unexpected or nested too deeply."""


class CompletionsApi:
    """A model on a server."""

    def __init__(self, url: str, model: str, settings: HttpEngineSettings, start: str) -> None:
        """`url` ends before `/completions`; `start` says in errors how to serve the model.

        Raises EngineError for an unusable key.
        """
        self.url, self.model = url.rstrip("/"), model
        self.context: int | None = None
        """Longest prompt and completion together, in tokens; none before `check`, and if the
        server doesn't report it.
        """
        self._settings, self._start = settings, start
        self.key = key = ApiKey(settings.api_key_env)
        # Answers are small; uncompressed ones can't grow behind the limit on their size.
        self._headers = {"Accept-Encoding": "identity", **key.headers}
        variable = settings.api_key_env
        self._key_hint = f"the one in {variable}" if key else f"none is set: export {variable}=…"
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise EngineError(
                "engine.url holds a user or password (before its @); leave them out, and give a "
                "key in the environment"
            )

    def client(self) -> httpx2.AsyncClient:
        """A client for `complete`. Leaving it closes its connections."""
        n = self._settings.concurrency
        timeout = httpx2.Timeout(self._settings.timeout_seconds, connect=CONNECT_SECONDS, pool=None)
        return httpx2.AsyncClient(
            headers=self._headers,
            timeout=timeout,
            limits=httpx2.Limits(max_connections=n, max_keepalive_connections=n),
        )

    def check(self) -> None:
        """Make sure that the server serves the model, or wait for it up to `wait_seconds`.

        Raises EngineError.
        """
        end, logged = time.monotonic() + self._settings.wait_seconds, ""
        while (problem := self._problem()) is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise EngineError(problem)
            if problem != logged:
                _log.warning("waiting up to %.0f s (engine.wait_seconds): %s", left, problem)
                logged = problem
            time.sleep(min(2.0, max(0.05, left)))

    async def complete(self, client: httpx2.AsyncClient, payload: Payload, what: str) -> Answer:
        """The answer to `payload`.

        `what` names the request in errors and seeds the jitter. Raises EngineError.
        """
        tries = self._settings.retries + 1
        for number in range(1, tries + 1):
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    return await self._try(client, payload, what)
            except TimeoutError:
                failure = TransientError(
                    f"no answer within {self._settings.timeout_seconds:g} s "
                    "(engine.timeout_seconds)"
                )
            except httpx2.LocalProtocolError:
                raise self._unsendable(f"{self.url}/completions, request {shown(what)}") from None
            except httpx2.HTTPError as error:
                failure = TransientError(
                    f"{type(error).__name__}: {' '.join(str(error).split()) or 'no connection'}"
                )
            except TransientError as error:
                failure = error
            if number < tries:
                jitter = stable_seed("back-off", what, number) / 2**63
                wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (number - 1)) * (
                    0.5 + jitter
                )
                await asyncio.sleep(max(wait, min(failure.wait, LONGEST_RETRY_AFTER_SECONDS)))
        raise self.error(
            f"{self.url}/completions, request {shown(what)}: given up after {tries} tries, the "
            f"last: {shown(str(failure), 200)}; see that the server is well ({self._start}), then "
            "run again: finished shards are kept"
        )

    async def _try(self, client: httpx2.AsyncClient, payload: Payload, what: str) -> Answer:
        n, most_tokens = payload.get("n", 1), payload["max_tokens"]
        assert isinstance(n, int)
        assert isinstance(most_tokens, int)
        limit = BASE_BYTES + BYTES_PER_TOKEN * n * most_tokens
        async with client.stream("POST", f"{self.url}/completions", json=payload) as response:
            body = await _read(response.aiter_raw(), limit)
        where = f"{self.url}/completions, request {shown(what)}"
        if body is None:
            raise self.error(f"{where}: the answer is larger than {limit:,} bytes, refused")
        answer = self._reply(response, body)
        if answer.status in TRANSIENT:
            raise TransientError(
                f"status {answer.status} {answer.message}", _retry_after(response.headers)
            )
        if answer.status != 200:
            raise self.error(
                f"{where}: status {answer.status} {answer.message}; {self._advice(answer.status)}"
            )
        try:
            read = read_answer(answer.body, n, payload)
        except MissingFieldError as error:
            raise self.error(f"{where}: {error}") from None
        return read._replace(
            choices=tuple(
                choice._replace(text=self.key.hidden(choice.text)) for choice in read.choices
            )
        )

    def _reply(self, response: httpx2.Response, body: bytes) -> _Reply:
        """The server's answer without the key."""
        if self.key:
            body = self.key.hidden(body.decode("utf-8", "surrogateescape")).encode(
                "utf-8", "surrogateescape"
            )
        message = shown(self.key.clean(_message(body)), 200)
        if 300 <= response.status_code < 400:
            # What follows a question mark may be a secret of its own.
            there = response.headers.get("location", "nowhere").partition("?")[0]
            with contextlib.suppress(ValueError):
                there = urljoin(str(response.url), there)
            message = (
                f"leads to {shown(self.key.clean(there), 200)}, and no redirect is followed, since "
                "the key would go there"
            )
        return _Reply(response.status_code, body, message)

    def error(self, message: str) -> EngineError:
        """An error about this server, without the key."""
        return EngineError(self.key.clean(message))

    def _problem(self) -> str | None:
        """Why the model can't be used now; none: it can, or the server has no list of models.

        Sets `context`. Raises EngineError for what waiting can't fix.
        """
        where = f"{self.url}/models"
        limit = min(CONNECT_SECONDS, self._settings.timeout_seconds)
        try:
            httpx2.URL(where).host.encode("idna")  # raises for what no name server would know
            response, body = _on_a_loop(lambda: self._get(where, limit))
        except (
            httpx2.InvalidURL,
            httpx2.UnsupportedProtocol,
            UnicodeError,
            OverflowError,
        ) as error:
            raise self.error(
                f"{shown(where, 200)} is no address ({shown(str(error), 120)}); write engine.url "
                "like http://localhost:8000/v1"
            ) from None
        except httpx2.LocalProtocolError:
            raise self._unsendable(where) from None
        except TimeoutError:
            return (
                f"{where}: no whole answer within {limit:g} s (engine.timeout_seconds, at most "
                f"{CONNECT_SECONDS:g}); {self._start}"
            )
        except httpx2.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return self.key.clean(f"no server at {self.url} ({shown(reason)}); {self._start}")
        if response.status_code in (404, 405, 501):
            return None
        answer = self._reply(response, body)
        if answer.status != 200:
            problem = self.key.clean(
                f"{where}: status {answer.status} {answer.message}; {self._advice(answer.status)}"
            )
            if answer.status < 500 and answer.status not in TRANSIENT:
                raise EngineError(problem)
            return problem
        served = _served(body)  # as it came: a model may be called what the key is
        if served is None or self.model in served:
            self.context = (served or {}).get(self.model)
            return None
        names = shown(self.key.clean(", ".join(served)), 200) if served else "no model"
        return self.key.clean(
            f"{self.url} serves {names} and not {shown(self.model)}; {self._start}"
        )

    async def _get(self, where: str, limit: float) -> tuple[httpx2.Response, bytes]:
        """An answer and the beginning of its body. Raises TimeoutError after `limit` seconds."""
        client = httpx2.AsyncClient(headers=self._headers, timeout=limit)
        async with asyncio.timeout(limit), client, client.stream("GET", where) as response:
            return response, await _read(response.aiter_raw(), BASE_BYTES) or b""

    def _unsendable(self, where: str) -> EngineError:
        """The error for a LocalProtocolError, whose own text may quote the header with the key."""
        return EngineError(
            f"{where}: the request breaks the rules of HTTP and was not sent; see that engine.url "
            f"and the API key ({self._settings.api_key_env}) are whole and plain"
        )

    def _advice(self, status: int) -> str:
        if 300 <= status < 400:
            return "set engine.url to the address that answers itself"
        if status in (401, 403):
            return f"the server wants another API key ({self._key_hint})"
        if status in (404, 405):
            return (
                "see that engine.url is right (vLLM's ends in /v1) and that the server has the "
                f"model {shown(self.model)} (engine.model)"
            )
        if status in (400, 413, 422):
            return (
                "the server can't do such a request: if it takes no token ids, set "
                "engine.prompt=text; if it refuses top_k, engine.extensions=false; if it is too "
                "long, lower max_new_tokens or serve a longer context"
            )
        return f"see the server's log ({self._start})"


class _Reply(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes
    message: str
    """What it says about a failure, shortened; where a redirect leads."""


async def _read(chunks: AsyncIterator[bytes], limit: int) -> bytes | None:
    """A body; none if it is larger than `limit` bytes."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _on_a_loop(begin: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine on a loop and thread of its own, and return or raise what it does.

    The caller's own thread may have a loop already (a notebook).
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        loop = asyncio.new_event_loop()
        try:
            done.append(loop.run_until_complete(begin()))
        except BaseException as error:  # carried to the thread that asked
            failed.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="glore-http-check", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _served(body: bytes) -> dict[str, int | None] | None:
    """The models of a list, and the context of each if it is reported (vLLM and SGLang do)."""
    with contextlib.suppress(*UNREADABLE):
        return {str(m["id"]): _context(m.get("max_model_len")) for m in json.loads(body)["data"]}
    return None


def _context(given: object) -> int | None:
    return given if isinstance(given, int) and not isinstance(given, bool) and given > 0 else None


def _message(body: bytes) -> str:
    """What a server says about a failure: OpenAI's `error.message`, or the body's beginning."""
    with contextlib.suppress(*UNREADABLE):
        data = json.loads(body)
        found = data["error"] if "error" in data else data.get("message", data.get("detail"))
        return str(found["message"] if isinstance(found, dict) else found)
    return body[:BASE_BYTES].decode("utf-8", "replace")


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait that the server asks for, as a number or as a date; 0 if it doesn't."""
    given = headers.get("retry-after", "0")
    try:
        seconds = float(given)
    except ValueError:
        seconds = _seconds_until(given)
    return seconds if seconds >= 0 else 0.0


def _seconds_until(date: str) -> float:
    """Seconds from now to an HTTP date; 0 for a text that is none."""
    try:
        then = parsedate_to_datetime(date)
        # HTTP dates are UTC; Python leaves the zone out where it is written -0000.
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
