"""Study `when-to-stop`: thresholds for the ORM and the SORM, calibration, and what an oracle for
when, where, how or which alone would be worth (the decomposition of the paper's title, measured).

The run refines every draft and lets the ORM choose among draft, global and local refinement. Here a
gate comes first: a draft whose ORM score after its last step is above T_ORM is kept as it is. T_ORM
and T_SORM (the threshold that marks the first bad step) are swept on dev questions, the best pair
there is taken, and test questions tell what it is worth. Dev drafts, their refinements and scores
are drawn for it, and on test questions those local refinements whose mark the run did not have.

Oracles, alone and together, on test drafts:

- when: right drafts are kept, of a wrong draft the ORM chooses among its refinements;
- where: the local refinement starts at the first wrong step (truth, else labels from rollouts);
- how: a right refinement is among the candidates of a wrong draft (a right sample of the question,
  or its worked solution), and the ORM still has to choose it;
- which: the gold answer chooses.

candidates  drafts with all that a choice needs, on dev and on test
results     thresholds, oracles, calibration
views       tables, charts, sentences
"""

from __future__ import annotations

from glore.config import RunConfig
from glore.evaluation.inputs import ORM, SORM
from glore.pipeline import Stage
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING
from glore.stages.estimates import draft_tokens
from glore.studies.records import reading
from glore.studies.study import Study
from glore.studies.when_to_stop.candidates import dev_candidates, test_candidates
from glore.studies.when_to_stop.results import measure
from glore.studies.when_to_stop.views import MEASURE, charts, findings, tables

__all__ = ["STUDY"]

READS = ("evaluation.threshold", "evaluation.aggregate", "refiner.global_mark", *SAMPLING)


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """Candidates on dev and on test, then the numbers."""
    dev = Stage(
        "dev_candidates",
        dev_candidates,
        inputs=("test_refinements",),
        reads=READS,
        opens=lambda _: ("student", "refiner", ORM, SORM),
        estimate=lambda c: 4 * draft_tokens(c),
        checks=(check_engine,),
    )
    test = Stage(
        "test_candidates",
        test_candidates,
        inputs=("test_labels", "test_refinements"),
        reads=READS,
        opens=lambda _: ("refiner", ORM),
        estimate=lambda c: 2 * draft_tokens(c),
        checks=(check_engine,),
    )
    return (
        dev,
        test,
        reading(MEASURE, config, measure, inputs=("dev_candidates", "test_candidates")),
    )


STUDY = Study(
    "when-to-stop",
    "Thresholds of ORM and SORM swept on dev, calibration, and oracles for when, where, how and "
    "which (the paper's title, measured).",
    stages,
    tables,
    charts,
    findings,
)
