"""Where to refine: labels of the stepwise outcome reward model, and the first bad step (methods 3
and 5).

first_bad      the first bad step of scored steps
consistency    whether a verifying rollout uses the results of the prefix that it continues
scan           verifying rollouts from the prefixes of drafts: backwards, to the first success
labels         rollouts → step labels, truth labels
balance        per-length balancing as a mask over steps
"""

from __future__ import annotations

from glore.where.balance import balance_mask
from glore.where.consistency import consistent_rollouts, numbers, step_result
from glore.where.first_bad import first_bad_step
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
