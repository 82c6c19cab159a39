"""Study `labels`: how good step labels from verifying rollouts are, and what they cost (App. G).

Labels of the test drafts against the exact truth. K rollouts are drawn at every step of every draft
(those of the run are used again), and labels are derived from the first 1, 2, 4, … K of them:

- agreement, false positives (a false step labelled good) and false negatives, against K;
- by position in the solution, and by what the step is: true in a right draft, true before the
  first error, the first error (by kind, `error_kinds`), after it;
- the backward scan against full counts: the labels are the same; rollouts and tokens differ.

A step is true if no step up to it is false. Assumes a task that knows the truth of steps; without,
the costs alone are measured. The paper found 94 % on 257 steps labelled by hand.

results  agreement by K, position and kind of step; costs
views    tables, charts, sentences
"""

from __future__ import annotations

from pydantic import Field

from glore.config import RunConfig, Settings
from glore.pipeline import Stage, StageContext
from glore.records import PrefixTrials, Solution
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id
from glore.stages.estimates import rolled_out_tokens
from glore.stages.labelling import ROLLOUTS, roll_out, student_policy
from glore.stages.workload import workload
from glore.studies.labels.results import DRAWN, MEASURE, first_rollouts, measure, scan_cost
from glore.studies.labels.views import charts, findings, tables
from glore.studies.records import reading
from glore.studies.study import Study

__all__ = ["STUDY", "LabelsSettings", "first_rollouts", "scan_cost"]


class LabelsSettings(Settings):
    """Of the study `labels`."""

    rollouts: int = Field(32, ge=1, le=1024)
    """Most rollouts at a step."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, LabelsSettings)
    own: dict[str, object] = {"rollouts": settings.rollouts}

    def draw(ctx: StageContext) -> None:
        """All K rollouts at every step of the test drafts. Those of the run are not drawn again."""
        labels = ctx.config.labels
        k = max(settings.rollouts, labels.rollouts)
        rule = labels.model_copy(update={"full_counts": True, "rollouts": k})
        roll_out(
            ctx,
            ctx.read("test_drafts", Solution),
            problems_by_id(ctx, "test"),
            rule,
            student_policy(ctx),
            drawn=ctx.read("test_rollouts", PrefixTrials),
        )

    def new_tokens(config: RunConfig) -> int:
        drawn = config.labels.rollouts if config.evaluation.label_full_counts else 0
        k = max(0, max(settings.rollouts, config.labels.rollouts) - drawn)
        return rolled_out_tokens(config, workload(config).questions["test"], k)

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        drawing = Stage(
            DRAWN,
            draw,
            inputs=("test_labels",),
            reads=ROLLOUTS,
            opens=lambda _: ("student",),
            estimate=new_tokens,
            checks=(check_engine,),
            own=own,
        )
        return (drawing, reading(MEASURE, config, measure, inputs=(DRAWN,), own=own))

    return Study(
        "labels",
        "Step labels from rollouts against the exact truth: by K, position and kind of step, and "
        "what a labelled draft costs (App. G).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


STUDY = study(LabelsSettings())
