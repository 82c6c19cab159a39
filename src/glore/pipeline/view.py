"""The settings as one stage sees them: what it declares, and nothing else.

A view gives a declared section or value as it is. An undeclared read raises ValueError at once, so
no stage can depend on a setting that its fingerprint lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType
from typing import cast

from pydantic import BaseModel

from glore.config import RunConfig
from glore.pipeline.stage import Stage

__all__ = ["settings_view"]


def settings_view(config: RunConfig, stage: Stage, ancestors: Iterable[Stage]) -> RunConfig:
    """`config` for `stage`: its own declared settings and those of the stages it comes from.

    Raises ValueError for a declared path that is no setting. Reading another setting raises
    ValueError.
    """
    declared = {(path, ()) for path in stage.uses} | {(path, stage.without) for path in stage.reads}
    declared |= {(path, source.without) for source in ancestors for path in source.reads}
    for path in stage.reads:
        _check_exists(config, path, stage)
    granted = {**{p: w for p, w in declared if w}, **{p: w for p, w in declared if not w}}
    return cast("RunConfig", _View(config, "", {"seed": (), **granted}, stage.name, {}))


def _check_exists(config: RunConfig, path: str, stage: Stage) -> None:
    node: object = config
    for name in path.split("."):
        if not isinstance(node, BaseModel) or name not in type(node).model_fields:
            raise ValueError(f"stage {stage.name} declares {path}, which is no setting")
        node = getattr(node, name)


class _View:
    """One section, with the paths that may be read and the parts of them that may not."""

    def __init__(
        self,
        section: BaseModel,
        path: str,
        granted: Mapping[str, tuple[str, ...]],
        stage: str,
        changes: Mapping[str, object],
    ) -> None:
        self._section, self._path, self._granted = section, path, granted
        self._stage, self._changes = stage, changes

    def __getattr__(self, name: str) -> object:
        """A field as far as it is declared; a property or method, computed from declared fields; a
        constant of the class.
        """
        if name in self._changes:
            return self._changes[name]
        kind = type(self._section)
        if name not in kind.model_fields:
            attribute = getattr(kind, name, None)
            if isinstance(attribute, property) and attribute.fget is not None:
                found: object = attribute.fget(self)
                return found
            if isinstance(attribute, FunctionType):
                return MethodType(attribute, self)
            if attribute is not None:
                return attribute
            raise AttributeError(f"{kind.__name__} has no setting {name}")
        path = f"{self._path}.{name}" if self._path else name
        over = [(p, w) for p, w in self._granted.items() if _is_within(path, p)]
        value: object = getattr(self._section, name)
        if any(not any(_is_within(w, path) or _is_within(path, w) for w in ws) for _, ws in over):
            return value
        if isinstance(value, BaseModel):
            return _View(value, path, self._granted, self._stage, {})
        raise ValueError(
            f"stage {self._stage} reads the setting {path}, which it does not declare; add it to "
            "the stage's reads"
        )

    def model_copy(self, *, update: Mapping[str, object]) -> _View:
        """The same section with other values, as pydantic's method of that name."""
        changes = {**self._changes, **update}
        return _View(self._section, self._path, self._granted, self._stage, changes)


def _is_within(path: str, section: str) -> bool:
    """Is `path` that section, or below it?"""
    return path == section or path.startswith(f"{section}.")
