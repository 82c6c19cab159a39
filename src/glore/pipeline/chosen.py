"""The engine that `engine.kind=auto` stands for in a run.

It is chosen before anything is planned, so fingerprints, stages and marks know the chosen engine
alone. The run's `config.yaml` keeps `auto`, since the run's models may be used on another machine.
"""

from __future__ import annotations

from typing import NamedTuple, cast

from glore.config import ChosenEngine, RunConfig
from glore.config.plugins import imported

__all__ = ["EngineForRun", "with_engine"]


class EngineForRun(NamedTuple):
    """Settings with an engine of a certain kind."""

    config: RunConfig
    said: str
    """The kind and why it was chosen; empty where the settings name it."""


def with_engine(config: RunConfig) -> EngineForRun:
    """`config` with the engine that was chosen, where its kind stands for others. Raises
    ConfigError for an option that this engine does not have.
    """
    if config.engine.chooser is None:
        return EngineForRun(config, "")
    choose = imported(config.engine.chooser)
    settings, why = cast("ChosenEngine", choose(config))
    return EngineForRun(
        config.model_copy(update={"engine": settings}), f"{settings.kind}, since {why}"
    )
