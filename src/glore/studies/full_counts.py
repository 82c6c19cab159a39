"""Full counts of the run's training drafts: all K rollouts from every prefix. Several studies read
them; the run's own scan ends at the first success, and what it drew is not drawn again.
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.pipeline import StageContext, declare
from glore.records import PrefixTrials
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, problems_by_id
from glore.stages.estimates import rolled_out_tokens
from glore.stages.labelling import ROLLOUTS, roll_out, student_policy, train_drafts
from glore.stages.workload import workload

__all__ = ["full_rollouts"]


def _tokens(config: RunConfig) -> int:
    n_train = workload(config).questions["train"]
    questions = min(n_train, config.reward.questions or n_train)
    drafts = questions * config.reward.draft_samples
    return rolled_out_tokens(config, drafts, config.labels.rollouts)


@declare(
    "full_rollouts",
    inputs=("rollouts", "student"),
    reads=(*ROLLOUTS, "reward.draft_samples", *SAMPLING),
    opens=lambda _: ("student",),
    estimate=_tokens,
    checks=(check_engine,),
)
def full_rollouts(ctx: StageContext) -> None:
    """All K rollouts from every prefix of the training drafts, right drafts included."""
    settings = ctx.config.labels.model_copy(update={"full_counts": True})
    roll_out(
        ctx,
        train_drafts(ctx),
        problems_by_id(ctx, "train"),
        settings,
        student_policy(ctx),
        drawn=ctx.read("rollouts", PrefixTrials),
    )
