"""What one way of answering spends on one question, and what it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.decisions import Decisions
from glore.evaluation.inputs import ORM
from glore.evaluation.rerank_curves import majority
from glore.pipeline import StageContext
from glore.records import Solution, StepScores

__all__ = [
    "Scores",
    "Spent",
    "decisions_of",
    "is_right",
    "orm_scores",
    "sample_numbers",
    "until_accepted",
    "voted",
]

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
    accepted = (not decisions.needs_work(s) for s in scores[:limit])
    n = next((i for i, is_good in enumerate(accepted, start=1) if is_good), limit)
    chosen = decisions.choose([s or None for s in scores[:n]])
    return float(sum(a.n_tokens for a in attempts[:n])), is_right(attempts[chosen])


def sample_numbers(k: int) -> list[int]:
    """Numbers of samples to measure: all up to 16, then every eighth, and all k."""
    return sorted({*range(1, min(k, 16) + 1), *range(24, k, 8), k})


def decisions_of(ctx: StageContext) -> Decisions:
    """The run's decisions."""
    settings = ctx.config.evaluation
    return Decisions(threshold=settings.threshold, aggregate=settings.aggregate)


def orm_scores(ctx: StageContext) -> dict[str, Scores]:
    """Of drafts, refinements and samples, by the id of the solution."""
    scores = [
        *ctx.read("test_draft_scores", StepScores, ORM),
        *ctx.read("test_scores", StepScores, f"refined_{ORM}"),
        *ctx.read("test_scores", StepScores, f"samples_{ORM}"),
    ]
    return {s.solution_id: s.p_correct for s in scores}
