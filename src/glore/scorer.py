"""What inference needs of a reward model, whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from glore.engines.protocol import check_scores
from glore.errors import ModelError, shown

__all__ = ["Scorer", "checked_scores"]

Steps = tuple[str, ...]
Scores = tuple[float, ...]


class Scorer(Protocol):
    """A reward model: (question, steps) → probability after every step."""

    def score(self, items: Sequence[tuple[str, Steps]]) -> list[Scores]:
        """One tuple of L probabilities per item, in their order."""
        ...


def checked_scores(name: str, scorer: Scorer, items: Sequence[tuple[str, Steps]]) -> list[Scores]:
    """What a reward model says, checked: it may be anybody's. Raises ModelError."""
    scores = scorer.score(items)
    for (question, steps), values in zip(items, scores, strict=True):
        if len(values) != len(steps):
            raise ModelError(
                f"the {name} gave {len(values)} scores for {len(steps)} steps of "
                f"{shown(question, 60)}; it must give one for each"
            )
        check_scores(name, question, values)
    return scores
