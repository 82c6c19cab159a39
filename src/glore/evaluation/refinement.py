"""Table 3, Fig. 3 and Fig. 4: drafts that refinement fixes or breaks, accuracy after reranking.

Wrong drafts are those graded `wrong`; ungraded ones are counted separately. A draft without a step
at or below the threshold has no local refinement: it stays, and is counted. A refinement that could
not be graded is not right, and is counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.decisions import CANDIDATES, GLOBAL, LOCAL_ORM, LOCAL_SORM, MARKED_BY, Decisions
from glore.evaluation.inputs import ORM, REFINERS, Index
from glore.records import Solution
from glore.statistics import Difference, Estimate

__all__ = [
    "BEST_OF",
    "GREEDY",
    "PERFECT",
    "PERFECT_BEST_OF",
    "RERANKED",
    "FixedDifference",
    "FixedRow",
    "Overlap",
    "RefineRow",
    "RerankDifference",
    "RerankRow",
    "candidates_of",
    "chosen_by",
    "chosen_by_orm",
    "fixed_shares",
    "overlap",
    "refine_outcomes",
    "reranked",
]

UNIONS = ((GLOBAL, LOCAL_ORM), CANDIDATES)

GREEDY = "greedy"
BEST_OF = "best_of"
"""The best of K samples by the ORM."""
RERANKED = "reranked"
"""Draft, global and local refinement; the ORM chooses."""
PERFECT = "perfect"
"""The same three with a perfect reranker."""
PERFECT_BEST_OF = "perfect_best_of"


@dataclasses.dataclass(frozen=True, slots=True)
class FixedRow:
    """Table 3: share of wrong drafts that at least one of the refiners makes right."""

    refiners: tuple[str, ...]
    fixed: Estimate
    """n: wrong drafts."""
    n_without: int
    """Wrong drafts for which one of the refiners made no refinement."""
    n_unknown: int
    """Refinements of wrong drafts that could not be graded."""


@dataclasses.dataclass(frozen=True, slots=True)
class FixedDifference:
    """Paired difference of two rows of Table 3 on the same wrong drafts."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    difference: Difference


@dataclasses.dataclass(frozen=True, slots=True)
class RefineRow:
    """Fig. 3: one refiner applied without a reranker. The four counts add up to the drafts."""

    refiner: str
    all_drafts: Estimate
    """Accuracy when every draft is replaced by its refinement."""
    only_wrong: Estimate
    """Accuracy when only drafts that are not right are replaced (a perfect judge of when)."""
    orm_gated: Estimate | None
    """Accuracy when the ORM decides which drafts are replaced; none without an ORM."""
    fixed: int
    broken: int
    still_right: int
    still_wrong: int
    unrefined: int
    """Drafts without a refinement by this refiner."""


@dataclasses.dataclass(frozen=True, slots=True)
class RerankRow:
    """Fig. 4: one way to arrive at an answer."""

    way: str
    """GREEDY, BEST_OF, RERANKED, PERFECT or PERFECT_BEST_OF."""
    accuracy: Estimate


@dataclasses.dataclass(frozen=True, slots=True)
class RerankDifference:
    """Paired difference of two ways on the same questions."""

    first: str
    second: str
    difference: Difference


@dataclasses.dataclass(frozen=True, slots=True)
class Overlap:
    """Wrong drafts by the refiner that fixes them: global, local (marked by the SORM)."""

    both: int
    only_global: int
    only_local: int
    neither: int


def fixed_shares(index: Index) -> tuple[tuple[FixedRow, ...], tuple[FixedDifference, ...]]:
    """Table 3: rows, then paired differences. No reranker."""
    present = _present(index)
    wrong = [d for d in index.drafts if d.correct == "wrong"]
    groups = [(r,) for r in present] + [u for u in UNIONS if set(u) <= set(present)]
    rows, fixed_of = [], {}
    for group in groups:
        refined = [[index.refinement_of.get((d.id, r)) for r in group] for d in wrong]
        fixed_of[group] = [any(_right(s) for s in found) for found in refined]
        n_unknown = sum(
            s is not None and s.correct == "unknown" for found in refined for s in found
        )
        n_without = sum(any(s is None for s in found) for found in refined)
        rows.append(FixedRow(group, index.share(wrong, fixed_of[group]), n_without, n_unknown))
    pairs: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(u, (r,)) for u in UNIONS for r in u]
    pairs += [((LOCAL_SORM,), (LOCAL_ORM,)), ((LOCAL_SORM,), (GLOBAL,))]
    units = index.units(wrong)
    compared = [
        FixedDifference(
            a,
            b,
            index.resampler.paired(
                units, [float(x) for x in fixed_of[a]], [float(x) for x in fixed_of[b]]
            ),
        )
        for a, b in pairs
        if a in fixed_of and b in fixed_of
    ]
    return tuple(rows), tuple(compared)


def refine_outcomes(index: Index) -> tuple[RefineRow, ...]:
    """Fig. 3: one row for every refiner that was tried."""
    return tuple(_refine_row(index, refiner) for refiner in _present(index))


