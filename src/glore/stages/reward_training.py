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
from glore.stages.checks import base_folder
from glore.stages.fine_tuning import base_model, base_opened, training_setup
from glore.step_head import BINARY, StepHead
from glore.step_layouts.apart import GloreLayout
from glore.training.training_setup import TrainingSetup

__all__ = [
    "HEAD",
    "check_head",
    "check_label_tokens",
    "head_of",
    "reward_setup",
    "start_of",
    "start_opened",
]

HEAD = ("reward.head", "reward.label_tokens")
"""What the head of a run's reward models depends on."""


def head_of(config: RunConfig) -> StepHead:
    """The head of the run's reward models."""
    return StepHead(config.reward.head, label_tokens=tuple(config.reward.label_tokens.split()))


def check_head(config: RunConfig) -> None:
    """The tokenizer of the base has the label tokens, where they are read and it is here already.
    Raises ModelError.
    """
    check_label_tokens(head_of(config), config)


def check_label_tokens(head: StepHead, config: RunConfig) -> None:
    """As `check_head`, of any head."""
    if head.says_tokens and base_folder(config) is not None:
        from glore.models import load_tokenizer

        head.token_ids(load_tokenizer(str(config.base.reference)))


def start_opened(config: RunConfig, student: str = "student") -> tuple[str, ...]:
    """The model of the run that a reward model starts from, for a stage's `opens`."""
    return (student,) if config.reward.init == "student" else base_opened(config)


def start_of(ctx: StageContext, student: str = "student") -> str | Path:
    """The model that a reward model starts from (`reward.init`)."""
    return ctx.model_dir(student) if ctx.config.reward.init == "student" else base_model(ctx)


def reward_setup(
    ctx: StageContext, model: str, section: str, layout: PromptLayout, head: StepHead = BINARY
) -> TrainingSetup:
    """As `training_setup`; the folder says how the model was prompted and how it says labels,
    wherever it goes.
    """
    setup = training_setup(ctx, model, section)
    if ctx.config.prompt == PromptSettings() and head == BINARY:
        return setup
    note = note_of(GloreLayout(layout), ctx.config.prompt, head).decode()
    return dataclasses.replace(setup, notes=((NOTE, note),))
