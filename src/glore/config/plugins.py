"""Objects that settings name: functions of glore, imported when they are needed, and what installed
packages offer through entry points.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from typing import cast

from glore.errors import ConfigError, shown

__all__ = ["imported", "is_installed", "plugin", "plugin_names"]


def imported(path: str) -> Callable[..., object]:
    """The function or class that `module:name` names."""
    module, _, name = path.partition(":")
    return cast("Callable[..., object]", getattr(importlib.import_module(module), name))


def is_installed(package: str) -> bool:
    """Whether a package can be found. It is not imported. A mere folder of that name, such as one
    in the working directory, is none.
    """
    if package in sys.modules:
        return sys.modules[package] is not None
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def plugin_names(group: str) -> set[str]:
    """Names of the entry points in a group. Nothing is imported."""
    return set(importlib.metadata.entry_points(group=group).names)


def plugin(group: str, name: str) -> object:
    """What the entry point `name` in `group` names, imported. Raises ConfigError where no installed
    package has one, packages have different ones, or the import fails.
    """
    points = importlib.metadata.entry_points(group=group)
    values = sorted({point.value for point in points.select(name=name)})
    if not values:
        raise ConfigError(
            f"no installed package names {shown(name)} in {group} (known: "
            f"{', '.join(sorted(points.names)) or 'none'}); install the package, or correct the "
            "name"
        )
    if len(values) > 1:
        raise ConfigError(
            f"installed packages name {' and '.join(map(shown, values))} as {shown(name)} in "
            f"{group}; uninstall one of them"
        )
    try:
        return points[name].load()
    except Exception as error:
        raise ConfigError(
            f"can't load {shown(values[0])}, which an installed package names as {shown(name)} in "
            f"{group}: {type(error).__name__}: {shown(str(error), 200)}; correct or uninstall that "
            "package"
        ) from error
