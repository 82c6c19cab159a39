"""Texts that are being drawn, from the worker's thread to the stream of a client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from glore.engines.partial import certain
from glore.serve.work import Answer

__all__ = ["TextsSoFar"]


class TextsSoFar:
    """The texts of a request's choices so far; for a composite model, its work on them. Only the
    latest is kept, however slow a client is.

    `stops`: those of the request; nothing of them is sent, except in work.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stops: Sequence[str], is_work: bool = False
    ) -> None:
        self._loop, self._stops, self._is_work = loop, () if is_work else stops, is_work
        self._latest: dict[int, str] = {}
        self._sent: dict[int, str] = {}
        self._changed = asyncio.Event()

    @property
    def sent(self) -> dict[int, int]:
        """Characters of each choice that `new` has given."""
        return {index: len(text) for index, text in self._sent.items()}

    def take(self, index: int, text: str) -> None:
        """Take the text of a choice so far. Called in the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the server has ended meanwhile
            self._loop.call_soon_threadsafe(self._take, index, text)

    def _take(self, index: int, text: str) -> None:
        self._latest[index] = certain(text, self._stops)
        self._changed.set()

    async def wait(self, answered: asyncio.Future[Any], seconds: float) -> bool:
        """Wait for a new text or the answer, so long at most. Returns whether there is one."""
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            done, _ = await asyncio.wait(
                {answered, changed}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            changed.cancel()
        return bool(done)

    def new(self) -> list[tuple[int, str]]:
        """What has come to each choice's text since the last call."""
        self._changed.clear()
        found = []
        for index, text in self._latest.items():
            before = self._sent.get(index, "")
            # A text that is drawn again is shorter for a while.
            if len(text) > len(before) and text.startswith(before):
                found.append((index, text[len(before) :]))
                self._sent[index] = text
        return found

    def check(self, answer: Answer) -> None:
        """Raises RuntimeError where a choice does not begin with what was sent of it."""
        for index, text in self._sent.items():
            choice = answer.choices[index]
            if not (choice.work if self._is_work else choice.text).startswith(text):
                raise RuntimeError("a choice does not begin with what was streamed of it")
