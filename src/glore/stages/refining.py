"""Stages: refinement pairs and the joint refiner (method 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.chat_template import step_format
from glore.config import RunConfig
from glore.errors import RunError
from glore.how import global_pairs, local_pairs, mixed_pairs
from glore.pipeline import StageContext, declare
from glore.prompts import PromptLayout
from glore.records import PrefixTrials, RefinementPair, Solution, StepLabels
from glore.solutions import by_problem, same_text
from glore.stages.checks import check_training
from glore.stages.common import problems_by_id
from glore.stages.estimates import refiner_tokens
from glore.stages.fine_tuning import TRAINING, base_model, base_opened, train_lm
from glore.stages.labelling import CONSISTENCY, train_drafts
from glore.tasks.grading.answers import with_answer_line
from glore.where import good_traces

__all__ = ["pairs", "refiner", "refiner_opened", "train_refiner"]

Steps = tuple[str, ...]


@declare(
    "pairs",
    inputs=("labels",),
    opens=lambda _: (),
    reads=(
        "refiner.global_mark",
        "refiner.global_pairs",
        *CONSISTENCY,
        "reward.draft_samples",
        "student.bootstrap",
    ),
)
def pairs(ctx: StageContext) -> None:
    """Local and global pairs 1:1 from the wrong drafts."""
    drafts, settings = train_drafts(ctx), ctx.config.refiner
    draft_of = {d.id: d for d in drafts}
    trials = ctx.read("rollouts", PrefixTrials)
    steps = step_format(ctx.config.prompt)
    traces = {
        (t.solution_id, t.n_steps_kept): good_traces(
            draft_of[t.solution_id], t, ctx.config.labels, steps
        )
        for t in trials
    }
    right = _right_solutions(ctx)
    local = local_pairs(drafts, ctx.read("labels", StepLabels), traces, right, seed=ctx.seed)
    whole = global_pairs(
        drafts, right, seed=ctx.seed, mark=settings.global_mark, how_many=settings.global_pairs
    )
    merge = ctx.config.task.merge_answer_line
    mixed = mixed_pairs(local, whole, seed=ctx.seed)
    made = [
        dataclasses.replace(p, target_steps=with_answer_line(p.target_steps, merge)) for p in mixed
    ]
    ctx.write(made, RefinementPair)
    n_wrong = sum(d.correct == "wrong" for d in drafts)
    ctx.count(
        wrong_drafts=n_wrong, local_pairs=len(local), global_pairs=len(whole), pairs=len(made)
    )


@declare(
    "refiner",
    inputs=("base", "pairs"),
    reads=("refiner.init", "refiner.train"),
    uses=TRAINING,
    models=("refiner",),
    delivers=("refiner",),
    opens=lambda c: refiner_opened(c),
    estimate=refiner_tokens,
    checks=(check_training("refiner.train"),),
)
def refiner(ctx: StageContext) -> None:
    """One model for both kinds: question and marked draft → whole corrected solution."""
    found = ctx.read("pairs", RefinementPair)
    if not found:
        raise RunError(
            "there is no wrong draft with a right continuation, so the refiner has nothing to "
            "learn from: the student is right always or never; choose harder or easier questions, "
            "or more samples (reward.draft_samples)"
        )

    train_refiner(ctx, "refiner", found)


def train_refiner(ctx: StageContext, model: str, pairs: Sequence[RefinementPair]) -> None:
    """Train `models/MODEL` on pairs of training questions, with the settings and from the weights
    of the run's refiner. Studies train so too.
    """
    problems = problems_by_id(ctx, "train")

    def examples(layout: PromptLayout) -> list[tuple[Steps, Steps]]:
        questions = [problems[p.problem_id].question for p in pairs]
        return [
            (layout.refine(question, p.draft_steps, p.marked_step), p.target_steps)
            for question, p in zip(questions, pairs, strict=True)
        ]

    is_student = ctx.config.refiner.init == "student"
    start = ctx.model_dir("student") if is_student else base_model(ctx)
    train_lm(ctx, model, examples, "refiner.train", start)


def refiner_opened(config: RunConfig) -> tuple[str, ...]:
    """The model of the run that a refiner starts from."""
    return ("student",) if config.refiner.init == "student" else base_opened(config)


def _right_solutions(ctx: StageContext) -> dict[str, list[Steps]]:
    """Problem id → its distinct right solutions: the worked one where the student learned from it,
    then the samples in their order.
    """
    worked = ctx.config.student.bootstrap == "sft"
    groups = by_problem([s for s in ctx.read("samples", Solution) if s.correct == "right"])
    right: dict[str, list[Steps]] = {}
    for problem in problems_by_id(ctx, "train").values():
        found = [
            *([problem.solution] if problem.solution and worked else []),
            *(s.steps for s in groups.get(problem.id, [])),
        ]
        right[problem.id] = list({same_text(steps): steps for steps in found}.values())
    return right
