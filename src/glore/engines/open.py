"""From settings to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glore.engines.protocol import Engine

if TYPE_CHECKING:
    from glore.config import EngineSettings

__all__ = ["open_engine"]


def open_engine(model_path: str | Path, settings: EngineSettings) -> Engine:
    """The engine that `settings.kind` names, over the model at `model_path` (a folder or Hub name).

    Raises ModelError when the model can't be loaded, EngineError when the engine's server, package
    or cluster isn't there.
    """
    if settings.kind == "http":
        from glore.engines.http.engine import HttpEngine

        return HttpEngine(model_path, settings)
    if settings.kind == "vllm":
        from glore.engines.vllm import VllmEngine

        return VllmEngine(model_path, settings)
    if settings.kind == "ray":
        from glore.engines.ray.engine import RayEngine

        return RayEngine(model_path, settings)
    from glore.engines.local.engine import TorchEngine

    return TorchEngine(model_path, settings)
