"""From settings to an engine."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from glore.config.plugins import imported
from glore.engines.auto import chosen_for
from glore.engines.protocol import Engine
from glore.errors import EngineError, shown
from glore.prompts import PLAIN, PromptLayout

if TYPE_CHECKING:
    from glore.config import EngineSettings
    from glore.engines.local.scorer import StepScorer
    from glore.step_layouts.parts import StepLayout

__all__ = ["open_engine", "open_scorer"]

READ_ADAPTERS = ("torch", "http", "ray")
"""Engines that merge an adapter themselves (a pool in each worker), or whose server has the model.
For the others it is merged into a folder that is there while they open the model.
"""
_log = logging.getLogger(__name__)


def open_engine(
    model_path: str | Path, settings: EngineSettings, *, logs_warning: bool = True
) -> Engine:
    """The engine that `settings.kind` names, over the model at `model_path` (a folder or Hub name).

    The caller closes it. `logs_warning`: log its `warning`, once a process. Raises ModelError when
    the model can't be loaded, EngineError when the engine's server, package or cluster isn't there,
    ConfigError for an option that the engine chosen by `auto` does not have.
    """
    settings = chosen_for(model_path, settings)
    if settings.kind in READ_ADAPTERS:
        engine = cast(Engine, imported(settings.opener)(model_path, settings))
    else:
        from glore.models import merged_folder

        with merged_folder(model_path) as folder:
            engine = cast(Engine, imported(settings.opener)(folder, settings))
        if folder != model_path and hasattr(engine, "name"):
            engine.name = str(model_path)
    lacks = [name for name in ("run", "close", "backend", "warning") if not hasattr(engine, name)]
    if lacks:
        raise EngineError(
            f"the engine of kind {shown(settings.kind)} has no {' and no '.join(lacks)}; derive "
            "its class from glore.engines.lifetime.Closable and see glore.engines.protocol"
        )
    if logs_warning:
        _log_once(engine.warning)
    return engine


def open_scorer(
    model_path: str | Path,
    settings: EngineSettings,
    layout: PromptLayout | StepLayout = PLAIN,
    *,
    logs_warning: bool = True,
) -> StepScorer:
    """The reward model at `model_path`, whose inputs look like `layout`. The caller closes it;
    `logs_warning` is as in `open_engine`.

    Raises ModelError when the model can't be loaded.
    """
    from glore.engines.local.scorer import StepScorer

    scorer = StepScorer(model_path, settings, layout)
    if logs_warning:
        _log_once(scorer.warning)
    return scorer


@cache
def _log_once(message: str) -> None:
    if message:
        _log.warning("%s", message)
