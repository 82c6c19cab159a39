"""Table 5: the student after SFT and after expert iteration, each reranked by an ORM trained on its
own samples (paper, caption).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.evaluation.inputs import ORM, SFT_ORM, EvaluationInputs, Index
from glore.evaluation.rerank_curves import majority, pass_at_k, rerank_at_k
from glore.records import Solution
from glore.solutions import by_problem
from glore.statistics import Difference, Estimate

__all__ = ["EI", "SFT", "StudentRow", "ei_gain", "students"]

SFT, EI = "SFT", "EI"
"""The students: after supervised fine-tuning, after expert iteration."""

PASS_AT = 8


@dataclasses.dataclass(frozen=True, slots=True)
class StudentRow:
    """One student on the test questions. K is the number of samples per question."""

    student: str
    """SFT or EI."""
    k: int
    greedy: Estimate
    """maj@1."""
    sampled: Estimate | None
    """Mean accuracy of one sample at the sampling temperature."""
    majority: Estimate | None
    """maj@K."""
    reranked: Estimate | None
    """Rerank@K by the ORM trained on this student's own samples; none if it did not score them."""
    pass_k: Estimate | None
    """pass@K."""
    pass_8: Estimate | None
    """pass@8, unbiased; none for K < 8."""
    n_unknown: int
    """Greedy solutions that could not be graded (counted as not right)."""


def students(inputs: EvaluationInputs, index: Index) -> tuple[StudentRow, ...]:
    """One row for every student with greedy solutions, SFT first."""
    rows = (
        (SFT, inputs.sft_drafts, inputs.sft_samples, SFT_ORM),
        (EI, inputs.drafts, inputs.samples, ORM),
    )
    return tuple(
        _row(index, name, drafts, samples, orm) for name, drafts, samples, orm in rows if drafts
    )


def ei_gain(inputs: EvaluationInputs, index: Index) -> Difference | None:
    """Greedy accuracy, EI minus SFT, on the questions that both answered."""
    sft_of = {d.problem_id: d for d in inputs.sft_drafts}
    both = [(d, sft_of[d.problem_id]) for d in index.drafts if d.problem_id in sft_of]
    if not both:
        return None
    first, second = ([float(pair[i].correct == "right") for pair in both] for i in (0, 1))
    return index.resampler.paired(index.units([d for d, _ in both]), first, second)


def _row(
    index: Index, name: str, drafts: Sequence[Solution], samples: Sequence[Solution], orm: str
) -> StudentRow:
    groups = by_problem([s for s in samples if s.problem_id in index.cluster_of])
    units = [index.cluster_of[problem_id] for problem_id in groups]
    rights = [[s.correct == "right" for s in g] for g in groups.values()]
    k = min((len(g) for g in groups.values()), default=0)
    mean = index.resampler.mean
    answered = [d for d in drafts if d.problem_id in index.cluster_of]
    voted = [majority(g) for g in groups.values()]
    scores = [[index.score(orm, s) for s in g] for g in groups.values()]
    scored = bool(groups) and all(s is not None for row in scores for s in row)
    chosen = (
        [
            rerank_at_k([s or 0.0 for s in row], right, len(row))
            for row, right in zip(scores, rights, strict=True)
        ]
        if scored
        else []
    )
    return StudentRow(
        student=name,
        k=k,
        greedy=index.share(answered, [d.correct == "right" for d in answered]),
        sampled=mean(units, [sum(r) / len(r) for r in rights]) if groups else None,
        majority=mean(units, [float(v is not None and v.correct == "right") for v in voted])
        if groups
        else None,
        reranked=mean(units, chosen) if scored else None,
        pass_k=mean(units, [float(any(r)) for r in rights]) if groups else None,
        pass_8=mean(units, [pass_at_k(len(r), sum(r), PASS_AT) for r in rights])
        if k >= PASS_AT
        else None,
        n_unknown=sum(d.correct == "unknown" for d in answered),
    )
