"""One call of an OpenAI-compatible `/v1/completions`: what is sent, and what is tried again (`completions_answer` reads what comes back).

Tried again, with growing waits and seeded jitter: no connection, a connection that breaks, a time-out, an answer that is not
what it should be, and the statuses in `PASSING`. A `Retry-After` of the server is kept. Every other status is final. An answer
is read only up to a size that its request can need. The API key goes into one header and nowhere else, errors included.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2

from glore.errors import EngineError, shown
from glore.sampling.completions_answer import Answer, PassingError, Payload, SilentError, read_answer
from glore.sampling.protocol import stable_seed

if TYPE_CHECKING:
    from glore.config import EngineSettings

__all__ = ["CompletionsApi"]

_log = logging.getLogger(__name__)

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which another try may do."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 120.0
CONNECT_SECONDS = 10.0
BASE_BYTES, BYTES_PER_TOKEN = 1 << 20, 256
"""Bounds of an answer: so much, and so much for every token that may be drawn."""
UNREADABLE = (ValueError, AttributeError, KeyError, TypeError, RecursionError)
"""What reading JSON raises that is none, is something else, or is nested too deeply."""


class CompletionsApi:
    """A model on a server."""

    def __init__(self, url: str, model: str, settings: EngineSettings, start: str) -> None:
        """`url` ends before `/completions`; `start` says, in errors, how to serve the model. Raises EngineError for an unusable key."""
        self.url, self.model = url.rstrip("/"), model
        self.context: int | None = None
        """Longest prompt and completion together, in tokens; none before `check`, and where the server doesn't say."""
        self._settings, self._start = settings, start
        key = _api_key(settings.api_key_env)
        # Answers are small; uncompressed ones can't grow behind the limit on their size.
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._key_hint = f"{'the one in ' if key else 'none is set: export '}{settings.api_key_env}{'' if key else '=…'}"

    def client(self) -> httpx2.AsyncClient:
        """A client for `complete`, which closes what is open when it is left."""
        n = self._settings.concurrency
        timeout = httpx2.Timeout(self._settings.timeout_seconds, connect=CONNECT_SECONDS, pool=None)
        return httpx2.AsyncClient(
            headers=self._headers, timeout=timeout, limits=httpx2.Limits(max_connections=n, max_keepalive_connections=n)
        )

    def check(self) -> None:
        """Make sure that the server is there and serves the model; wait for it as long as the settings say. Raises EngineError."""
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
        """The answer to `payload` (of `n` completions). `what` names the request in errors and seeds the jitter. Raises EngineError."""
        tries = self._settings.retries + 1
        for number in range(1, tries + 1):
            try:
                async with asyncio.timeout(self._settings.timeout_seconds):
                    return await self._try(client, payload, what)
            except TimeoutError:
                failure = PassingError(f"no answer within {self._settings.timeout_seconds:g} s (engine.timeout_seconds)")
            except httpx2.LocalProtocolError:
                raise self._unsendable(f"{self.url}/completions, request {shown(what)}") from None
            except httpx2.HTTPError as error:
                failure = PassingError(f"{type(error).__name__}: {' '.join(str(error).split()) or 'no connection'}")
            except PassingError as error:
                failure = error
            if number < tries:
                jitter = stable_seed("back-off", what, number) / 2**63
                wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** (number - 1)) * (0.5 + jitter)
                await asyncio.sleep(max(wait, min(failure.wait, LONGEST_RETRY_AFTER_SECONDS)))
        raise EngineError(
            f"{self.url}/completions, request {shown(what)}: given up after {tries} tries, the last: {shown(str(failure), 200)}; "
            f"see that the server is well ({self._start}), then run again: finished shards are kept"
        )

    async def _try(self, client: httpx2.AsyncClient, payload: Payload, what: str) -> Answer:
        n, most_tokens = payload.get("n", 1), payload["max_tokens"]
        assert isinstance(n, int)
        assert isinstance(most_tokens, int)
        limit = BASE_BYTES + BYTES_PER_TOKEN * n * most_tokens
        async with client.stream("POST", f"{self.url}/completions", json=payload) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > limit:
                    raise EngineError(f"{self.url}/completions, request {shown(what)}: the answer is larger than {limit:,} bytes, refused")
        if response.status_code in PASSING:
            raise PassingError(f"status {response.status_code} {_message(bytes(body))}", _retry_after(response.headers))
        if response.status_code != 200:
            raise EngineError(
                f"{self.url}/completions, request {shown(what)}: status {response.status_code} {_message(bytes(body))}; "
                + self._mend(response.status_code)
            )
        try:
            return read_answer(bytes(body), n, payload)
        except SilentError as error:
            raise EngineError(f"{self.url}/completions, request {shown(what)}: {error}") from error

    def _problem(self) -> str | None:
        """Why the model can't be used right now; none: it can, or the server has no list of its models. Notes its context.

        Raises EngineError for what waiting can't mend.
        """
        where = f"{self.url}/models"
        try:
            with httpx2.stream("GET", where, headers=self._headers, timeout=CONNECT_SECONDS) as response:
                body = _beginning(response.iter_bytes())
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError, OverflowError) as error:
            raise EngineError(
                f"{shown(where, 200)} is no address ({shown(str(error), 120)}); write engine.url like http://localhost:8000/v1"
            ) from error
        except httpx2.LocalProtocolError:
            raise self._unsendable(where) from None
        except httpx2.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            return f"no server at {self.url} ({shown(reason)}); {self._start}"
        if response.status_code in (404, 405, 501):
            return None
        if response.status_code != 200:
            problem = f"{where}: status {response.status_code} {_message(body)}; {self._mend(response.status_code)}"
            if response.status_code < 500 and response.status_code not in PASSING:
                raise EngineError(problem)
            return problem
        served = _served(body)
        if served is None or self.model in served:
            self.context = (served or {}).get(self.model)
            return None
        return f"{self.url} serves {shown(', '.join(served), 200) if served else 'no model'} and not {shown(self.model)}; {self._start}"

    def _unsendable(self, where: str) -> EngineError:
        """For a LocalProtocolError, whose own text may quote the header with the key."""
        return EngineError(
            f"{where}: the request breaks the rules of HTTP and was not sent; see that engine.url and the API key "
            f"({self._settings.api_key_env}) are whole and plain"
        )

    def _mend(self, status: int) -> str:
        if status in (401, 403):
            return f"the server wants another API key ({self._key_hint})"
        if status in (404, 405):
            return f"see that engine.url is right (vLLM's ends in /v1) and that the server has the model {shown(self.model)} (engine.model)"
        if status in (400, 413, 422):
            return (
                "the server can't do such a request: if it takes no token ids, set engine.prompt=text; if it refuses top_k, "
                "engine.extensions=false; if it is too long, lower max_new_tokens or serve a longer context"
            )
        return f"see the server's log ({self._start})"


