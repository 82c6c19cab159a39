"""The first bad step of a draft, from a reward model's step scores (method 5)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["first_bad_step"]


def first_bad_step(p_correct: Sequence[float], threshold: float) -> int | None:
    """0-based index of the first step with a SORM probability of at most `threshold`, or none
    (method 5).
    """
    return next((i for i, p in enumerate(p_correct) if p <= threshold), None)
