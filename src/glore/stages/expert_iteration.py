"""Stages: SFT, rounds of expert iteration, the student (method 1)."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.errors import RunError
from glore.files import replacing_folder
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution
from glore.stages.checks import check_engine, check_prompt, check_training
from glore.stages.common import SAMPLING, drawn_by, problems_by_id, sample, seeded_choice
from glore.stages.diagnoses import expert_iteration_gained_nothing, student_fails
from glore.stages.estimates import round_tokens, round_train_tokens, sft_tokens
from glore.stages.fine_tuning import (
    TRAINING,
    base_model,
    base_opened,
    check_worked,
    longer,
    train_lm,
    worked_solutions,
)
from glore.student import best_round, capped, goes_on, new_right
from glore.tasks.grading.answers import with_answer_line

__all__ = ["chosen_round", "expert_iteration", "sft", "student"]

Steps = tuple[str, ...]

SFT_READERS = ("sft_samples", "sft_orm", "sft_test_drafts", "sft_test_samples")
"""Stages that open the SFT model only if it is not the student itself."""


def sft(has_worked: bool) -> Stage:
    """Round 0; `has_worked`: the student learns from worked solutions first."""
    return Stage(
        "sft",
        _run_sft,
        inputs=("problems", "base"),
        reads=(
            *("student.bootstrap", "student.shots", "student.sft", "student.sft_questions"),
            *SAMPLING,
        ),
        uses=TRAINING,
        models=("sft",) if has_worked else (),
        opens=base_opened,
        estimate=sft_tokens,
        checks=(
            *((check_training("student.sft"),) if has_worked else ()),
            check_engine,
            check_prompt,
        ),
    )


def _run_sft(ctx: StageContext) -> None:
    """Round 0: fine-tune on worked solutions, or take the base with examples in its prompt;
    greedy on dev either way.
    """
    if ctx.config.student.bootstrap == "sft":
        problems = problems_by_id(ctx, "train")
        worked = _worked(ctx, problems)
        train_lm(
            ctx,
            "sft",
            lambda layout: [(layout.solve(problems[i].question), steps) for i, steps in worked],
            "student.sft",
        )
    _solve_dev(ctx, 0)


def expert_iteration(number: int) -> tuple[Stage, Stage]:
    """Sampling and training of one round. Both do nothing once the stopping rule fired."""
    earlier = ("problems", "base", "sft", *(f"ei{r}_train" for r in range(1, number)))
    own = ("samples", "questions", "min_gain")
    return (
        Stage(
            f"ei{number}_samples",
            lambda ctx: _sample_round(ctx, number),
            inputs=earlier,
            reads=(
                "student.bootstrap",
                *(f"student.ei.{name}" for name in own),
                *drawn_by("student.ei"),
                *SAMPLING,
            ),
            uses=TRAINING,
            opens=lambda c: _opened_student(c, number - 1),
            estimate=round_tokens,
            checks=(check_engine,),
        ),
        Stage(
            f"ei{number}_train",
            lambda ctx: _train_round(ctx, number),
            inputs=(*earlier, f"ei{number}_samples"),
            reads=(
                "student.bootstrap",
                "student.ei.max_per_question",
                "student.ei_train",
                *SAMPLING,
            ),
            uses=TRAINING,
            models=(f"ei{number}",),
            opens=base_opened,
            estimate=lambda c: round_train_tokens(c, number),
            checks=(check_training("student.ei_train"), check_engine),
        ),
    )


def _sample_round(ctx: StageContext, round_: int) -> None:
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
        drawn=settings,
        prompted=prompted,
    )


def _train_round(ctx: StageContext, round_: int) -> None:
    """Fine-tune the base on D_i = R_i ∪ D_{i−1}; greedy on dev. Parts: `right` (R_i), `dev`."""
    samples = ctx.read(f"ei{round_}_samples", Solution)
    if not samples:
        ctx.write([], Solution, "right")
        ctx.write([], Solution, "dev")
        ctx.count(skipped=1)
        return
    settings = ctx.config.student
    problems = problems_by_id(ctx, "train")
    worked = _worked(ctx, problems) if settings.bootstrap == "sft" else []
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
        lambda layout: [(layout.solve(problems[i].question), steps) for i, steps in data],
        "student.ei_train",
    )
    _solve_dev(ctx, round_)
    _spare_worse(ctx, round_)


def _worked(ctx: StageContext, problems: Mapping[str, Problem]) -> list[tuple[str, Steps]]:
    """D_0: ids and worked solutions of the training questions that the student may learn from."""
    chosen = seeded_choice(
        ctx, list(problems.values()), ctx.config.student.sft_questions, last=True
    )
    check_worked(chosen)
    return worked_solutions(chosen)


def _spare_worse(ctx: StageContext, round_: int) -> None:
    """Only the best student so far can become the run's, so the choice opens no other."""
    best = _best(ctx, _dev_accuracies(ctx, round_ + 1))
    for r in range(round_ + 1):
        if r != best and (r > 0 or ctx.config.student.bootstrap == "sft"):
            ctx.spare(_round_name(r), "student")


