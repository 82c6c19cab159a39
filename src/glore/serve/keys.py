"""The API key that clients must send, from a file or from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from glore.errors import ConfigError, shown
from glore.files import read_given

__all__ = ["KEY_VARIABLE", "read_key"]

KEY_VARIABLE = "GLORE_API_KEY"
LEAST = 8
MOST_BYTES = 4096


def read_key(file: Path | None) -> str | None:
    """The key in this file, or else in $GLORE_API_KEY; none: clients need none.

    Raises ConfigError for a key that no header can carry or that is too short; no message holds it.
    """
    if file is None:
        key, where = os.environ.get(KEY_VARIABLE, ""), f"${KEY_VARIABLE}"
        if not key:
            return None
    else:
        where = shown(str(file))
        try:
            key = read_given(file, MOST_BYTES).decode("ascii")
        except UnicodeDecodeError:
            key = "\0"
        except OSError as error:
            raise ConfigError(
                f"can't read the key file {where}: {error.strerror or error}; give a file with "
                "the key on one line"
            ) from error
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or len(key) < LEAST or " " in key:
        raise ConfigError(
            f"an API key is at least {LEAST} printable ASCII characters without a space, and the "
            f"one in {where} is not; make one with: openssl rand -hex 24"
        )
    return key
