"""An API key: read from the environment, sent in one header, and removed from every text that comes
back.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from glore.errors import EngineError

if TYPE_CHECKING:
    from glore.config import HttpEngineSettings

__all__ = ["ApiKey", "check_key"]

HIDDEN = "[API key]"
LEAST_IN_MESSAGES, LEAST_IN_ANSWERS = 4, 6
"""Shorter keys can't be distinguished from ordinary text (some servers accept any word)."""
PIECE = 8
"""Characters of a key in a row that are hidden in messages, at least."""


def check_key(settings: HttpEngineSettings) -> None:
    """Raises EngineError for a key that no header can carry."""
    ApiKey(settings.api_key_env)


class ApiKey:
    """The key in an environment variable, or none. Neither `repr` nor an error shows it."""

    def __init__(self, variable: str) -> None:
        """Raises EngineError for a key that no header can carry."""
        key = os.environ.get(variable, "").strip()  # a key read from a file ends in a newline
        if not (key.isascii() and key.isprintable()):
            raise EngineError(
                f"an API key is printable ASCII, and the one in {variable} is not; export it again "
                "without other characters"
            )
        self.variable = variable
        self._key = key
        forms = {form.lower() for form in _forms(key)}
        self._in_messages, self._in_answers = (
            _pattern(key, forms, LEAST_IN_MESSAGES),
            _pattern(key, forms, LEAST_IN_ANSWERS),
        )
        self._pieces = {form[i : i + PIECE] for form in forms for i in range(len(form) - PIECE + 1)}

    def __bool__(self) -> bool:
        return bool(self._key)

    def __repr__(self) -> str:
        return f"ApiKey({self.variable}: {'set' if self else 'not set'})"

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries it; none without a key."""
        return {"Authorization": f"Bearer {self._key}"} if self else {}

    def hidden(self, answer: str) -> str:
        """An answer's text without the key, in any of its encodings."""
        return answer if self._in_answers is None else self._in_answers.sub(HIDDEN, answer)

    def clean(self, message: str) -> str:
        """A message without the key and without pieces of `PIECE` characters of it."""
        if self._in_messages is not None:
            message = self._in_messages.sub(HIDDEN, message)
        small = message.lower()
        if len(small) != len(message):  # a few letters have small forms of several
            small = message
        found = (
            [i for i in range(len(small) - PIECE + 1) if small[i : i + PIECE] in self._pieces]
            if self._pieces
            else []
        )
        out, done = [], 0
        for start in found:
            out.append(message[done:start] + ("…" if start >= done else ""))
            done = start + PIECE
        return "".join(out) + message[done:]


def _forms(key: str) -> set[str]:
    """The key as it is, and percent-encoded, in base64, in hexadecimal, in JSON and in Python's
    `repr`.
    """
    forms = {
        key,
        quote(key),
        quote(key, safe=""),
        quote_plus(key),
        json.dumps(key)[1:-1],
        key.replace("/", "\\/"),
        ascii(key)[1:-1],
    }
    forms.add(key.encode().hex())
    for before in range(3):
        # Three bytes become four characters: where the key begins within three decides how it
        # looks; the ends depend on what is beside.
        whole = base64.b64encode(b"\0" * before + key.encode()).decode().rstrip("=")
        inner = whole[(0, 2, 3)[before] : (len(key) + before) * 8 // 6]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms


def _pattern(key: str, forms: set[str], least: int) -> re.Pattern[str] | None:
    """A pattern that finds the forms of a key; none for a key of fewer than `least` characters."""
    if len(key) < least:
        return None
    return re.compile(
        "|".join(
            re.escape(form) for form in sorted(forms, key=len, reverse=True) if len(form) >= least
        ),
        re.IGNORECASE,
    )
