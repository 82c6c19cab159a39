"""What the study `postprocessing` measures: labels, step accuracy, reranking of each labelling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glore.evaluation import EvaluationInputs
from glore.evaluation.inputs import SORM, Index
from glore.evaluation.rerank_curves import rerank_at_k
from glore.pipeline import StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.solutions import by_problem
from glore.statistics import Difference, Estimate, FloatArray, Resampler, difference_of
from glore.studies.measured import Measured, difference, number, share
from glore.studies.postprocessing.relabelled import AS_USED, RUN, STUDENTS, model_of, variants

__all__ = ["CURVES", "TABLE", "measure"]

TABLE, CURVES = "postprocessing", "postprocessing-curves"


def measure(ctx: StageContext, inputs: EvaluationInputs, index: Index) -> list[Measured]:
    """A row for each labelling: agreement, step accuracy, reranking; differences to `as used`."""
    models = {RUN: SORM, **{n: model_of(n) for n in variants(ctx.config.labels)}}
    truth = {r.solution_id: r.labels for r in inputs.train_truth}
    problem_of = {d.id: d.problem_id for d in inputs.train_drafts}
    found: list[Measured] = []
    judged = {name: _judged(ctx, inputs, index, model) for name, model in models.items()}
    reranked = {
        name: {s: _reranked(ctx, index, source, model) for s, source in STUDENTS.items()}
        for name, model in models.items()
    }
    for name, model in models.items():
        if name != RUN:
            labels = ctx.read("relabelled", StepLabels, model)
            pairs = [
                (problem_of[r.solution_id], float(a == b))
                for r in labels
                for a, b in zip(r.labels or (), truth.get(r.solution_id) or (), strict=False)
            ]
            found.append(share(TABLE, name, "labels right", _over(pairs, ctx)))
            kept = [
                x for r in labels for x, k in zip(r.labels or (), r.kept or (), strict=True) if k
            ]
            found.append(number(TABLE, name, "bad of the steps learned, %", _percent(kept)))
        else:
            found += [share(TABLE, name, "labels right", None)]
        found += _judgements(index, name, judged[name], judged[AS_USED])
        for student, of_k in reranked[name].items():
            if not of_k:
                continue
            k_max = max(of_k)
            units = [u for u, _ in of_k[k_max]]
            mean = index.resampler.mean(units, [v for _, v in of_k[k_max]])
            found.append(share(TABLE, name, f"{student}, rerank of {k_max}", mean))
            gain = _paired(index, of_k[k_max], reranked[AS_USED][student][k_max], name)
            found.append(difference(TABLE, name, f"{student}, − as used", gain))
            for k, values in of_k.items():
                estimate = index.resampler.mean([u for u, _ in values], [v for _, v in values])
                found.append(share(f"{CURVES}-{student}", name, "right", estimate, x=k))
    return found


Values = list[tuple[str, float]]
"""Cluster and value of each unit."""


def _judged(
    ctx: StageContext, inputs: EvaluationInputs, index: Index, model: str
) -> list[tuple[str, bool, float]]:
    """Steps before the answer line of the test drafts: cluster, truth (else label), probability."""
    against = inputs.draft_truth or inputs.draft_labels
    exact = {r.solution_id: r.labels for r in against}
    scores = {
        s.solution_id: s.p_correct
        for s in ctx.read("relabelled_scores", StepScores, f"test_drafts_{model}")
    }
    return [
        (index.cluster_of[d.problem_id], true, p)
        for d in index.drafts
        for true, p in list(zip(exact.get(d.id) or (), scores.get(d.id, ()), strict=False))[:-1]
    ]


def _judgements(
    index: Index,
    name: str,
    steps: Sequence[tuple[str, bool, float]],
    used: Sequence[tuple[str, bool, float]],
) -> list[Measured]:
    if not steps:
        return []
    units = [u for u, _, _ in steps]
    t = index.options.threshold

    def columns(of: Sequence[tuple[str, bool, float]]) -> FloatArray:
        rows = [(good and p > t, good, not good and p <= t, not good) for _, good, p in of]
        return np.asarray(rows, dtype=np.float64)

    mine = columns(steps)
    natural, balanced = (
        index.resampler.estimate(units, mine, f)
        for f in (
            lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3]),
            lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2,
        )
    )
    both = index.resampler.estimate(
        units,
        np.concatenate([mine, columns(used)], axis=1),
        lambda s: ((s[..., 0] - s[..., 4]) / s[..., 1] + (s[..., 2] - s[..., 6]) / s[..., 3]) / 2,
    )
    gain = None if name == AS_USED else difference_of(both)
    return [
        share(TABLE, name, "steps judged right", natural),
        share(TABLE, name, "class-balanced", balanced),
        difference(TABLE, name, "balanced − as used", gain),
    ]


def _reranked(ctx: StageContext, index: Index, source: str, model: str) -> dict[int, Values]:
    """K → per question, the chance that the best of K samples by this model is right."""
    if source not in ctx.sources:
        return {}
    samples = by_problem(ctx.read(source, Solution))
    if not samples:
        return {}
    scores = {
        s.solution_id: index.options.score(s.p_correct)
        for s in ctx.read("relabelled_scores", StepScores, f"{source}_{model}")
    }
    n = min(map(len, samples.values()))
    ks = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    return {
        k: [
            (
                index.cluster_of[p],
                rerank_at_k([scores[s.id] for s in g], [s.correct == "right" for s in g], k),
            )
            for p, g in samples.items()
        ]
        for k in ks
    }


def _paired(index: Index, first: Values, second: Values, name: str) -> Difference | None:
    if name == AS_USED:
        return None
    units = [u for u, _ in first]
    return index.resampler.paired(units, [v for _, v in first], [v for _, v in second])


def _over(pairs: Values, ctx: StageContext) -> Estimate:
    n_draws = ctx.config.evaluation.bootstrap_samples
    resampler = Resampler([u for u, _ in pairs], n_draws=n_draws, seed=ctx.seed, keeps=True)
    return resampler.mean([u for u, _ in pairs], [v for _, v in pairs])


def _percent(labels: Sequence[bool]) -> float | None:
    return 100 * sum(not x for x in labels) / len(labels) if labels else None
