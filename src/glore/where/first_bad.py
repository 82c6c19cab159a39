"""Step scores of a reward model → the first bad step of a draft (method 5)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_bad_step"]


def first_bad_step(p_correct: Sequence[float], threshold: float) -> int | None:
    """0-based index of the first step with a probability of at most `threshold`, or none."""
    return next((i for i, p in enumerate(p_correct) if p <= threshold), None)
