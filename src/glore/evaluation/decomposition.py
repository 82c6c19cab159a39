"""Which part of refinement fails: *when*, *where*, *how* or *which* (the choice), with oracles.

The pipeline is that of method 5: draft, global and local refinement, and the ORM chooses. An oracle
replaces one decision by the right one; the rest stays:

- *when*: right drafts are kept; of a wrong draft, the ORM chooses among the refinements.
- *where*: the local refinement starts at the first wrong step. No new text is drawn, so the outcome
  is known for a draft that one of the reward models marked there, and for a right draft, which
  needs no local refinement. Accuracy and difference are about these drafts alone.
- *which*: the choice by the gold answer among the same candidates (the perfect reranker of Fig. 4).

The first wrong step follows from the exact truth where the task knows it, else from the labels of
rollouts. Every wrong draft is counted under one outcome, so the shares of `losses` add up to 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from glore.decisions import CANDIDATES, LOCAL_ORM, LOCAL_SORM, MARKED_BY
from glore.evaluation.inputs import ORM, SORM, EvaluationInputs, Index
from glore.evaluation.refinement import candidates_of, chosen_by_orm
from glore.records import Solution, StepLabels
from glore.statistics import Difference, Estimate, difference_of

__all__ = [
    "ELSEWHERE",
    "FIXED",
    "HOW",
    "PIPELINE",
    "RIGHT_PLACE",
    "UNKNOWN_PLACE",
    "WHEN",
    "WHERE",
    "WHICH",
    "CopyRow",
    "Decomposition",
    "LossRow",
    "OracleRow",
    "PlaceRow",
    "decompose",
    "first_errors",
]

PIPELINE = "pipeline"
WHEN, WHERE, WHICH, HOW = "when", "where", "which", "how"
FIXED = "fixed"
UNKNOWN_PLACE = "unknown place"
RIGHT_PLACE, TOO_EARLY, TOO_LATE, NO_MARK = "right place", "too early", "too late", "no mark"
ELSEWHERE = "elsewhere"
"""Too early, too late or no mark."""


@dataclasses.dataclass(frozen=True, slots=True)
class OracleRow:
    """Accuracy of the pipeline with one decision replaced by the right one."""

    oracle: str
    """PIPELINE (none), WHEN, WHERE or WHICH."""
    accuracy: Estimate
    """n: test drafts; for WHERE, those whose outcome is known."""
    gain: Difference | None
    """Minus the pipeline on the same drafts; none for the pipeline itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class LossRow:
    """Wrong drafts by what became of them."""

    outcome: str
    """FIXED: the answer is right at last. WHEN: a refinement is right, but the ORM calls the draft
    right and keeps it. WHICH: a refinement is right, another candidate is chosen. No candidate is
    right: WHERE, if the local refinement does not start at the first wrong step; HOW, if it does;
    UNKNOWN_PLACE, if that step is not known.
    """
    share: Estimate
    """n: wrong drafts."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlaceRow:
    """Wrong drafts by where the SORM puts its mark, against the first wrong step."""

    place: str
    share: Estimate
    """n: wrong drafts whose first wrong step is known."""
    fixed: Estimate
    """Share that the local refinement from this mark fixes."""


@dataclasses.dataclass(frozen=True, slots=True)
class CopyRow:
    """How often a refiner returns a wrong draft unchanged."""

    refiner: str
    copied: Estimate
    """n: refinements of wrong drafts."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decomposition:
    """Every number about the parts of refinement."""

    first_errors: str | None
    """Where the first wrong steps come from: `truth`, `labels`, or none."""
    oracles: tuple[OracleRow, ...]
    losses: tuple[LossRow, ...]
    places: tuple[PlaceRow, ...]
    place_gain: Difference | None
    """Share fixed from the right place minus that from elsewhere: other drafts, so not paired."""
    copies: tuple[CopyRow, ...]


def decompose(inputs: EvaluationInputs, index: Index) -> Decomposition | None:
    """Records → the decomposition. None unless both refiners were tried and the ORM scored."""
    tried = {source for _, source in index.refinement_of}
    scored = any(index.step_scores(ORM, d) is not None for d in index.drafts)
    if not tried.intersection(CANDIDATES) or not scored:
        return None
    source, error_of = first_errors(inputs)
    places = {d.id: _place(index, d, error_of) for d in index.drafts if d.correct == "wrong"}
    rows, gain = _places(index, places)
    return Decomposition(
        source,
        _oracles(index, error_of),
        _losses(index, places),
        rows,
        gain,
        _copies(index),
    )


def first_errors(inputs: EvaluationInputs) -> tuple[str | None, Mapping[str, int]]:
    """The first wrong step of each wrong draft where it is known, and how it is known."""
    wrong = {d.id for d in inputs.drafts if d.correct == "wrong"}
    for name, records in (("truth", inputs.draft_truth), ("labels", inputs.draft_labels)):
        found = {r.solution_id: i for r in records if (i := _first_bad(r)) is not None}
        if wrong.intersection(found):
            return name, {i: found[i] for i in wrong.intersection(found)}
    return None, {}


def _first_bad(record: StepLabels) -> int | None:
    labels = record.labels or ()
    return next((i for i, good in enumerate(labels) if not good), None)


