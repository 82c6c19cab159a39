"""What the trainings of reward models share: the model that they start from, and the note in the
folder that says how they were prompted.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.config import PromptSettings, RunConfig
from glore.pipeline import StageContext
from glore.prompts import PromptLayout
from glore.reward_models.layouts import NOTE, note_of
from glore.stages.fine_tuning import base_model, base_opened, training_setup
from glore.step_layouts.apart import GloreLayout
from glore.training.training_setup import TrainingSetup

__all__ = ["reward_setup", "start_of", "start_opened"]


def start_opened(config: RunConfig, student: str = "student") -> tuple[str, ...]:
    """The model of the run that a reward model starts from, for a stage's `opens`."""
    return (student,) if config.reward.init == "student" else base_opened(config)


def start_of(ctx: StageContext, student: str = "student") -> str | Path:
    """The model that a reward model starts from (`reward.init`)."""
    return ctx.model_dir(student) if ctx.config.reward.init == "student" else base_model(ctx)


def reward_setup(
    ctx: StageContext, model: str, section: str, layout: PromptLayout
) -> TrainingSetup:
    """As `training_setup`; the folder says how the model was prompted, wherever it goes."""
    setup = training_setup(ctx, model, section)
    if ctx.config.prompt == PromptSettings():
        return setup
    note = note_of(GloreLayout(layout), ctx.config.prompt).decode()
    return dataclasses.replace(setup, notes=((NOTE, note),))
