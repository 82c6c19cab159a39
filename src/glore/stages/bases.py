"""Stages: problems, the base model, SFT, rounds of expert iteration, the student (method 1)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from glore.config import TrainSettings
from glore.errors import ConfigError, DataError, RunError
from glore.files import replacing_folder
from glore.pipeline import StageContext
from glore.prompts import solve_segments, step_text
from glore.records import Problem, Solution
from glore.stages.common import (
    base_model,
    count_training,
    problems_by_id,
    sample,
    seeded_choice,
    task_of,
    training_setup,
)
from glore.student import best_round, capped, goes_on, new_right
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.grading.answers import with_answer_line
from glore.tasks.protocol import ScratchTask

__all__ = [
    "chosen_round",
    "make_base",
    "read_problems",
    "run_sft",
    "sample_round",
    "select_student",
    "train_lm",
    "train_round",
]

Steps = tuple[str, ...]


def read_problems(ctx: StageContext) -> None:
    """Problems of all splits as records: parts `train`, `dev`, `test`."""
    task = task_of(ctx)
    for split in ("train", "dev", "test"):
        problems = task.problems(split)
        if not problems:
            raise DataError(
                f"task {task.name} has no {split} questions; check the settings below task"
            )
        if (
            split == "train"
            and ctx.config.student.bootstrap == "sft"
            and ctx.config.base.model is None
        ):
            _check_worked(problems)
        ctx.write(problems, Problem, split)
        ctx.count(
            **{
                split: len(problems),
                f"{split}_worked": sum(p.solution is not None for p in problems),
            }
        )
    if isinstance(task, DatasetTask):
        ctx.count(**task.left_out())


def make_base(ctx: StageContext) -> None:
    """The recipe's model, checked, or a small one trained from nothing."""
    base = ctx.config.base
    if base.reference is not None:
        from glore.models import load_tokenizer

        load_tokenizer(base.reference)
        return
    task = task_of(ctx)
    if not isinstance(task, ScratchTask):
        raise ConfigError(
            f"task {task.name} has no text to train a base model from nothing; set base.model to a "
            "model name or folder"
        )
    from glore.training.scratch import train_scratch_base

    report = train_scratch_base(task.base_document, base.scratch, training_setup(ctx, "base"))
    ctx.count(
        rows=report.n_rows, steps=report.n_steps, loss=report.final_loss, tokens=report.n_tokens
    )


def run_sft(ctx: StageContext) -> None:
    """Round 0: fine-tune on worked solutions, or take the base with one example in its prompt;
    greedy on dev either way.
    """
    if ctx.config.student.bootstrap == "sft":
        problems = problems_by_id(ctx, "train")
        worked = _worked(problems.values())
        _check_worked(problems.values())
        train_lm(
            ctx,
            "sft",
            [(solve_segments(problems[i].question), steps) for i, steps in worked],
            ctx.config.student.sft,
        )
    _solve_dev(ctx, 0)


def sample_round(ctx: StageContext, round_: int) -> None:
    """K solutions per training question from the student of the round before; nothing once the
    stopping rule fired.
    """
    if not goes_on(_dev_accuracies(ctx, round_), ctx.config.student.ei.min_gain):
        ctx.progress.note("expert iteration has stopped: the last round gained too little on dev")
        ctx.write([], Solution)
        ctx.count(skipped=1)
        return
    settings = ctx.config.student.ei
    model, prompted = _student(ctx, round_ - 1)
    problems = seeded_choice(
        ctx, ctx.read("problems", Problem, "train"), settings.questions, last=True
    )
    sample(
        ctx,
        model,
        problems,
        source="student",
        n=settings.samples,
        temperature=settings.temperature,
        prompted=prompted,
    )