def _oracles(index: Index, error_of: Mapping[str, int]) -> tuple[OracleRow, ...]:
    """Accuracies and gains; drafts that could not be graded are not right, as everywhere."""
    actual: list[bool] = []
    right_of: dict[str, list[bool | None]] = {WHEN: [], WHERE: [], WHICH: []}
    for draft in index.drafts:
        candidates = candidates_of(index, draft)
        actual.append(_right(chosen_by_orm(index, candidates)))
        right_of[WHEN].append(
            _right(draft) or _right(chosen_by_orm(index, candidates[1:] or candidates))
        )
        placed = _placed(index, draft, error_of)
        right_of[WHERE].append(None if placed is None else _right(chosen_by_orm(index, placed)))
        right_of[WHICH].append(any(map(_right, candidates)))
    rows = [OracleRow(PIPELINE, index.share(index.drafts, actual), None)]
    for oracle, flags in right_of.items():
        known = [i for i, flag in enumerate(flags) if flag is not None]
        drafts, now = [index.drafts[i] for i in known], [bool(flags[i]) for i in known]
        if oracle == WHERE and not error_of:
            continue
        gain = index.resampler.paired(
            index.units(drafts), [float(x) for x in now], [float(actual[i]) for i in known]
        )
        rows.append(OracleRow(oracle, index.share(drafts, now), gain))
    return tuple(rows)


def _placed(index: Index, draft: Solution, error_of: Mapping[str, int]) -> list[Solution] | None:
    """The candidates if the local refinement starts at the first wrong step, a right draft having
    none; None where that refinement was not made.
    """
    local = index.refinement_of.get((draft.id, LOCAL_SORM))
    others = [c for c in candidates_of(index, draft) if c is not local]
    if draft.correct == "right":
        return others
    for kind in (LOCAL_SORM, LOCAL_ORM):
        made = index.refinement_of.get((draft.id, kind))
        mark = _mark(index, draft, kind)
        if made is not None and mark is not None and mark == error_of.get(draft.id):
            return [*others, made]
    return None


def _losses(index: Index, places: Mapping[str, str | None]) -> tuple[LossRow, ...]:
    wrong = [d for d in index.drafts if d.correct == "wrong"]
    outcomes = [_outcome(index, d, places[d.id]) for d in wrong]
    return tuple(
        LossRow(kind, index.share(wrong, [o == kind for o in outcomes]))
        for kind in (FIXED, WHEN, WHERE, HOW, WHICH, UNKNOWN_PLACE)
        if kind != UNKNOWN_PLACE or kind in outcomes
    )


def _outcome(index: Index, draft: Solution, place: str | None) -> str:
    candidates = candidates_of(index, draft)
    chosen = chosen_by_orm(index, candidates)
    if _right(chosen):
        return FIXED
    if any(map(_right, candidates)):
        scores = index.step_scores(ORM, draft)
        keeps = scores is not None and not index.options.needs_work(scores)
        return WHEN if chosen is draft and keeps else WHICH
    if place is None:
        return UNKNOWN_PLACE
    return HOW if place == RIGHT_PLACE else WHERE


def _place(index: Index, draft: Solution, error_of: Mapping[str, int]) -> str | None:
    """Where the SORM's mark is, against the first wrong step; None where that is not known."""
    error = error_of.get(draft.id)
    if error is None or index.step_scores(SORM, draft) is None:
        return None
    mark = _mark(index, draft, LOCAL_SORM)
    if mark is None:
        return NO_MARK
    return RIGHT_PLACE if mark == error else TOO_EARLY if mark < error else TOO_LATE


def _places(
    index: Index, places: Mapping[str, str | None]
) -> tuple[tuple[PlaceRow, ...], Difference | None]:
    known = [d for d in index.drafts if places.get(d.id) is not None]
    if not known:
        return (), None
    fixed = [_right(index.refinement_of.get((d.id, LOCAL_SORM))) for d in known]
    hit = [places[d.id] == RIGHT_PLACE for d in known]
    kinds: list[tuple[str, Sequence[bool]]] = [
        (RIGHT_PLACE, hit),
        (ELSEWHERE, [not h for h in hit]),
    ]
    kinds += [(k, [places[d.id] == k for d in known]) for k in (TOO_EARLY, TOO_LATE, NO_MARK)]
    rows = []
    for kind, flags in kinds:
        here = [d for d, flag in zip(known, flags, strict=True) if flag]
        now = [f for f, flag in zip(fixed, flags, strict=True) if flag]
        rows.append(PlaceRow(kind, index.share(known, flags), index.share(here, now)))
    both = index.resampler.estimate(
        index.units(known),
        np.asarray(
            [(f and h, h, f and not h, not h) for f, h in zip(fixed, hit, strict=True)], dtype=float
        ),
        lambda s: s[..., 0] / s[..., 1] - s[..., 2] / s[..., 3],
    )
    return tuple(rows), difference_of(both)


def _copies(index: Index) -> tuple[CopyRow, ...]:
    rows = []
    for kind in MARKED_BY:
        made = [
            (d, s)
            for d in index.drafts
            if d.correct == "wrong" and (s := index.refinement_of.get((d.id, kind))) is not None
        ]
        if made:
            share = index.share([d for d, _ in made], [d.steps == s.steps for d, s in made])
            rows.append(CopyRow(kind, share))
    return tuple(rows)


def _mark(index: Index, draft: Solution, kind: str) -> int | None:
    model = MARKED_BY[kind]
    scores = index.step_scores(model, draft) if model else None
    return None if scores is None else index.options.first_bad_step(scores)


def _right(solution: Solution | None) -> bool:
    return solution is not None and solution.correct == "right"
