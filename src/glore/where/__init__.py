"""Where to refine: the stepwise outcome reward model, its labels, and "which step is the first bad one?" (methods 3, 5).

consistency    does a verifying rollout use the results of the prefix it continues?
scan           verifying rollouts from the prefixes of drafts, backwards, ending at the first success
labels         rollouts → step labels, truth labels
balance        per-length balancing as a mask over steps
"""

from __future__ import annotations

from collections.abc import Sequence

from glore.where.balance import balance_mask
from glore.where.consistency import consistent_rollouts, numbers, step_result
from glore.where.labels import LabelCounts, LabelledDrafts, good_traces, label_drafts, truth_labels
from glore.where.scan import expected_rollouts, verify_prefixes

__all__ = [
    "LabelCounts",
    "LabelledDrafts",
    "balance_mask",
    "consistent_rollouts",
    "expected_rollouts",
    "first_bad_step",
    "good_traces",
    "label_drafts",
    "numbers",
    "step_result",
    "truth_labels",
    "verify_prefixes",
]


def first_bad_step(p_correct: Sequence[float], threshold: float) -> int | None:
    """0-based index of the first step with a SORM probability of at most `threshold`, or none (method 5)."""
    return next((i for i, p in enumerate(p_correct) if p <= threshold), None)
