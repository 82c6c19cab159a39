"""All settings of a run: YAML in, dotted overrides, checked, resolved copy out.

    task       where problems come from
    training   one training; the base model
    engine     sampling
    run        the parts of the method, and RunConfig, which holds everything
    recipe     reads a YAML file
    place      a run's own config.yaml, and which folder it means

Inert: building a config reads no model and no data. Unknown keys are refused with the nearest known
one. A field's meaning stands under the field.
"""

from __future__ import annotations

from glore.config.engine import EngineSettings
from glore.config.place import resolved_recipe
from glore.config.recipe import load_config, load_run
from glore.config.run import (
    EvaluationSettings,
    ExpertIterationSettings,
    LabelSettings,
    RefinerSettings,
    RewardModelSettings,
    RunConfig,
    StudentSettings,
)
from glore.config.section import Settings
from glore.config.task import StoriesSettings, TaskSettings
from glore.config.training import (
    BaseModelSettings,
    LoraSettings,
    ScratchModelSettings,
    TrainSettings,
)

__all__ = [
    "BaseModelSettings",
    "EngineSettings",
    "EvaluationSettings",
    "ExpertIterationSettings",
    "LabelSettings",
    "LoraSettings",
    "RefinerSettings",
    "RewardModelSettings",
    "RunConfig",
    "ScratchModelSettings",
    "Settings",
    "StoriesSettings",
    "StudentSettings",
    "TaskSettings",
    "TrainSettings",
    "load_config",
    "load_run",
    "resolved_recipe",
]
