"""What the study `generalisation` measures: reranking, judging, training against test solutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import ORM, SFT_ORM, SORM, Index
from glore.evaluation.rerank_curves import majority, pass_at_k, rerank_at_k
from glore.pipeline import StageContext
from glore.records import Solution, StepScores
from glore.solutions import by_problem
from glore.statistics import Estimate, FloatArray, Resampler, ratio
from glore.studies.generalisation.sft_sorm import SFT_SORM, crossed_scores
from glore.studies.measured import Measured, difference, share

__all__ = ["CROSSED", "JUDGED", "OVERFIT", "SEEN", "UNSEEN", "measure"]

CROSSED, JUDGED, OVERFIT = "generalisation-rerank", "generalisation-judged", "generalisation-seen"
NAMES = {ORM: "ORM_EI", SFT_ORM: "ORM_SFT", SORM: "SORM_EI", SFT_SORM: "SORM_SFT"}
SEEN, UNSEEN = "training", "test"


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """Crossed reranking and judging; overfitting."""
    found = _overfitting(ctx, inputs, index)
    crossed = crossed_scores(ctx)
    if not crossed:
        return found
    scores: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {
        (model, student): {
            s.solution_id: s.p_correct
            for s in ctx.read("crossed_scores", StepScores, f"{model}_{student}")
        }
        for model, student in crossed
    }
    run = {(s.model, s.solution_id): s.p_correct for s in inputs.scores}
    groups = {"EI": by_problem(inputs.samples), "SFT": by_problem(inputs.sft_samples)}
    for model, student in ((ORM, "EI"), (SORM, "EI"), (SFT_ORM, "SFT")):
        ids = [s.id for g in groups[student].values() for s in g]
        scores[model, student] = {i: run[model, i] for i in ids}
    for student, group in groups.items():
        found += _reranked(index, student, group, scores)
        found += _judged(index, student, group, scores)
    return found


def _reranked(
    index: Index,
    student: str,
    groups: Mapping[str, Sequence[Solution]],
    scores: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]],
) -> list[Measured]:
    units = [index.cluster_of[p] for p in groups]
    n = min(map(len, groups.values()))
    right = {p: [s.correct == "right" for s in g] for p, g in groups.items()}

    def chosen(model: str) -> list[float]:
        of = scores[model, student]
        return [
            rerank_at_k([index.options.score(of[s.id]) for s in g], right[p], len(g))
            for p, g in groups.items()
        ]

    mean, paired = index.resampler.mean, index.resampler.paired
    column = f"{student} samples"
    voted = [majority(g) for g in groups.values()]
    plain = {
        "one sample": [sum(r) / len(r) for r in right.values()],
        "majority": [float(v is not None and v.correct == "right") for v in voted],
        "pass@K": [pass_at_k(len(r), sum(r), n) for r in right.values()],
    }
    found = [share(CROSSED, name, column, mean(units, v)) for name, v in plain.items()]
    values = {model: chosen(model) for model in NAMES}
    for model, v in values.items():
        found.append(share(CROSSED, NAMES[model], column, mean(units, v)))
    for kind, pair in (("ORM", (ORM, SFT_ORM)), ("SORM", (SORM, SFT_SORM))):
        own, other = pair if student == "EI" else pair[::-1]
        name = f"{kind}: of this student − of the other"
        found.append(difference(CROSSED, name, column, paired(units, values[own], values[other])))
    return found


def _judged(
    index: Index,
    student: str,
    groups: Mapping[str, Sequence[Solution]],
    scores: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]],
) -> list[Measured]:
    """Final answers of the samples, class-balanced."""
    found = []
    for model, name in NAMES.items():
        of = scores[model, student]
        cases = [
            (index.cluster_of[p], s.correct == "right", _last(of[s.id]))
            for p, g in groups.items()
            for s in g
            if s.correct != "unknown"
        ]
        balanced = _balanced(index.resampler, cases, index.options.threshold)
        found.append(share(JUDGED, name, f"{student} samples", balanced))
    return found


def _overfitting(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    t, seed = index.options.threshold, index.options.seed
    seen = {s.solution_id: s.p_correct for s in ctx.read("crossed_scores", StepScores, "seen_orm")}
    training = [s for s in ctx.read("samples", Solution) if s.correct != "unknown"]
    test = [s for s in inputs.samples if s.correct != "unknown"]
    test_scores = {s.solution_id: s.p_correct for s in inputs.scores if s.model == ORM}
    found: list[Measured] = []
    n_draws = index.options.bootstrap_samples
    train_units = Resampler(
        [s.problem_id for s in training], n_draws=n_draws, seed=seed, keeps=True
    )
    sides: list[tuple[str, Resampler, list[tuple[str, bool, float]]]] = [
        (
            SEEN,
            train_units,
            [(s.problem_id, s.correct == "right", _last(seen[s.id])) for s in training],
        ),
        (
            UNSEEN,
            index.resampler,
            [
                (index.cluster_of[s.problem_id], s.correct == "right", _last(test_scores[s.id]))
                for s in test
            ],
        ),
    ]
    for side, resampler, cases in sides:
        found += _seen(resampler, "ORM, final answers", side, cases, t)
    sorm_seen = {
        s.solution_id: s.p_correct for s in ctx.read("crossed_scores", StepScores, "seen_sorm")
    }
    drafts = {d.id: d for d in inputs.train_drafts}
    steps = [
        (drafts[r.solution_id].problem_id, good, p)
        for r in inputs.train_labels
        for good, p in list(zip(r.labels or (), sorm_seen[r.solution_id], strict=False))[:-1]
    ]
    of = {d.id: d for d in index.drafts}
    test_steps = [
        (index.cluster_of[of[r.solution_id].problem_id], good, p)
        for r in inputs.draft_labels
        if r.solution_id in of
        for good, p in list(
            zip(r.labels or (), index.step_scores(SORM, of[r.solution_id]) or (), strict=False)
        )[:-1]
    ]
    found += _seen(train_units, "SORM, labels of steps", SEEN, steps, t)
    return found + _seen(index.resampler, "SORM, labels of steps", UNSEEN, test_steps, t)


def _seen(
    resampler: Resampler, name: str, side: str, cases: Sequence[tuple[str, bool, float]], t: float
) -> list[Measured]:
    if not cases:
        return []
    units = [u for u, _, _ in cases]
    right = resampler.mean(units, [float(good == (p > t)) for _, good, p in cases])
    good = [(u, p) for u, is_good, p in cases if is_good]
    missed = resampler.mean([u for u, _ in good], [float(p <= t) for _, p in good])
    row = (name, side)
    return [
        share(OVERFIT, row, "judged right", right),
        share(OVERFIT, row, "class-balanced", _balanced(resampler, cases, t)),
        share(OVERFIT, row, "right ones called wrong", missed),
    ]


def _balanced(resampler: Resampler, cases: Sequence[tuple[str, bool, float]], t: float) -> Estimate:
    columns_UM = np.asarray(
        [(good and p > t, good, not good and p <= t, not good) for _, good, p in cases],
        dtype=np.float64,
    )

    def recalls(sums: FloatArray) -> FloatArray:
        mean: FloatArray = (ratio(sums[..., :2]) + ratio(sums[..., 2:])) / 2
        return mean

    return resampler.estimate([u for u, _, _ in cases], columns_UM, recalls)


def _last(p: Sequence[float]) -> float:
    return p[-1] if p else 0.0