def student(rounds: Sequence[int]) -> Stage:
    """The choice among SFT and these rounds."""
    return Stage(
        "student",
        _select_student,
        inputs=("sft", *(f"ei{r}_train" for r in rounds)),
        reads=("student.bootstrap", "student.ei.max_rounds"),
        uses=("student.ei_train",),
        models=("student",),
        delivers=("student",),
        opens=lambda _: ("sft", *(f"ei{r}" for r in rounds)),
    )


def _select_student(ctx: StageContext) -> None:
    """The round with the best greedy accuracy on dev becomes `models/student`. A merely prompted
    base can't.
    """
    best, accuracies = chosen_round(ctx)
    ctx.count(best_round=best, **{f"dev_round{r}": a for r, a in enumerate(accuracies)})
    ctx.progress.note(
        f"student: round {best}, greedy on dev {accuracies[best]:.1%} (rounds: "
        f"{', '.join(f'{a:.1%}' for a in accuracies)})"
    )
    training = longer(ctx, "student.ei_train")
    n_dev = "task.stories.n_dev" if ctx.config.task.kind == "stories" else "task.n_dev"
    ctx.warn(expert_iteration_gained_nothing(accuracies, best, training, n_dev))
    if best == 0:  # then their parts stay empty
        ctx.spare("sft", *SFT_READERS)
    with replacing_folder(ctx.new_model_dir("student")) as copy:
        shutil.copytree(_student(ctx, best)[0], copy, dirs_exist_ok=True, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    """The file once more, without a copy of its content where the file system has hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def chosen_round(ctx: StageContext) -> tuple[int, list[float]]:
    """The student's round (0: the SFT model) and the accuracies on dev of all rounds. For the stage
    `student` and those after it.
    """
    accuracies = _dev_accuracies(ctx, ctx.config.student.ei.max_rounds + 1)
    return _best(ctx, accuracies), accuracies


def _best(ctx: StageContext, accuracies: Sequence[float]) -> int:
    first = 0 if ctx.config.student.bootstrap == "sft" else 1
    assert len(accuracies) > first, (
        "the settings ask for a round where the bootstrap is a prompt, and its first one is "
        "always run"
    )
    return first + best_round(accuracies[first:])


def _round_name(round_: int) -> str:
    """The model of a round; of round 0 where the student learns from worked solutions first."""
    return f"ei{round_}" if round_ else "sft"


def _opened_student(config: RunConfig, round_: int) -> tuple[str, ...]:
    """What `_student` opens."""
    has_own = round_ > 0 or config.student.bootstrap == "sft"
    return (_round_name(round_),) if has_own else base_opened(config)


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
    problems = ctx.read("problems", Problem, "dev")
    solved = sample(ctx, model, problems, source="student", part="dev", prompted=prompted)
    if not prompted:
        section = "student.ei_train" if round_ else "student.sft"
        ctx.warn(student_fails(solved, "dev", longer(ctx, section)))


def _dev_accuracies(ctx: StageContext, n_rounds: int) -> list[float]:
    """Greedy accuracy on dev of rounds 0 … n_rounds − 1, up to the round that was skipped."""
    accuracies = []
    for stage in ("sft", *(f"ei{r}_train" for r in range(1, n_rounds))):
        solved = ctx.read(stage, Solution, "dev")
        if not solved:
            break
        accuracies.append(sum(s.correct == "right" for s in solved) / len(solved))
    return accuracies