def _api_key(variable: str) -> str:
    """The key in that environment variable, "" if there is none. Raises EngineError for one that no header can carry."""
    key = os.environ.get(variable, "").strip()  # a key read from a file ends in a newline
    if not (key.isascii() and key.isprintable()):
        raise EngineError(f"an API key is printable ASCII, and the one in {variable} is not; export it again without other characters")
    return key


def _beginning(chunks: Iterable[bytes]) -> bytes:
    """What comes, up to the size of a bounded answer."""
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > BASE_BYTES:
            break
    return bytes(body)


def _served(body: bytes) -> dict[str, int | None] | None:
    """The models of a list, and the context of each where it is said (vLLM and SGLang do)."""
    with contextlib.suppress(*UNREADABLE):
        return {str(m["id"]): _context(m.get("max_model_len")) for m in json.loads(body)["data"]}
    return None


def _context(given: object) -> int | None:
    return given if isinstance(given, int) and given > 0 else None


def _message(body: bytes) -> str:
    """What a server says about a failure, short: OpenAI's `error.message`, or the beginning of whatever came."""
    with contextlib.suppress(*UNREADABLE):
        data = json.loads(body)
        found = data["error"] if "error" in data else data.get("message", data.get("detail"))
        return shown(str(found["message"] if isinstance(found, dict) else found), 200)
    return shown(body[:200].decode("utf-8", "replace"), 120)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, said as such or as a date; 0 where it doesn't say."""
    given = headers.get("retry-after", "0")
    try:
        seconds = float(given)
    except ValueError:
        seconds = _seconds_until(given)
    return seconds if seconds >= 0 else 0.0


def _seconds_until(date: str) -> float:
    """From now to an HTTP date, 0 for what is none."""
    try:
        then = parsedate_to_datetime(date)
        # HTTP dates are UTC; Python leaves the zone out where it is written -0000.
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
