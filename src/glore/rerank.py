"""Step scores → one score per solution; scores → the chosen candidate (method 5, App. D).

Left out: majority and weighted votes, which need answers as well (`glore.evaluation`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

__all__ = ["AGGREGATES", "aggregate", "choose"]


def aggregate(p_correct: Sequence[float], how: str) -> float:
    """L step probabilities of a solution → its score in [0, ∞). `how`: a key of `AGGREGATES`.

    A solution without steps scores 0. `weighted_mean_literal` is the paper's printed formula, which
    is no mean and may exceed 1. Raises ValueError for an unknown `how`.
    """
    if how not in AGGREGATES:
        raise ValueError(f"aggregate must be one of {', '.join(AGGREGATES)}, got {how!r}")
    return AGGREGATES[how](p_correct) if p_correct else 0.0


def choose(scores: Sequence[float]) -> int:
    """Index of the best score, the lowest index on ties. Raises ValueError without scores."""
    if not scores:
        raise ValueError("choose needs at least one score, got none")
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def _final(s: Sequence[float]) -> float:
    return s[-1]


def _mean(s: Sequence[float]) -> float:
    return math.fsum(s) / len(s)


def _weighted_mean(s: Sequence[float]) -> float:
    """Σ i·s_i / Σ i with i from 1: later steps weigh more."""
    return math.fsum(i * p for i, p in enumerate(s, 1)) / (len(s) * (len(s) + 1) / 2)


def _weighted_mean_literal(s: Sequence[float]) -> float:
    """Σ s_i / (L − i + 1) with i from 1."""
    return math.fsum(p / (len(s) - i + 1) for i, p in enumerate(s, 1))


def _mean_last_two(s: Sequence[float]) -> float:
    return _mean(s[-2:])


AGGREGATES: Mapping[str, Callable[[Sequence[float]], float]] = MappingProxyType(
    {
        "final": _final,
        "mean": _mean,
        "weighted_mean": _weighted_mean,
        "weighted_mean_literal": _weighted_mean_literal,
        "min": min,
        "product": math.prod,
        "mean_last_two": _mean_last_two,
    }
)
"""Every aggregate of App. D, by its name in `evaluation.aggregate`."""