def _refine_row(index: Index, refiner: str) -> RefineRow:
    before = [d.correct == "right" for d in index.drafts]
    made = [index.refinement_of.get((d.id, refiner)) for d in index.drafts]
    after = [b if s is None else _right(s) for b, s in zip(before, made, strict=True)]
    scores = [index.step_scores(ORM, d) for d in index.drafts]
    gated = [
        a if p is not None and index.options.needs_work(p) else b
        for a, b, p in zip(after, before, scores, strict=True)
    ]
    return RefineRow(
        refiner=refiner,
        all_drafts=index.share(index.drafts, after),
        only_wrong=index.share(index.drafts, [b or a for a, b in zip(after, before, strict=True)]),
        orm_gated=index.share(index.drafts, gated) if any(p is not None for p in scores) else None,
        fixed=sum(a and not b for a, b in zip(after, before, strict=True)),
        broken=sum(b and not a for a, b in zip(after, before, strict=True)),
        still_right=sum(a and b for a, b in zip(after, before, strict=True)),
        still_wrong=sum(not a and not b for a, b in zip(after, before, strict=True)),
        unrefined=sum(s is None for s in made),
    )


def candidates_of(index: Index, draft: Solution) -> list[Solution]:
    """The reranker's candidates, in this order: draft, global, local marked by the SORM. Missing
    ones are left out.
    """
    refined = (index.refinement_of.get((draft.id, r)) for r in CANDIDATES)
    return [draft, *(s for s in refined if s is not None)]


def chosen_by_orm(index: Index, candidates: Sequence[Solution]) -> Solution:
    """The ORM's choice, as `chosen_by` with the options of the index."""
    return chosen_by(index, candidates, ORM, index.options)


def chosen_by(
    index: Index, candidates: Sequence[Solution], model: str, decisions: Decisions
) -> Solution:
    """The choice of one of REWARD_MODELS. A candidate without scores can't win. Ties: the first."""
    return candidates[decisions.choose([index.step_scores(model, c) for c in candidates])]


def reranked(index: Index) -> tuple[tuple[RerankRow, ...], tuple[RerankDifference, ...]]:
    """Fig. 4: rows, then paired differences. Empty without an ORM or without refinements."""
    if not _present(index) or not any(index.score(ORM, d) is not None for d in index.drafts):
        return (), ()
    right_of: dict[str, list[bool]] = {
        GREEDY: [],
        BEST_OF: [],
        RERANKED: [],
        PERFECT: [],
        PERFECT_BEST_OF: [],
    }
    for draft in index.drafts:
        candidates = candidates_of(index, draft)
        sampled = index.samples_of.get(draft.problem_id, [])[: index.options.best_of]
        right_of[GREEDY].append(_right(draft))
        right_of[RERANKED].append(_right(chosen_by_orm(index, candidates)))
        right_of[PERFECT].append(any(_right(c) for c in candidates))
        right_of[BEST_OF].append(bool(sampled) and _right(chosen_by_orm(index, sampled)))
        right_of[PERFECT_BEST_OF].append(any(_right(s) for s in sampled))
    if not any(index.samples_of.get(d.problem_id) for d in index.drafts):
        del right_of[BEST_OF], right_of[PERFECT_BEST_OF]
    units = index.units(index.drafts)
    pairs = [
        (RERANKED, GREEDY),
        (RERANKED, BEST_OF),
        (PERFECT, RERANKED),
        (PERFECT, BEST_OF),
        (PERFECT, PERFECT_BEST_OF),
    ]
    compared = [
        RerankDifference(
            a,
            b,
            index.resampler.paired(
                units, [float(x) for x in right_of[a]], [float(x) for x in right_of[b]]
            ),
        )
        for a, b in pairs
        if a in right_of and b in right_of
    ]
    return tuple(
        RerankRow(way, index.share(index.drafts, right)) for way, right in right_of.items()
    ), tuple(compared)


def overlap(index: Index) -> Overlap | None:
    """Wrong drafts by the refiner that fixes them; none unless both refiners were tried."""
    if not set(CANDIDATES) <= set(_present(index)):
        return None
    wrong = [d for d in index.drafts if d.correct == "wrong"]
    fixed = [tuple(_right(index.refinement_of.get((d.id, r))) for r in CANDIDATES) for d in wrong]
    return Overlap(
        fixed.count((True, True)),
        fixed.count((True, False)),
        fixed.count((False, True)),
        fixed.count((False, False)),
    )


def _present(index: Index) -> list[str]:
    """Refiners that were tried. A local one belongs to them even if its model marked no draft, so
    that its row says so.
    """
    sources = {source for _, source in index.refinement_of}
    marked = {
        kind
        for kind, model in MARKED_BY.items()
        if model and any(index.step_scores(model, d) is not None for d in index.drafts)
    }
    return [r for r in REFINERS if r in sources | marked] if sources else []


def _right(solution: Solution | None) -> bool:
    return solution is not None and solution.correct == "right"
