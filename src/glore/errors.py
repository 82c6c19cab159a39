"""Every error that glore raises on purpose, as one tree.

    GloreError          base: one line for the user, exit code 2 from the command line
    ├── ConfigError     a recipe or an override: unknown key, wrong type, impossible combination
    ├── DataError       a problem file: missing, malformed, overlapping splits
    ├── ModelError      a model or tokenizer that can't be found, loaded or used
    ├── EngineError     sampling that could not be carried out
    └── RunError        a run folder: other settings, unreadable shard, no space, locked

A message names the rule, the value received and the mend. Messages are plain text: values that come
from files or models are shortened by `shown`, so that a hostile or huge value can neither flood nor
colour a terminal. User and password in front of an `@` in an address are never shown.
"""

from __future__ import annotations

import errno
import re

__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "GloreError",
    "ModelError",
    "RunError",
    "has_lone_surrogate",
    "out_of_memory",
    "printable",
    "says_out_of_memory",
    "shown",
]

_SHORTAGES = (
    *("can't allocate memory", "Cannot allocate memory", "not enough memory", "out of memory"),
    *("bad_alloc", "bad allocation", "ALLOC_FAILED"),
)
"""In messages: torch on a CPU (two systems), the system, devices, C++ (two compilers), and NVIDIA's
libraries.
"""


_USER = re.compile(r"://[^\s'\"]*@")
"""User and password in an address; they may hold anything but these."""


class GloreError(Exception):
    """Base of all errors raised on purpose. `str(error)` is one readable line, whatever file names
    and other words from outside stand in it.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(GloreError):
    """A recipe or an override is wrong."""


class DataError(GloreError):
    """A problem file is missing, malformed, or its splits overlap."""


class ModelError(GloreError):
    """A model or tokenizer can't be found, loaded or used."""


class EngineError(GloreError):
    """Sampling could not be carried out."""


class RunError(GloreError):
    """A run folder can't be read, written or continued."""


def shown(value: object, limit: int = 80) -> str:
    """`repr(value)` cut to `limit` characters, for use in a message."""
    text = _masked(
        ascii(value[: _seen(limit)]) if isinstance(value, str) else repr(value)[: _seen(limit)]
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine's or the device's memory ran out. torch is not needed to tell: its error
    says so in words.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and says_out_of_memory(str(error))
    )


def says_out_of_memory(text: str) -> bool:
    """Whether a message, such as a line that another process left behind, speaks of memory that ran
    out.
    """
    return any(words in text for words in _SHORTAGES)


def has_lone_surrogate(text: str) -> bool:
    """Is there half a Unicode character in it, as JSON can spell one? No tokenizer takes it, and no
    UTF-8 file.
    """
    return any("\ud800" <= c <= "\udfff" for c in text)


def printable(text: str, limit: int = 2000) -> str:
    """One line of `text` without control characters (a file or a model may hold terminal escapes),
    cut to `limit`.
    """
    masked = _masked(text[: _seen(limit)])
    clean = "".join(c if c.isprintable() else " " for c in masked[:limit])
    return clean if len(masked) <= limit else clean + "…"


def _seen(limit: int) -> int:
    """How much of a text is looked at: a cut must not part a password from the sign that gives it
    away.
    """
    return 2 * limit + 1000


def _masked(text: str) -> str:
    return _USER.sub("://…@", text)
