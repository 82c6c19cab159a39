"""From settings to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from glore.sampling.protocol import Engine

if TYPE_CHECKING:
    from glore.config import EngineSettings

__all__ = ["open_engine"]


def open_engine(model_path: str | Path, settings: EngineSettings) -> Engine:
    """The engine that `settings.kind` names, over the model at `model_path`. Raises ModelError when it can't be loaded."""
    from glore.sampling.torch_engine import TorchEngine

    return TorchEngine(model_path, settings)
