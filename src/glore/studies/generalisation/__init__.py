"""Study `generalisation`: do reward models carry over to another student's samples, and from
training to test questions (App. E)?

Crossed: an ORM and a SORM of each student (the final one after expert iteration, EI; the fine-tuned
one, SFT), each trained on its own student's samples, rerank the test samples of both. The run has
both ORMs and the SORM of the final student. The SFT student's SORM is made here: that student's
verifying rollouts of its own training samples, labels by the run's rule, a training with the run's
settings.

Overfitting: accuracy on final answers (threshold as in the run) of training solutions, which the
ORM has seen, and of test samples, which it has not; the share of right training solutions called
wrong (the paper: a 7B ORM calls 42 % of them wrong); for the SORM, accuracy on the labels of its
training steps and on those of test drafts. Training solutions are drawn at `reward.temperature`,
test samples at `evaluation.temperature`.

Crossing needs an SFT student that is not the final one. Otherwise overfitting alone is measured.

sft_sorm  rollouts and a SORM of the SFT student, scores of the other student's samples
results   reranking, judging, overfitting
views     tables, charts, sentences
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.evaluation.inputs import ORM, SFT_ORM, SORM
from glore.pipeline import Stage
from glore.stages.checks import check_engine
from glore.studies.generalisation.results import measure
from glore.studies.generalisation.sft_sorm import SFT_SORM, cross, sft_sorm_stages
from glore.studies.generalisation.views import MEASURE, charts, findings, tables
from glore.studies.records import has_sft, reading
from glore.studies.study import Study

__all__ = ["SFT_SORM", "STUDY", "sft_sorm_stages"]


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """The SFT student's SORM, the crossed scores, the numbers."""
    own = sft_sorm_stages() if has_sft(config) else ()
    made = (SFT_SORM,) if own else ()
    crossing = Stage(
        "crossed_scores",
        cross,
        inputs=("test_scores", "labels", *made),
        reads=("engine", "reward.draft_samples"),
        opens=lambda _: (ORM, SORM, *((SFT_ORM, SFT_SORM) if own else ())),
        checks=(check_engine,),
    )
    return (*own, crossing, reading(MEASURE, config, measure, inputs=("crossed_scores",)))


STUDY = Study(
    "generalisation",
    "Reward models of each student crossed over both students' samples, and training against test "
    "solutions (App. E).",
    stages,
    tables,
    charts,
    findings,
)
