"""Stages: the problems, and the base model (method 1)."""

from __future__ import annotations

from glore.chat_template import step_format
from glore.config import RunConfig
from glore.errors import ConfigError, DataError
from glore.pipeline import Stage, StageContext, declare
from glore.pipeline.fingerprints import model_contents
from glore.records import Problem
from glore.stages.checks import check_base, check_training
from glore.stages.common import task_of
from glore.stages.estimates import scratch_tokens
from glore.stages.fine_tuning import TRAINING, check_worked, training_setup
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.open import data_contents
from glore.tasks.protocol import ScratchTask

__all__ = ["base", "problems"]

NOT_IN_BASE_TEXT = ("task.stories.n_train", "task.stories.worked_share", "task.boxed")
"""Settings of a task that don't change the text a base model learns from: the number of its
questions, and how answers are graded.
"""


@declare(
    "problems",
    reads=("task", "prompt.steps", "prompt.think", "prompt.max_solution_chars"),
    uses=("student.bootstrap", "base.model"),
    opens=lambda _: (),
    contents=lambda c: data_contents(c.task),
)
def problems(ctx: StageContext) -> None:
    """Problems of all splits as records: parts `train`, `dev`, `test`."""
    task = task_of(ctx, step_format(ctx.config.prompt))
    for split in ("train", "dev", "test"):
        found = task.problems(split)
        if not found:
            raise DataError(
                f"task {task.name} has no {split} questions; check the settings below task"
            )
        if (
            split == "train"
            and ctx.config.student.bootstrap == "sft"
            and ctx.config.base.model is None
        ):
            check_worked(found)
        ctx.write(found, Problem, split)
        ctx.count(
            **{
                split: len(found),
                f"{split}_worked": sum(p.solution is not None for p in found),
            }
        )
    if isinstance(task, DatasetTask):
        ctx.count(**task.left_out())


def base(config: RunConfig) -> Stage:
    """The pretrained model that the recipe names, or a small one trained from nothing."""
    if config.base.model is None:
        return _scratch_base
    if config.base.is_gguf:
        return _converted_base
    pinned = ("base.revision",) if config.base.revision else ()
    return Stage(
        "base",
        _given_base,
        reads=("base.model", *pinned, "base.dtype"),
        uses=("base.revision",),
        contents=lambda c: model_contents(c.base.model or ""),
        estimate=scratch_tokens,
        checks=(check_base,),
    )


def _given_base(ctx: StageContext) -> None:
    """Check the tokenizer of the recipe's model."""
    from glore.models import load_tokenizer

    load_tokenizer(str(ctx.config.base.reference))


@declare(
    "base",
    reads=("base.model", "base.dtype"),
    models=("base",),
    contents=lambda c: model_contents(c.base.model or ""),
    estimate=scratch_tokens,
    checks=(check_base,),
)
def _converted_base(ctx: StageContext) -> None:
    """Write the model in a GGUF file as `models/base`."""
    from glore.gguf_model import convert_gguf

    model = str(ctx.config.base.model)
    weights = convert_gguf(model, ctx.new_model_dir("base"), ctx.config.base.dtype)
    ctx.count(weights=weights)


@declare(
    "base",
    reads=("base.dtype", "base.scratch", "task"),
    without=NOT_IN_BASE_TEXT,
    uses=("task.boxed", *TRAINING),
    models=("base",),
    contents=lambda c: data_contents(c.task, base_text=True),
    estimate=scratch_tokens,
    checks=(check_base, check_training("base.scratch.train")),
)
def _scratch_base(ctx: StageContext) -> None:
    """Train a small model from nothing on the task's text, as `models/base`."""
    task = task_of(ctx)
    if not isinstance(task, ScratchTask):
        raise ConfigError(
            f"task {task.name} has no text to train a base model from nothing; set base.model to a "
            "model name or folder"
        )
    from glore.training.scratch import train_scratch_base

    setup = training_setup(ctx, "base", "base.scratch.train")
    report = train_scratch_base(task.base_document, ctx.config.base.scratch, setup)
    ctx.count(
        rows=report.n_rows, steps=report.n_steps, loss=report.final_loss, tokens=report.n_tokens
    )
