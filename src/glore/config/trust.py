"""What a recipe may not decide, because it may come from anyone: commands, other variables of the
environment, pickles.

Such settings count only where they are given at a start: on the command line, or among the
overrides of `load_config`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from glore.errors import shown

__all__ = ["OWN_VARIABLE", "VARIABLE", "drop_untrusted", "untrusted"]

VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
OWN_VARIABLE = re.compile(r"GLORE_[A-Z0-9_]{1,99}")
"""The name of an environment variable, and of one that a recipe may name."""


class _Guarded(NamedTuple):
    path: tuple[str, ...]
    is_harmless: Callable[[str], bool]
    """For values that are texts; others are refused elsewhere."""
    why: str
    otherwise: str
    """What can be done without the command line."""
    dropped: bool = True
    """Whether a run's own settings are read without it where nothing is computed with it."""


def _is_own_variable(name: str) -> bool:
    return bool(OWN_VARIABLE.fullmatch(name))


_VARIABLES = "a recipe may have variables sent to a server that begin with GLORE_ only"
_EXPORT = "export that key as GLORE_API_KEY"
_GUARDED = (
    _Guarded(
        ("launch",),
        lambda text: not text.strip(),
        "a recipe may not run commands",
        "launch= there trains in this process",
    ),
    _Guarded(("engine", "api_key_env"), _is_own_variable, _VARIABLES, _EXPORT),
    _Guarded(("engine", "inner", "api_key_env"), _is_own_variable, _VARIABLES, _EXPORT),
    _Guarded(
        ("engine", "address"),
        lambda text: text in ("auto", "local"),
        "a recipe may not join this machine to another's cluster, which can run anything here",
        "export RAY_ADDRESS",
    ),
    _Guarded(
        ("base", "model"),
        lambda text: not re.search(r"\.bin(\.index\.json)?/*$", text.strip()),
        "a recipe may not ask for pickled weights, which can run code when they are read",
        "give a model in safetensors",
        dropped=False,
    ),
)


def untrusted(data: object, given: object) -> str | None:
    """What in `data`, a recipe with overrides, is not taken from the recipe alone, and what to do;
    none where all is well.

    `given` holds the overrides by themselves.
    """
    for guarded in _GUARDED:
        value = _at(data, guarded.path)
        if (
            isinstance(value, str)
            and not guarded.is_harmless(value)
            and _at(given, guarded.path) != value
        ):
            name = ".".join(guarded.path)
            # In the place of a variable's name some will put the key.
            is_shown = guarded.path[-1] != "api_key_env" or VARIABLE.fullmatch(value)
            asked = (
                f"{name}={shlex.quote(value)}"
                if is_shown and value.isprintable() and len(value) < 200
                else f"{name}=…"
            )
            got = (
                shown(value) if is_shown else "something else (not shown, since it may be the key)"
            )
            return (
                f"{name}: {guarded.why}, got {got}; if you want that, add {asked} to the command "
                f"line at each start; else {guarded.otherwise}"
            )
    return None


def drop_untrusted(data: object) -> None:
    """Take out what only a start decides, for commands that compute nothing with it."""
    for guarded in _GUARDED:
        value = _at(data, guarded.path)
        if isinstance(value, str) and guarded.dropped and not guarded.is_harmless(value):
            section = _at(data, guarded.path[:-1])
            assert isinstance(section, dict)
            del section[guarded.path[-1]]


def _at(data: object, path: tuple[str, ...]) -> object:
    for name in path:
        data = data.get(name) if isinstance(data, dict) else None
    return data
