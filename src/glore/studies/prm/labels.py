"""Step labels as people give them, from the exact truth and from rollouts.

As in PRM800K, labels stop at the first mistake; or every step is judged by itself. A step is
neutral where truth and rollouts disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.records import Solution, StepLabels

__all__ = ["all_labels", "neutral_as", "neutral_steps", "until_first_mistake"]


def until_first_mistake(record: StepLabels) -> StepLabels:
    """The labels up to the first negative one, which stays; later steps are not learned."""
    if record.labels is None or record.first_error is None:
        return record
    kept = tuple(i <= record.first_error for i in range(len(record.labels)))
    return dataclasses.replace(record, kept=kept, rule="prm")


def all_labels(draft: Solution, truth: Sequence[bool]) -> StepLabels:
    """Every step judged by itself, also after the first mistake."""
    labels = tuple(truth)
    first = labels.index(False) if False in labels else None
    return StepLabels(draft.id, labels, (True,) * len(labels), first, "prm all labels")


def neutral_as(truth: StepLabels, rollouts: StepLabels, neutral: bool | None) -> StepLabels:
    """The truth, where steps on which the rollouts disagree are neutral. Neutral steps become
    `neutral`, none: they are not learned. Labels stop at the first bad step.
    """
    if truth.labels is None or rollouts.labels is None:
        return dataclasses.replace(truth, labels=None, kept=None, first_error=None)
    agreed = [a == b for a, b in zip(truth.labels, rollouts.labels, strict=True)]
    pairs = list(zip(truth.labels, agreed, strict=True))
    first = next((i for i, (good, sure) in enumerate(pairs) if sure and not good), len(pairs))
    labels = tuple(good if sure or neutral is None else neutral for good, sure in pairs)
    kept = tuple(i <= first and (sure or neutral is not None) for i, (_, sure) in enumerate(pairs))
    error = next(
        (i for i, (x, k) in enumerate(zip(labels, kept, strict=True)) if k and not x), None
    )
    return StepLabels(truth.solution_id, labels, kept, error, "prm neutral")


def neutral_steps(
    as_good: Sequence[StepLabels], as_bad: Sequence[StepLabels]
) -> dict[str, frozenset[int]]:
    """Solution id → its neutral steps, 0-based: those on which the two readings of neutral differ
    (`neutral_as` with true and with false).
    """
    return {
        a.solution_id: frozenset(
            i for i, (x, y) in enumerate(zip(a.labels or (), b.labels or (), strict=True)) if x != y
        )
        for a, b in zip(as_good, as_bad, strict=True)
    }
