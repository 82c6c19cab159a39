"""Stages: samples of the training questions, and the reward models (method 2)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from glore.errors import RunError
from glore.pipeline import StageContext, declare
from glore.prompts import PromptLayout
from glore.records import Problem, Solution, StepLabels
from glore.seeds import stable_seed
from glore.stages.checks import check_engine, check_training
from glore.stages.common import (
    SAMPLING,
    drawn_by,
    layout_of,
    problems_by_id,
    sample,
    seeded_choice,
    step_scorer,
)
from glore.stages.diagnoses import (
    judges_every_step_alike,
)
from glore.stages.estimates import orm_tokens, sample_tokens, sorm_tokens, unless_student
from glore.stages.expert_iteration import chosen_round
from glore.stages.fine_tuning import (
    TRAINING,
    count_training,
    longer,
    training_settings,
)
from glore.stages.labelling import train_drafts
from glore.stages.reward_training import (
    HEAD,
    check_head,
    head_of,
    reward_setup,
    start_of,
    start_opened,
)
from glore.step_head import BINARY, NEUTRAL_CLASS, StepHead
from glore.when import balanced_solutions, orm_labels

if TYPE_CHECKING:
    from glore.training.examples import StepExample

__all__ = [
    "balanced_orm",
    "has_own_orm",
    "orm",
    "samples",
    "sft_orm",
    "sft_samples",
    "sorm",
    "train_on_steps",
    "train_reward_model",
]

SAMPLES = ("reward.questions", "reward.samples", *drawn_by("reward"), *SAMPLING)
ORM = ("reward.init", "reward.orm", *HEAD)
CHECKED = 200
"""Training solutions that a new reward model scores, to see whether it tells steps apart."""


@declare(
    "samples",
    inputs=("problems", "student"),
    reads=SAMPLES,
    opens=lambda _: ("student",),
    estimate=sample_tokens,
    checks=(check_engine,),
)
def samples(ctx: StageContext) -> None:
    """K solutions of every chosen training question from the student."""
    _sample_train_questions(ctx, "student")


@declare(
    "sft_samples",
    inputs=("student",),
    reads=SAMPLES,
    opens=lambda _: ("sft",),
    estimate=unless_student("sft", sample_tokens),
    checks=(check_engine,),
)
def sft_samples(ctx: StageContext) -> None:
    """K solutions of the same questions from the SFT model; none if that is the student itself."""
    if chosen_round(ctx)[0] == 0:
        ctx.progress.note("the student is the SFT model, so its samples and its ORM are the run's")
        ctx.write([], Solution)
        ctx.count(skipped=1)
        return
    _sample_train_questions(ctx, "sft")


def _sample_train_questions(ctx: StageContext, model: str) -> None:
    reward = ctx.config.reward
    problems = seeded_choice(ctx, ctx.read("problems", Problem, "train"), reward.questions)
    sample(
        ctx,
        ctx.model_dir(model),
        problems,
        source=model,
        n=reward.samples,
        drawn=reward,
    )


@declare(
    "orm",
    inputs=("base", "samples"),
    reads=ORM,
    uses=TRAINING,
    models=("orm",),
    delivers=("orm",),
    opens=start_opened,
    estimate=orm_tokens,
    checks=(check_training("reward.orm"), check_head),
)
def orm(ctx: StageContext) -> None:
    """ORM: every step has the label of the final answer."""
    drafts = ctx.read("samples", Solution)
    train_reward_model(ctx, "orm", drafts, orm_labels(drafts), "reward.orm")


@declare(
    "sft_orm",
    inputs=("base", "sft_samples"),
    reads=ORM,
    uses=TRAINING,
    models=("sft_orm",),
    opens=lambda c: start_opened(c, "sft"),
    estimate=unless_student("sft", orm_tokens),
    checks=(check_training("reward.orm"), check_head),
)
def sft_orm(ctx: StageContext) -> None:
    """The ORM of the SFT student, trained on that student's own samples, for Table 5.

    It is skipped if the SFT model is the student itself. It is also skipped, with a note, if its
    samples are all right or all wrong: Table 5 then lacks one number, and the run continues.
    """
    drafts = ctx.read("sft_samples", Solution)
    if not has_own_orm(drafts):
        if drafts:
            ctx.progress.note(
                "the samples of the SFT model are all right or all wrong, so it has no ORM of its "
                "own, and Table 5 shows no Rerank for it"
            )
        ctx.count(skipped=1)
        return
    train_reward_model(ctx, "sft_orm", drafts, orm_labels(drafts), "reward.orm", student="sft")


def has_own_orm(samples: Sequence[Solution]) -> bool:
    """Whether an ORM can learn from these samples: at least one is right and one is wrong."""
    return {"right", "wrong"} <= {s.correct for s in samples if s.steps}


@declare(
    "balanced_orm",
    inputs=("base", "samples"),
    reads=ORM,
    uses=TRAINING,
    models=("balanced_orm",),
    opens=start_opened,
    estimate=orm_tokens,
    checks=(check_training("reward.orm"), check_head),
)
def balanced_orm(ctx: StageContext) -> None:
    """Balanced ORM: the same on as many right as wrong solutions of every question."""
    drafts = balanced_solutions(ctx.read("samples", Solution), ctx.seed)
    train_reward_model(
        ctx, "balanced_orm", drafts, orm_labels(drafts, "balanced_orm"), "reward.orm"
    )


@declare(
    "sorm",
    inputs=("base", "labels"),
    reads=("reward.init", "reward.sorm", "reward.draft_samples", *HEAD),
    uses=TRAINING,
    models=("sorm",),
    delivers=("sorm",),
    opens=start_opened,
    estimate=sorm_tokens,
    checks=(check_training("reward.sorm"), check_head),
)
def sorm(ctx: StageContext) -> None:
    """SORM: step labels from verifying rollouts."""
    train_reward_model(
        ctx, "sorm", train_drafts(ctx), ctx.read("labels", StepLabels), "reward.sorm"
    )


def train_reward_model(
    ctx: StageContext,
    name: str,
    solutions: Sequence[Solution],
    labels: Sequence[StepLabels],
    section: str,
    student: str = "student",
    epochs: float | None = None,
    head: StepHead | None = None,
    neutral: Mapping[str, Collection[int]] = MappingProxyType({}),
) -> None:
    """Train `models/NAME` on labelled solutions of training questions, with the settings at
    `section`. A solution may come several times, with other labels. `epochs`: in place of that
    setting; `head`: in place of the run's. `neutral`: solution id → its neutral steps, 0-based, for
    a head of three classes. Raises RunError where there are no good or no bad steps. Studies train
    so too.
    """
    from glore.training.examples import StepExample

    problems = problems_by_id(ctx, "train")
    start = start_of(ctx, student)
    layout = layout_of(ctx, start)
    examples = [
        StepExample(
            prompt=layout.solve(problems[s.problem_id].question),
            steps=tuple(map(layout.steps.text, s.steps)),
            labels=tuple(
                NEUTRAL_CLASS if i in neutral.get(s.id, ()) else label
                for i, label in enumerate(r.labels)
            ),
            kept=r.kept,
        )
        for s, r in zip(solutions, labels, strict=True)
        if r.labels is not None and r.kept is not None and any(r.kept)
    ]
    train_on_steps(ctx, name, examples, section, start, layout, epochs, head)
    _check_trained(ctx, name, section, problems, solutions, labels)


def train_on_steps(
    ctx: StageContext,
    name: str,
    examples: Sequence[StepExample],
    section: str,
    start: str | Path,
    layout: PromptLayout,
    epochs: float | None = None,
    head: StepHead | None = None,
) -> None:
    """Train `models/NAME` from `start` on steps written in `layout`, whatever they are of.
    `epochs`, `head` and errors: as in `train_reward_model`.
    """
    from glore.training.finetune import train_step_classifier

    head = head or head_of(ctx.config)
    learned = [x for e in examples for x, kept in zip(e.labels, e.kept, strict=True) if kept]
    n_neutral = learned.count(NEUTRAL_CLASS)
    n_bad = sum(not label for label in learned)
    n_good = len(learned) - n_bad - n_neutral
    if head.n_classes > len(BINARY.names):
        ctx.count(neutral_steps=n_neutral)
        if not n_neutral:
            ctx.progress.note(f"the {name} has three classes, and no step of its labels is neutral")
    if not n_good or not n_bad:
        fix = (
            "never right; use a stronger base.model or easier questions, fine-tune harder "
            "(student.sft.learning_rate), or draw more samples (reward.samples)"
            if not n_good
            else "always right; choose harder questions, or draw more samples (reward.samples)"
        )
        raise RunError(
            f"the {name} has {n_good} good and {n_bad} bad steps to learn from and needs both: the "
            f"student is {fix}"
        )
    ctx.count(good_steps=n_good, bad_steps=n_bad)
    setup = reward_setup(ctx, name, section, layout, head)
    settings = training_settings(ctx, section)
    if epochs is not None:
        settings = settings.model_copy(update={"epochs": epochs})
    count_training(ctx, train_step_classifier(start, examples, settings, setup, head))


def _check_trained(
    ctx: StageContext,
    name: str,
    section: str,
    problems: Mapping[str, Problem],
    solutions: Sequence[Solution],
    labels: Sequence[StepLabels],
) -> None:
    """Warn if the new reward model gives every training step one class."""
    pairs = [(s, r.labels) for s, r in zip(solutions, labels, strict=True) if r.labels and s.steps]
    pairs.sort(key=lambda pair: stable_seed(ctx.seed, "check trained", pair[0].id))
    checked = pairs[:CHECKED]
    items = [(problems[s.problem_id].question, s.steps) for s, _ in checked]
    scores = step_scorer(ctx, name)(items)
    training = longer(ctx, section)
    ctx.warn(judges_every_step_alike(name, training, scores, [found for _, found in checked]))
