"""What one way of answering spends on one question, and what it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.decisions import Decisions
from glore.evaluation.rerank_curves import majority
from glore.records import Solution

__all__ = ["Spent", "is_right", "until_accepted", "voted"]

Scores = tuple[float, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Spent:
    """One question."""

    way: str
    step: int
    """How far the way went: samples, turns or rounds at most."""
    problem_id: str
    tokens: float
    """Sampled tokens. Tokens that models read are not counted."""
    right: float
    """1 or 0; between them, the expectation over subsets of the samples."""


def is_right(solution: Solution | None) -> float:
    """1 for a right solution."""
    return float(solution is not None and solution.correct == "right")


def voted(attempts: Sequence[Solution]) -> float:
    """1 if the majority's answer is right."""
    return is_right(majority(attempts))


def until_accepted(
    attempts: Sequence[Solution],
    scores: Sequence[Scores],
    decisions: Decisions,
    limit: int,
) -> tuple[float, float]:
    """Attempts are drawn one by one until the ORM calls one right, at most `limit` of them; the one
    with the best score is the answer. Returns the tokens, and 1 if the answer is right.
    """
    accepted = (bool(s) and not decisions.needs_work(s) for s in scores[:limit])
    n = next((i for i, is_good in enumerate(accepted, start=1) if is_good), limit)
    chosen = decisions.choose([s or None for s in scores[:n]])
    return float(sum(a.n_tokens for a in attempts[:n])), is_right(attempts[chosen])
