"""The training drafts labelled in several ways, and a SORM on each, for the study
`postprocessing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glore.chat_template import step_format
from glore.config import LabelSettings
from glore.evaluation.inputs import SORM
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution, StepLabels
from glore.stages.checks import check_training
from glore.stages.common import problems_by_id, score
from glore.stages.estimates import sorm_tokens
from glore.stages.fine_tuning import TRAINING, base_opened
from glore.stages.labelling import train_drafts
from glore.stages.reward import train_reward_model
from glore.stages.reward_training import HEAD, check_head
from glore.studies.full_counts import full_rollouts
from glore.where import label_drafts

__all__ = [
    "AS_USED",
    "RUN",
    "STUDENTS",
    "VARIANTS",
    "label",
    "model_of",
    "score_relabelled",
    "sorm",
    "variants",
]

AS_USED, RUN = "as used", "the run's SORM"
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "propagated": {"propagate": True},
    "not propagated": {"propagate": False, "full_counts": True},
    "numbers of all steps": {"consistency": "number", "consistency_steps": "all"},
    "substrings (paper)": {"consistency": "substring", "consistency_steps": "all"},
    "last step alone": {"consistency": "number", "consistency_steps": "last"},
    "no consistency": {"consistency": "off"},
    "balanced": {"balance": True},
    "not balanced": {"balance": False},
}
"""Name → what differs from the run's labelling. Those that differ in nothing are left out."""
STUDENTS = {"EI": "test_samples", "SFT": "sft_test_samples"}


def variants(rule: LabelSettings) -> dict[str, LabelSettings]:
    """The labellings to compare: as used, and each with one change."""
    found = {AS_USED: rule}
    for name, change in VARIANTS.items():
        changed = rule.model_copy(update=dict(change))
        if any(
            getattr(rule, key) != value for key, value in change.items() if key != "full_counts"
        ):
            found[name] = changed
    return found


def model_of(name: str) -> str:
    """The folder of a labelling's SORM."""
    return "sorm_" + "_".join("".join(c if c.isalnum() else " " for c in name).split())


def label(ctx: StageContext) -> None:
    """A part of labels for each labelling."""
    drafts, trials = train_drafts(ctx), ctx.read(full_rollouts.name, PrefixTrials)
    steps = step_format(ctx.config.prompt)
    for name, rule in variants(ctx.config.labels).items():
        found = label_drafts(drafts, trials, rule, seed=ctx.seed, steps=steps)
        ctx.write(found.labels, StepLabels, model_of(name))
        n_bad = sum(not x for r in found.labels for x in r.labels or ())
        ctx.count(**{f"bad_{model_of(name)}": n_bad})


def sorm(name: str) -> Stage:
    """The SORM of a labelling."""

    def train(ctx: StageContext) -> None:
        labels = ctx.read("relabelled", StepLabels, model_of(name))
        train_reward_model(ctx, model_of(name), train_drafts(ctx), labels, "reward.sorm")

    return Stage(
        model_of(name),
        train,
        inputs=("base", "relabelled"),
        reads=("reward.init", "reward.sorm", "reward.draft_samples", *HEAD),
        uses=TRAINING,
        models=(model_of(name),),
        opens=lambda c: ("student",) if c.reward.init == "student" else base_opened(c),
        estimate=sorm_tokens,
        checks=(check_training("reward.sorm"), check_head),
    )


def score_relabelled(ctx: StageContext, samples: Sequence[str]) -> None:
    """Every SORM on the test drafts and samples. Parts: SET_MODEL."""
    problems = problems_by_id(ctx, "test")
    models = [name for name in ctx.sources if name == SORM or name.startswith("sorm_")]
    for source in ("test_drafts", *samples):
        solutions = ctx.read(source, Solution)
        for model in models:
            score(ctx, model, solutions, problems, part=f"{source}_{model}")
