"""What the stages that train share: the settings of a training by their path, the base model, and
fine-tuning on (prompt, target) pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from glore.config import RunConfig, TrainSettings
from glore.errors import DataError
from glore.pipeline import StageContext
from glore.prompts import PromptLayout
from glore.records import Problem
from glore.seeds import stable_seed
from glore.stages.common import layout_of
from glore.training.examples import TrainReport
from glore.training.training_setup import TrainingSetup

__all__ = [
    "TRAINING",
    "base_model",
    "base_opened",
    "check_worked",
    "count_training",
    "longer",
    "train_lm",
    "training_settings",
    "training_setup",
    "worked_solutions",
]

TRAINING = ("engine.device", "launch", "base.model", "base.revision")
"""Settings that a training reads and that change no result of its own stage: where it is carried
out, and which model is the base, which the fingerprint of the stage `base` holds.
"""

Steps = tuple[str, ...]


def base_model(ctx: StageContext) -> str | Path:
    """The pretrained base: the recipe's, or the one trained from nothing in this run."""
    return ctx.config.base.reference or ctx.model_dir("base")


def base_opened(config: RunConfig) -> tuple[str, ...]:
    """The base among the models of the run that a stage opens, if the run makes it."""
    return ("base",) if config.base.is_made_here else ()


def training_setup(ctx: StageContext, model: str, section: str) -> TrainingSetup:
    """Where and how this stage trains `models/MODEL`; `section` is where a recipe has the settings
    of the training.
    """
    return TrainingSetup(
        out_dir=ctx.new_model_dir(model),
        work_dir=ctx.work_dir(),
        log_dir=ctx.run_dir / "log",
        trackers=() if ctx.track == "none" else (ctx.track,),
        seed=stable_seed(ctx.seed, "training", ctx.name) >> 32,  # 31 bits
        progress=ctx.progress,
        dtype=ctx.config.base.dtype,
        device=ctx.config.engine.device,
        launch=ctx.config.launch,
        section=section,
        about=(
            f"data: made by the stage `{ctx.name}` of a glore run, from the records of "
            f"{', '.join(ctx.sources) or 'no other stage'}",
            "recipe: the run's config.yaml names the task and all settings; "
            f"stages/{ctx.name}/done.json those that this model depends on",
            f"fingerprint of these settings, inputs and the release: {ctx.fingerprint}",
        ),
    )


def count_training(ctx: StageContext, report: TrainReport) -> None:
    """Counts for `done.json` of a fine-tuning."""
    ctx.count(
        rows=report.n_rows,
        dropped=report.n_dropped,
        steps=report.n_steps,
        loss=report.final_loss,
        tokens=report.n_tokens,
    )


def train_lm(
    ctx: StageContext,
    model: str,
    pairs: Callable[[PromptLayout], Sequence[tuple[Steps, Steps]]],
    section: str,
    base: str | Path | None = None,
) -> None:
    """Fine-tune a causal LM (`base`, or the run's base model) into `models/MODEL`, with the
    settings at `section`. `pairs`: the layout of prompts → (prompt segments, target steps).
    """
    from glore.training.examples import LMExample
    from glore.training.finetune import train_causal_lm

    settings = training_settings(ctx, section)

    def work() -> None:
        start = base or base_model(ctx)
        layout = layout_of(ctx, start)
        examples = [
            LMExample(prompt=prompt, target=tuple(map(layout.steps.text, target)))
            for prompt, target in pairs(layout)
        ]
        setup = training_setup(ctx, model, section)
        count_training(ctx, train_causal_lm(start, examples, settings, setup))

    ctx.once("train", work)


def training_settings(ctx: StageContext, section: str) -> TrainSettings:
    """The settings of a training at a dotted path."""
    settings = functools.reduce(getattr, section.split("."), ctx.config)
    assert isinstance(settings, TrainSettings), f"{section} is declared as a training"
    return settings


def longer(ctx: StageContext, section: str) -> str:
    """The setting that makes the training at `section` longer: `max_steps` overrides `epochs`."""
    has_steps = training_settings(ctx, section).max_steps
    return f"{section}.{'max_steps' if has_steps else 'epochs'}"


def worked_solutions(problems: Iterable[Problem]) -> list[tuple[str, Steps]]:
    """Problem ids and steps of the worked solutions."""
    return [(p.id, p.solution) for p in problems if p.solution is not None]


def check_worked(problems: Iterable[Problem]) -> None:
    """Raise DataError without worked solutions, which fine-tuning needs. Called as soon as the
    problems are read, before a base model is trained.
    """
    if not worked_solutions(problems):
        raise DataError(
            "no training question has a worked solution, so there is nothing to fine-tune on; set "
            "student.bootstrap to prompt"
        )
