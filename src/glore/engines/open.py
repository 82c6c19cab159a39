"""From settings to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from glore.config.plugins import imported
from glore.engines.protocol import Engine

if TYPE_CHECKING:
    from glore.config import EngineSettings

__all__ = ["open_engine"]


def open_engine(model_path: str | Path, settings: EngineSettings) -> Engine:
    """The engine that `settings.kind` names, over the model at `model_path` (a folder or Hub name).

    Raises ModelError when the model can't be loaded, EngineError when the engine's server, package
    or cluster isn't there.
    """
    return cast(Engine, imported(settings.opener)(model_path, settings))
