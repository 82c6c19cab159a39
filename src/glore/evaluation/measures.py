"""The main numbers of a run under plain names, each with the observations behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from glore.evaluation.inputs import EvaluationInputs, EvaluationOptions, Index
from glore.evaluation.label_agreement import TEST, label_agreement
from glore.evaluation.refinement import fixed_shares, refine_outcomes, reranked
from glore.evaluation.reward_models import INTERMEDIATE, final_accuracy, step_accuracy
from glore.evaluation.students import students
from glore.statistics import Estimate, Kept

__all__ = ["Measure", "measure"]


@dataclasses.dataclass(frozen=True, slots=True)
class Measure:
    """A share that a table of the report has."""

    table: str
    """Such as `student`, `steps`, `answers`, `fixed`, `refined`, `reranked` or `labels`."""
    what: str
    """Row and column there, such as `EI greedy`; of parts joined by a space."""
    estimate: Kept


def measure(inputs: EvaluationInputs, options: EvaluationOptions) -> list[Measure]:
    """Records → the measures of one run, in the order of reading. One that can't be computed from
    these records is left out.
    """
    index = Index(inputs, options, keeps=True)
    found = [
        *_students(inputs, index),
        *_judges(inputs, index),
        *_refinement(index),
        *_labels(inputs, index),
    ]
    return [Measure(t, what, e) for t, what, e in found if isinstance(e, Kept) and e.n]


_Found = Iterator[tuple[str, str, Estimate | None]]


def _students(inputs: EvaluationInputs, index: Index) -> _Found:
    for row in students(inputs, index):
        yield "student", f"{row.student} greedy", row.greedy
        yield "student", f"{row.student} one sample", row.sampled
        yield "student", f"{row.student} maj@{row.k}", row.majority
        yield "student", f"{row.student} Rerank@{row.k} by the ORM", row.reranked
        if row.k != 8:
            yield "student", f"{row.student} pass@8", row.pass_8
        yield "student", f"{row.student} pass@{row.k}", row.pass_k


def _judges(inputs: EvaluationInputs, index: Index) -> _Found:
    for row in step_accuracy(inputs, index)[0]:
        if row.scope == INTERMEDIATE:
            yield "steps", f"{row.model} against {row.against} balanced", row.balanced
            yield "steps", f"{row.model} against {row.against} natural", row.natural
    for row in final_accuracy(index)[0]:
        yield "answers", f"{row.model} balanced", row.balanced
        yield "answers", f"{row.model} natural", row.natural


def _refinement(index: Index) -> _Found:
    for fixed in fixed_shares(index)[0]:
        yield "fixed", " ∪ ".join(fixed.refiners), fixed.fixed
    for refined in refine_outcomes(index):
        yield "refined", f"{refined.refiner} all drafts", refined.all_drafts
        yield "refined", f"{refined.refiner} when the ORM says", refined.orm_gated
    best_of = index.options.best_of
    for way in reranked(index)[0]:
        yield "reranked", way.way.replace("best_of", f"best_of_{best_of}"), way.accuracy


def _labels(inputs: EvaluationInputs, index: Index) -> _Found:
    for row in label_agreement(inputs, index, None):
        if row.where == TEST:
            yield "labels", "agreement with the truth, natural", row.agreement
            yield "labels", "agreement with the truth, balanced", row.balanced
