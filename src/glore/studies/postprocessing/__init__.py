"""Study `postprocessing`: what each step of the SORM's label processing is worth (method 3; Fig. 4
of the paper's first version, there on the SFT student).

One SORM is trained for each labelling of the same training drafts:

- as used in the run; without and with positive propagation;
- consistency of rollouts on number boundaries, as a literal substring (the paper), of the last
  step's result alone, and off;
- without and with balancing per length.

Labels without propagation need all K rollouts at every step, so these are drawn first (those of the
run are used again). Every SORM starts from the same weights, has the run's settings (`reward.sorm`)
and its own order of the rows, since the seed of a training is that of its stage. Measured:
agreement of the labels with the exact truth, step accuracy on the test drafts against the truth,
and reranking of the student's samples at every K. The SORM of the run itself stands beside them: it
differs from `as used` by the seed alone, and so shows how much of a difference is noise.

relabelled  the labellings, a SORM on each, its scores
results     labels, steps, reranking
views       tables, charts, sentences
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.evaluation.inputs import SORM
from glore.pipeline import Stage
from glore.stages.checks import check_engine
from glore.stages.labelling import LABELS
from glore.studies.full_counts import full_rollouts
from glore.studies.postprocessing.relabelled import (
    STUDENTS,
    VARIANTS,
    label,
    model_of,
    score_relabelled,
    sorm,
    variants,
)
from glore.studies.postprocessing.results import measure
from glore.studies.postprocessing.views import MEASURE, charts, findings, tables
from glore.studies.records import has_sft, reading
from glore.studies.study import Study

__all__ = ["STUDY", "VARIANTS"]


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """Full counts, labels, a SORM for each labelling, their scores, the numbers."""
    models = [model_of(name) for name in variants(config.labels)]
    relabelling = Stage(
        "relabelled",
        label,
        inputs=(full_rollouts.name,),
        reads=(*LABELS, "labels", "reward.draft_samples"),
        opens=lambda _: (),
    )
    samples = [s for s in STUDENTS.values() if has_sft(config) or not s.startswith("sft")]
    scoring = Stage(
        "relabelled_scores",
        lambda ctx: score_relabelled(ctx, samples),
        inputs=("test_drafts", *samples, SORM, *models),
        reads=("engine",),
        opens=lambda _: (SORM, *models),
        checks=(check_engine,),
    )
    measuring = reading(MEASURE, config, measure, inputs=("relabelled_scores", "relabelled"))
    return (full_rollouts, relabelling, *map(sorm, variants(config.labels)), scoring, measuring)


STUDY = Study(
    "postprocessing",
    "SORMs on labels with and without propagation, consistency and balancing (Fig. 4 of the "
    "paper's first version).",
    stages,
    tables,
    charts,
    findings,
)
