"""Every error that glore raises on purpose, as one tree.

    GloreError          base: one line for the user, exit code 2 from the command line
    ├── ConfigError     a recipe or an override: unknown key, wrong type, impossible combination
    ├── DataError       a problem file: missing, malformed, overlapping splits
    ├── ModelError      a model or tokenizer that can't be found, loaded or used
    ├── EngineError     sampling that failed
    └── RunError        a run folder: other settings, unreadable shard, no space, locked

A message names the rule, the value received and the fix. Messages are plain text. Values from files
or models go through `shown`, so a hostile or huge value can neither flood nor colour a terminal.
User and password in front of an `@` in an address are never shown.
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

_OUT_OF_MEMORY = (
    *("can't allocate memory", "Cannot allocate memory", "not enough memory", "out of memory"),
    *("bad_alloc", "bad allocation", "ALLOC_FAILED"),
)
"""Words for it in messages of torch on a CPU (two systems), of the system, of devices, of C++ (two
compilers), and of NVIDIA's libraries.
"""


_USER = re.compile(r"://[^\s'\"]*@")
"""User and password in an address. They hold any characters but these."""


class GloreError(Exception):
    """Base of all errors raised on purpose. `str(error)` is one readable line, whatever file names
    and other foreign text it holds.
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
    """Sampling failed."""


class RunError(GloreError):
    """A run folder can't be read, written or continued."""


def shown(value: object, limit: int = 80) -> str:
    """A value → its `repr` for a message, cut to `limit` characters."""
    text = _masked(
        ascii(value[: _seen(limit)]) if isinstance(value, str) else repr(value)[: _seen(limit)]
    )
    return text if len(text) <= limit else text[: limit - 1] + "…"


def out_of_memory(error: BaseException) -> bool:
    """True if the error says that the memory of the machine or device ran out. Errors of torch are
    recognised by their words, so torch is not imported.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and says_out_of_memory(str(error))
    )


def says_out_of_memory(text: str) -> bool:
    """True if a message, for example from another process, says that memory ran out."""
    return any(words in text for words in _OUT_OF_MEMORY)


def has_lone_surrogate(text: str) -> bool:
    """True if the text holds half a Unicode character, as JSON can spell one. Neither tokenizers
    nor UTF-8 files accept it.
    """
    return any("\ud800" <= c <= "\udfff" for c in text)


def printable(text: str, limit: int = 2000) -> str:
    """A text → one line without control characters, cut to `limit`. (Text of files and models may
    hold terminal escapes.)
    """
    masked = _masked(text[: _seen(limit)])
    clean = "".join(c if c.isprintable() else " " for c in masked[:limit])
    return clean if len(masked) <= limit else clean + "…"


def _seen(limit: int) -> int:
    """How many characters of a text are searched for passwords: more than are shown, since a cut
    could separate a password from its `@`.
    """
    return 2 * limit + 1000


def _masked(text: str) -> str:
    return _USER.sub("://…@", text)
