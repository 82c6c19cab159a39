"""Accuracy against K: reranking by each reward model, majority vote, and pass@K (method 6, "Rerank
curves").

With n samples per question, the curve at K < n is the expectation over all their K-subsets. For
reranking and pass@K there is an exact formula: sorted by score, the sample of rank r (0-based) is
the best of a random subset with probability C(n−1−r, K−1) / C(n, K). For majority there is none; it
is the mean over a few seeded subsets (exact for K = n).
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

from glore.evaluation.inputs import REWARD_MODELS, Index
from glore.records import Solution
from glore.statistics import Estimate

__all__ = [
    "MAJORITY",
    "PASS",
    "CurvePoint",
    "grid",
    "majority",
    "majority_at_k",
    "pass_at_k",
    "rerank_at_k",
    "rerank_curves",
]

MAJORITY = "majority"
PASS = "pass"
"""At least one of the K samples is right."""

MAJORITY_SUBSETS = 16


@dataclasses.dataclass(frozen=True, slots=True)
class CurvePoint:
    """Accuracy of one way of choosing among K samples."""

    way: str
    """One of REWARD_MODELS, MAJORITY or PASS."""
    k: int
    accuracy: Estimate


def rerank_curves(index: Index) -> tuple[CurvePoint, ...]:
    """Points of all curves at K = 1, 2, 4, … and the number of samples. Questions without samples
    are left out.
    """
    sampled = [
        (d.problem_id, index.samples_of[d.problem_id])
        for d in index.drafts
        if index.samples_of.get(d.problem_id)
    ]
    if not sampled:
        return ()
    units = [index.cluster_of[problem_id] for problem_id, _ in sampled]
    groups = [samples for _, samples in sampled]
    n = min(len(g) for g in groups)
    models = [
        m for m in REWARD_MODELS if all(index.score(m, s) is not None for g in groups for s in g)
    ]
    points = []
    for k in grid(n):
        for model in models:
            points.append(
                (
                    model,
                    k,
                    [
                        rerank_at_k([index.score(model, s) or 0.0 for s in g], _rights(g), k)
                        for g in groups
                    ],
                )
            )
        points.append((MAJORITY, k, [majority_at_k(g, k, index.options.seed) for g in groups]))
        points.append((PASS, k, [pass_at_k(len(g), sum(_rights(g)), k) for g in groups]))
    return tuple(
        CurvePoint(way, k, index.resampler.mean(units, values)) for way, k, values in points
    )


def pass_at_k(n: int, n_right: int, k: int) -> float:
    """Unbiased estimate of pass@k from n samples, of which n_right are right."""
    return 1 - math.comb(n - n_right, k) / math.comb(n, k)


def rerank_at_k(scores: Sequence[float], right: Sequence[bool], k: int) -> float:
    """Probability that the sample with the best score among k random ones is right. Ties: the
    lowest index.
    """
    n = len(scores)
    order = sorted(range(n), key=lambda i: (-scores[i], i))
    total = math.comb(n, k)
    return sum(math.comb(n - 1 - rank, k - 1) / total for rank, i in enumerate(order) if right[i])


def majority(
    samples: Sequence[Solution], weights: Sequence[float] | None = None
) -> Solution | None:
    """The first sample with the most frequent answer, or with the largest sum of weights. Ties: the
    answer that comes first. None: no sample has an answer.
    """
    counts: dict[str, float] = {}
    for s, weight in zip(samples, weights or [1.0] * len(samples), strict=True):
        if s.answer is not None:
            counts[s.answer] = counts.get(s.answer, 0.0) + weight
    if not counts:
        return None
    most = max(counts.values())
    return next(s for s in samples if s.answer is not None and counts[s.answer] == most)


def majority_at_k(
    samples: Sequence[Solution], k: int, seed: int, weights: Sequence[float] | None = None
) -> float:
    """Chance that the majority of k random samples is right, weighted or not. `seed` draws the
    subsets: for k below the number of samples the chance is a mean over a few of them.
    """
    n = len(samples)
    if k == n:
        subsets = [list(range(n))]
    else:
        # Seeded by the question alone, so another question does not change its subsets.
        rng = random.Random(f"{seed}/{samples[0].problem_id}/{k}")
        subsets = [sorted(rng.sample(range(n), k)) for _ in range(MAJORITY_SUBSETS)]
    voted = [
        majority(
            [samples[i] for i in subset],
            None if weights is None else [weights[i] for i in subset],
        )
        for subset in subsets
    ]
    return sum(v is not None and v.correct == "right" for v in voted) / len(voted)


def grid(n: int) -> list[int]:
    """1, 2, 4, … and n."""
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def _rights(samples: Sequence[Solution]) -> list[bool]:
    return [s.correct == "right" for s in samples]
