"""A SORM of the SFT student, and the scores of both students' reward models on both students'
samples, for the study `generalisation`.
"""

from __future__ import annotations

import dataclasses

from glore.chat_template import step_format
from glore.evaluation.inputs import ORM, SFT_ORM, SORM
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels
from glore.solutions import first_of_each
from glore.stages.checks import check_engine, check_training
from glore.stages.common import layout_of, lazy_engine, problems_by_id, score, task_of
from glore.stages.estimates import rollout_tokens, sorm_tokens
from glore.stages.fine_tuning import TRAINING, base_opened
from glore.stages.labelling import BALANCE, LABELS, ROLLOUTS, Policy, roll_out, train_drafts
from glore.stages.reward import has_own_orm, train_reward_model
from glore.stages.reward_training import HEAD, check_head
from glore.where import label_drafts

__all__ = ["SFT_SORM", "STUDENTS", "cross", "crossed_scores", "sft_sorm_stages"]

SFT_SORM = "sft_sorm"
STUDENTS = {"EI": "test_samples", "SFT": "sft_test_samples"}


def _sft_drafts(ctx: StageContext) -> list[Solution]:
    """The SFT student's training samples that get step labels; none where no SORM can be made."""
    samples = ctx.read("sft_samples", Solution)
    if not has_own_orm(samples):
        return []
    return first_of_each(samples, ctx.config.reward.draft_samples)


def draw(ctx: StageContext) -> None:
    """Verifying rollouts by the SFT student from its own training samples."""
    folder = ctx.model_dir("sft")
    policy = Policy(lazy_engine(ctx, folder), layout_of(ctx, folder), task_of(ctx))
    problems = problems_by_id(ctx, "train")
    roll_out(ctx, _sft_drafts(ctx), problems, ctx.config.labels, policy)


def label(ctx: StageContext) -> None:
    """Their labels, by the run's rule."""
    found, counts = label_drafts(
        _sft_drafts(ctx),
        ctx.read("sft_rollouts", PrefixTrials),
        ctx.config.labels,
        seed=ctx.seed,
        steps=step_format(ctx.config.prompt),
    )
    ctx.write(found, StepLabels)
    ctx.count(**dataclasses.asdict(counts))


def train(ctx: StageContext) -> None:
    """The SORM of the SFT student."""
    drafts = _sft_drafts(ctx)
    if not drafts:
        ctx.progress.note("the SFT student is the final one, or has no samples to learn from")
        ctx.count(skipped=1)
        return
    labels = ctx.read("sft_labels", StepLabels)
    train_reward_model(ctx, SFT_SORM, drafts, labels, "reward.sorm", student="sft")


def sft_sorm_stages() -> tuple[Stage, ...]:
    """Rollouts, labels and SORM of the SFT student."""
    return (
        Stage(
            "sft_rollouts",
            draw,
            inputs=("sft_samples",),
            reads=(*ROLLOUTS, "reward.draft_samples"),
            opens=lambda _: ("sft",),
            estimate=rollout_tokens,
            checks=(check_engine,),
        ),
        Stage(
            "sft_labels",
            label,
            inputs=("sft_rollouts",),
            reads=(*LABELS, *BALANCE, "reward.draft_samples"),
            opens=lambda _: (),
        ),
        Stage(
            SFT_SORM,
            train,
            inputs=("base", "sft_labels"),
            reads=("reward.init", "reward.sorm", "reward.draft_samples", *HEAD),
            uses=TRAINING,
            models=(SFT_SORM,),
            opens=lambda c: ("sft",) if c.reward.init == "student" else base_opened(c),
            estimate=sorm_tokens,
            checks=(check_training("reward.sorm"), check_head),
        ),
    )


def cross(ctx: StageContext) -> None:
    """Every model on the test samples of both students, and on what it was trained on: parts
    MODEL_EI, MODEL_SFT, `seen_orm`, `seen_sorm`. What the run has scored is not scored again.
    """
    problems, train_problems = problems_by_id(ctx, "test"), problems_by_id(ctx, "train")
    for model, student in crossed_scores(ctx):
        samples = ctx.read(STUDENTS[student], Solution)
        score(ctx, model, samples, problems, part=f"{model}_{student}")
    score(ctx, ORM, ctx.read("samples", Solution), train_problems, part="seen_orm")
    score(ctx, SORM, train_drafts(ctx), train_problems, part="seen_sorm")


def crossed_scores(ctx: StageContext) -> list[tuple[str, str]]:
    """Model and student of the scores that the run does not have; none without two students."""
    if "sft_samples" not in ctx.sources or not _sft_drafts(ctx):
        return []
    return [(SFT_ORM, "EI"), (SFT_SORM, "EI"), (ORM, "SFT"), (SORM, "SFT"), (SFT_SORM, "SFT")]
