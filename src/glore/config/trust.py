"""Settings that a recipe may not decide, because it may come from anyone: commands, other variables
of the environment, pickles.

They count only if they are given at a start: on the command line, or among the overrides of
`load_config`.
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
    """For texts; other values are refused elsewhere."""
    why: str
    otherwise: str
    """The alternative without the command line."""
    dropped: bool = True
    """Whether it is dropped from a run's own settings when nothing is computed with them."""


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
    """The first setting in `data`, a recipe with overrides, that a recipe alone may not decide, and
    what to do; none if there is none.

    `given` has the overrides alone.
    """
    for guarded in _GUARDED:
        value = _at(data, guarded.path)
        if (
            isinstance(value, str)
            and not guarded.is_harmless(value)
            and _at(given, guarded.path) != value
        ):
            name = ".".join(guarded.path)
            # Some users put the key where the variable's name belongs.
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
    """Remove these settings, for commands that compute nothing with them."""
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
