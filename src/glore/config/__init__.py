"""All settings of a run: YAML in, dotted overrides, checked, resolved copy out.

    kinds      sections with a class for each kind; kinds of installed packages
    task       where problems come from: what all kinds of tasks share
    task_kinds a class for each built-in kind of task
    stories    the built-in stories
    engine     sampling: a class for each kind of engine
    training   one training; the base model
    prompt     plain prompts or chats; steps
    run        the parts of the method, and RunConfig, which holds everything
    recipe     reads a YAML file
    resolved   the config.yaml of a run folder

Inert: building a config reads no model and no data. Unknown keys are refused with the nearest known
one. A field's meaning stands under the field.
"""

from __future__ import annotations

from glore.config.engine import (
    AutoEngineSettings,
    ChosenEngine,
    EngineSettings,
    HttpEngineSettings,
    RayEngineSettings,
    TorchEngineSettings,
    VllmEngineSettings,
)
from glore.config.prompt import PromptSettings
from glore.config.recipe import config_of, load_config, load_run, section_of
from glore.config.resolved import resolved_recipe
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
from glore.config.stories import StoriesSettings
from glore.config.task import TaskSettings
from glore.config.task_kinds import (
    DatasetTaskSettings,
    Gsm8kTaskSettings,
    JsonlTaskSettings,
    MathTaskSettings,
    ReasoningGymTaskSettings,
    StoriesTaskSettings,
    SvampTaskSettings,
    Worked,
)
from glore.config.training import (
    BaseModelSettings,
    LoraSettings,
    ScratchModelSettings,
    TrainSettings,
)

__all__ = [
    "AutoEngineSettings",
    "BaseModelSettings",
    "ChosenEngine",
    "DatasetTaskSettings",
    "EngineSettings",
    "EvaluationSettings",
    "ExpertIterationSettings",
    "Gsm8kTaskSettings",
    "HttpEngineSettings",
    "JsonlTaskSettings",
    "LabelSettings",
    "LoraSettings",
    "MathTaskSettings",
    "PromptSettings",
    "RayEngineSettings",
    "ReasoningGymTaskSettings",
    "RefinerSettings",
    "RewardModelSettings",
    "RunConfig",
    "ScratchModelSettings",
    "Settings",
    "StoriesSettings",
    "StoriesTaskSettings",
    "StudentSettings",
    "SvampTaskSettings",
    "TaskSettings",
    "TorchEngineSettings",
    "TrainSettings",
    "VllmEngineSettings",
    "Worked",
    "config_of",
    "load_config",
    "load_run",
    "resolved_recipe",
    "section_of",
]
