"""Study `pessimism`: what the reward models expect before the first step, and where the ORM is too
pessimistic (section 4.1 of the paper).

An ORM estimates the value of its student, V^π: after a right prefix it expects the student to fail
as often as the student does. A SORM estimates V*: can the question still be solved from here? So
the ORM calls right steps of hard questions bad. Measured:

- the probability at the end of the bare question, where no model was trained (its tokens are masked
  in training, as in the paper), for ORM, Balanced ORM and SORM, beside the share of right samples.
  The paper: the Balanced ORM gives about 50 % to every question;
- the same by difficulty (share of right samples of the question): does the score follow it?
- accuracy on steps before the answer line against the exact truth (else labels from rollouts), SORM
  minus ORM, by difficulty, and for two students of different strength: the final one, and the SFT
  student with its own ORM. The SORM is the run's in both, since V* does not depend on the student.

Difficulty comes from the student's K samples of the same test question. Strength: a run has two
students; runs of other sizes tell more.

results  scores of the bare question, gaps by difficulty and student
views    tables, charts, sentences
"""

from __future__ import annotations

import dataclasses

from glore.config import RunConfig
from glore.evaluation.inputs import SFT_ORM, SORM
from glore.pipeline import Stage, StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id, score_with_question, truth_of
from glore.stages.reward import has_own_orm
from glore.studies.pessimism.results import MODELS, measure
from glore.studies.pessimism.views import MEASURE, charts, findings, tables
from glore.studies.records import has_sft, reading
from glore.studies.study import Study

__all__ = ["STUDY"]


def score(ctx: StageContext) -> None:
    """Every reward model after the question and after each step of the drafts: parts by model. The
    SFT student's drafts by its own ORM and by the SORM: `sft_orm`, `sft_sorm`, and their truth.
    """
    problems = problems_by_id(ctx, "test")
    drafts = [d for d in ctx.read("test_drafts", Solution) if d.steps]
    for model in MODELS:
        score_with_question(ctx, model, drafts, problems, part=model)
    own = "sft_samples" in ctx.sources and has_own_orm(ctx.read("sft_samples", Solution))
    weaker = [d for d in ctx.read("sft_test_drafts", Solution) if d.steps] if own else []
    ctx.write(truth_of(ctx, weaker, problems), StepLabels, "sft_truth")
    for model, part in ((SFT_ORM, SFT_ORM), (SORM, "sft_sorm")):
        if weaker:
            score_with_question(ctx, model, weaker, problems, part=part)
        else:
            ctx.write([], StepScores, part)


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """The scores, then the numbers."""
    sft = ("sft_test_drafts", "sft_orm") if has_sft(config) else ()
    opened = (*MODELS, *((SFT_ORM,) if has_sft(config) else ()))
    scoring = Stage(
        "question_scores",
        score,
        inputs=("test_drafts", *MODELS, *sft),
        reads=("engine", "task"),
        opens=lambda _: opened,
        checks=(check_engine,),
    )
    measuring = reading(MEASURE, config, measure, inputs=("question_scores",))
    return scoring, dataclasses.replace(measuring, version=measuring.version + 1)


STUDY = Study(
    "pessimism",
    "What the reward models expect before the first step, and where the ORM is too pessimistic "
    "(section 4.1).",
    stages,
    tables,
    charts,
    findings,
)
