"""Stages: verifying rollouts and step labels of the training drafts (method 3)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from glore.chat_template import step_format
from glore.config import LabelSettings
from glore.engines.protocol import Engine
from glore.pipeline import StageContext, declare
from glore.prompts import PromptLayout
from glore.records import PrefixTrials, Problem, Solution, StepLabels, read_records
from glore.solutions import first_of_each
from glore.stages.checks import check_engine
from glore.stages.common import (
    drawn_by,
    layout_of,
    lazy_engine,
    problems_by_id,
    shard_size,
    task_of,
    truth_of,
)
from glore.stages.diagnoses import labels_are_of_one_kind, no_rollout_is_right
from glore.stages.estimates import rollout_tokens
from glore.tasks.protocol import Task
from glore.where import label_drafts, verify_prefixes

__all__ = [
    "BALANCE",
    "CONSISTENCY",
    "DRAWN",
    "LABELS",
    "ROLLOUTS",
    "Policy",
    "drafts_per_shard",
    "labels",
    "roll_out",
    "rollouts",
    "student_policy",
    "train_drafts",
]

CONSISTENCY = ("labels.consistency", "labels.consistency_steps")
LABELS = ("labels.propagate", *CONSISTENCY)
BALANCE = ("labels.balance", "labels.balance_within")
ROLLOUTS = (
    "labels.rollouts",
    *drawn_by("labels"),
    "labels.max_new_tokens",
    "labels.full_counts",
    *CONSISTENCY,
    "engine",
)
"""Settings that several stages read."""

DRAWN = "drawn.parquet"
"""Rollouts of an earlier attempt, regraded: `glore regrade` leaves them in the stage's work folder.
"""
STEPS_PER_DRAFT = 6
"""Prefixes tried per draft, roughly. Only the size of a shard depends on it."""


def train_drafts(ctx: StageContext) -> list[Solution]:
    """The drafts that get step labels: the first `reward.draft_samples` of every question."""
    return first_of_each(ctx.read("samples", Solution), ctx.config.reward.draft_samples)


@declare(
    "rollouts",
    inputs=("samples",),
    reads=(*ROLLOUTS, "reward.draft_samples"),
    opens=lambda _: ("student",),
    estimate=rollout_tokens,
    checks=(check_engine,),
)
def rollouts(ctx: StageContext) -> None:
    """Verifying rollouts from the prefixes of the training drafts."""
    problems = problems_by_id(ctx, "train")
    roll_out(ctx, train_drafts(ctx), problems, ctx.config.labels, student_policy(ctx))


class Policy(NamedTuple):
    """What draws and grades verifying rollouts."""

    engine: Callable[[], Engine]
    """Opens it at the first call."""
    layout: PromptLayout
    task: Task


def student_policy(ctx: StageContext) -> Policy:
    """The run's student."""
    folder = ctx.model_dir("student")
    return Policy(lazy_engine(ctx, folder), layout_of(ctx, folder), task_of(ctx))


def roll_out(
    ctx: StageContext,
    drafts: Sequence[Solution],
    problems: Mapping[str, Problem],
    settings: LabelSettings,
    policy: Policy,
    drawn: Sequence[PrefixTrials] = (),
) -> list[PrefixTrials]:
    """Rollouts with their verdicts for these drafts, committed shard by shard. `drawn`: rollouts of
    them that another stage drew in the same way; only missing ones are drawn.
    """
    engine, layout, task = policy
    kept = ctx.work_dir() / DRAWN
    own = read_records(kept, PrefixTrials) if kept.exists() else []
    known = Counter[str]()
    for trial in drawn:
        known[trial.solution_id] += trial.n_tokens

    def work(shard: Sequence[Solution]) -> list[PrefixTrials]:
        trials = verify_prefixes(
            engine(),
            task,
            problems,
            shard,
            settings,
            seed=ctx.seed,
            progress=ctx.progress,
            drawn=[*drawn, *own],
            layout=layout,
        )
        ctx.count(
            tokens=sum(t.n_tokens for t in trials) - sum(known[d.id] for d in shard),
            rollouts=sum(len(t.completions) for t in trials),
        )
        _show_balance(ctx, shard, trials, settings, layout)
        return trials

    trials = ctx.sharded(drafts, drafts_per_shard(settings), work, PrefixTrials, unit="drafts")
    ctx.warn(no_rollout_is_right(trials, drafts))
    full = sum(settings.rollouts * max(0, len(d.steps) - 1) for d in drafts)
    ctx.count(drafts=len(drafts), prefixes=len(trials), full_count_rollouts=full)
    n_cut = sum(layout.steps.read(text).n_cut > 0 for t in trials for text in t.completions)
    if n_cut:
        ctx.count(cut=n_cut)
    return trials


def _show_balance(
    ctx: StageContext,
    drafts: Sequence[Solution],
    trials: Sequence[PrefixTrials],
    settings: LabelSettings,
    layout: PromptLayout,
) -> None:
    """Add to the live curves: right rollouts, and good labels of those that the trials give."""
    if ctx.track == "none":
        return
    verdicts = [verdict for t in trials for verdict in t.correct]
    ctx.curves.share("right", verdicts.count("right"), len(verdicts))
    rule = LabelSettings(
        rollouts=settings.rollouts,
        full_counts=settings.full_counts,
        consistency=settings.consistency,
        consistency_steps=settings.consistency_steps,
        balance=False,
    )
    found, _ = label_drafts(drafts, trials, rule, seed=ctx.seed, steps=layout.steps)
    labels = [label for record in found for label in record.labels or ()]
    ctx.curves.share("good_labels", sum(labels), len(labels))


def drafts_per_shard(settings: LabelSettings) -> int:
    """Number of drafts whose rollouts are committed together."""
    return shard_size(settings.rollouts * (STEPS_PER_DRAFT if settings.full_counts else 1))


@declare(
    "labels",
    inputs=("rollouts",),
    reads=(*LABELS, *BALANCE, "reward.draft_samples"),
    opens=lambda _: (),
)
def labels(ctx: StageContext) -> None:
    """SORM labels, and the exact truth where the task knows it. Parts: `part`, `truth`."""
    drafts = train_drafts(ctx)
    found, counts = label_drafts(
        drafts,
        ctx.read("rollouts", PrefixTrials),
        ctx.config.labels,
        seed=ctx.seed,
        steps=step_format(ctx.config.prompt),
    )
    ctx.write(found, StepLabels)
    ctx.write(truth_of(ctx, drafts, problems_by_id(ctx, "train")), StepLabels, "truth")
    ctx.count(**dataclasses.asdict(counts))
    ctx.warn(labels_are_of_one_kind(counts))
