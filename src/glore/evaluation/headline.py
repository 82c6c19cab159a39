"""The numbers that a summary quotes, found in an evaluation. None: the run has no such number."""

from __future__ import annotations

from glore.decisions import CANDIDATES
from glore.evaluation.inputs import ORM, SORM
from glore.evaluation.label_agreement import AS_USED, AgreementRow
from glore.evaluation.refinement import RERANKED
from glore.evaluation.result import Evaluation
from glore.evaluation.reward_models import INTERMEDIATE, JudgeDifference, JudgeRow
from glore.evaluation.students import EI, StudentRow
from glore.statistics import Difference, Estimate

__all__ = [
    "accuracy",
    "expert",
    "fixed_by_both",
    "gain",
    "judging_answers",
    "judging_steps",
    "label_rule",
    "sorm_steps",
]


def accuracy(e: Evaluation, way: str) -> Estimate | None:
    """Fig. 4: accuracy of one way to answer."""
    return next((r.accuracy for r in e.figure4 if r.way == way), None)


def gain(e: Evaluation, over: str) -> Difference | None:
    """Fig. 4: accuracy of refining and reranking, minus that of the way `over`."""
    return next(
        (d.difference for d in e.figure4_differences if (d.first, d.second) == (RERANKED, over)),
        None,
    )


def fixed_by_both(e: Evaluation) -> Estimate | None:
    """Table 3: share of wrong drafts that global or local refinement fixes."""
    return next((r.fixed for r in e.table3 if r.refiners == CANDIDATES), None)


def sorm_steps(e: Evaluation) -> JudgeRow | None:
    """Table 1: the SORM on steps before the answer line; against labels if there are any, else
    against the truth.
    """
    return next((r for r in e.table1 if (r.model, r.scope) == (SORM, INTERMEDIATE)), None)


def judging_steps(e: Evaluation) -> JudgeDifference | None:
    """Table 1: SORM minus ORM on steps before the answer line; against labels if there are any,
    else against the truth.
    """
    return next(
        (
            d
            for d in e.table1_differences
            if (d.first, d.second, d.scope) == (SORM, ORM, INTERMEDIATE)
        ),
        None,
    )


def judging_answers(e: Evaluation) -> JudgeDifference | None:
    """Table 2: SORM minus ORM on final answers."""
    return next((d for d in e.table2_differences if (d.first, d.second) == (SORM, ORM)), None)


def label_rule(e: Evaluation) -> AgreementRow | None:
    """App. G: the labels of this run against the exact truth; of training drafts if there are any,
    else of test drafts.
    """
    return next((r for r in e.agreement if r.rule == AS_USED), None)


def expert(e: Evaluation) -> StudentRow | None:
    """Table 5: the student after expert iteration."""
    return next((r for r in e.table5 if r.student == EI), None)