def train_round(ctx: StageContext, round_: int) -> None:
    """Fine-tune the base on D_i = R_i ∪ D_{i−1}; greedy on dev. Parts: `right` (R_i), `dev`."""
    samples = ctx.read(f"ei{round_}_samples", Solution)
    if not samples:
        ctx.write([], Solution, "right")
        ctx.write([], Solution, "dev")
        ctx.count(skipped=1)
        return
    settings = ctx.config.student
    problems = problems_by_id(ctx, "train")
    worked = _worked(problems.values()) if settings.bootstrap == "sft" else []
    earlier = [s for r in range(1, round_) for s in ctx.read(f"ei{r}_train", Solution, "right")]
    merge = ctx.config.task.merge_answer_line
    stated = [
        dataclasses.replace(s, steps=with_answer_line(s.steps, merge))
        if s.correct == "right"
        else s
        for s in samples
    ]
    right = new_right(stated, [*worked, *((s.problem_id, s.steps) for s in earlier)])
    ctx.write(right, Solution, "right")
    data = capped(worked, [*earlier, *right], settings.ei.max_per_question, ctx.seed)
    if not data:
        raise RunError(
            f"round {round_} of expert iteration found no right solution among {len(samples)}, so "
            "there is nothing to learn from; use a stronger base, easier questions or more "
            "samples (student.ei.samples)"
        )
    ctx.count(
        new_right=len(right),
        distinct=len(data),
        questions=len({problem_id for problem_id, _ in data}),
    )
    train_lm(
        ctx,
        f"ei{round_}",
        [(solve_segments(problems[i].question), steps) for i, steps in data],
        settings.ei_train,
    )
    _solve_dev(ctx, round_)


def select_student(ctx: StageContext) -> None:
    """The round with the best greedy accuracy on dev becomes `models/student`. A merely prompted
    base can't.
    """
    best, accuracies = chosen_round(ctx)
    ctx.count(best_round=best, **{f"dev_round{r}": a for r, a in enumerate(accuracies)})
    ctx.progress.note(
        f"student: round {best}, greedy on dev {accuracies[best]:.1%} (rounds: "
        f"{', '.join(f'{a:.1%}' for a in accuracies)})"
    )
    with replacing_folder(ctx.new_model_dir("student")) as copy:
        shutil.copytree(_student(ctx, best)[0], copy, dirs_exist_ok=True)


def chosen_round(ctx: StageContext) -> tuple[int, list[float]]:
    """The student's round (0: the SFT model) and the accuracies on dev of all rounds. For the stage
    `student` and those after it.
    """
    accuracies = _dev_accuracies(ctx, ctx.config.student.ei.max_rounds + 1)
    first = 0 if ctx.config.student.bootstrap == "sft" else 1
    assert len(accuracies) > first, (
        "the settings ask for a round where the bootstrap is a prompt, and its first one is "
        "always run"
    )
    return first + best_round(accuracies[first:]), accuracies


def train_lm(
    ctx: StageContext,
    name: str,
    pairs: Sequence[tuple[Steps, Steps]],
    settings: TrainSettings,
    base: str | Path | None = None,
) -> None:
    """Fine-tune a causal LM (the base, unless told otherwise) on (prompt segments, target steps)
    into `models/NAME`.
    """
    from glore.training.examples import LMExample
    from glore.training.finetune import train_causal_lm

    def work() -> None:
        examples = [
            LMExample(prompt=prompt, target=tuple(step_text(s) for s in target))
            for prompt, target in pairs
        ]
        count_training(
            ctx,
            train_causal_lm(base or base_model(ctx), examples, settings, training_setup(ctx, name)),
        )

    ctx.once("train", work)


def _check_worked(problems: Iterable[Problem]) -> None:
    """Fine-tuning needs worked solutions; asked as soon as there are problems, before a base model
    is trained.
    """
    if not _worked(problems):
        raise DataError(
            "no training question has a worked solution, so there is nothing to fine-tune on; set "
            "student.bootstrap to prompt"
        )


def _worked(problems: Iterable[Problem]) -> list[tuple[str, Steps]]:
    return [(p.id, p.solution) for p in problems if p.solution is not None]


def _student(ctx: StageContext, round_: int) -> tuple[str | Path, bool]:
    """The model of a round, and whether it needs an example in its prompt."""
    if round_ > 0:
        return ctx.model_dir(f"ei{round_}"), False
    return (
        (ctx.model_dir("sft"), False)
        if ctx.config.student.bootstrap == "sft"
        else (base_model(ctx), True)
    )


def _solve_dev(ctx: StageContext, round_: int) -> None:
    model, prompted = _student(ctx, round_)
    sample(
        ctx,
        model,
        ctx.read("problems", Problem, "dev"),
        source="student",
        part="dev",
        prompted=prompted,
    )


def _dev_accuracies(ctx: StageContext, n_rounds: int) -> list[float]:
    """Greedy accuracy on dev of rounds 0 … n_rounds − 1, up to the round that was skipped."""
    accuracies = []
    for stage in ("sft", *(f"ei{r}_train" for r in range(1, n_rounds))):
        solved = ctx.read(stage, Solution, "dev")
        if not solved:
            break
        accuracies.append(sum(s.correct == "right" for s in solved) / len(solved))
    return accuracies
