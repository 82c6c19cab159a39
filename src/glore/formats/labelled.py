"""A solution with a label for every step: the one record between all layouts of files.

A label says whether the question can still be solved after the step, or whether the step is right,
as the file's authors meant it. It is hard (`True`, `False`, or `NEUTRAL`: neither, PRM800K's rating
0), soft (a probability, such as the share of right rollouts), or missing (`None`). Hard and soft
are told apart by type: `1.0` is a soft label and `True` a hard one. A label never moves to another
step: a record with more or fewer labels than steps can't be made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Final, Literal

from glore.errors import DataError, shown

__all__ = ["NEUTRAL", "Label", "LabelledSolution", "RolloutCount", "is_soft"]

NEUTRAL: Final = "neutral"
Label = bool | float | Literal["neutral"] | None
RolloutCount = tuple[int, int]
"""Right rollouts from the prefix that ends with a step, and all rollouts from it."""


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledSolution:
    """One solution of a question. `None` in a field: the file does not say."""

    question: str
    steps: tuple[str, ...]
    labels: tuple[Label, ...] | None = None
    """One per step; none if the solution has no labels at all."""
    id: str | None = None
    answer: str | None = None
    """The gold answer."""
    correct: bool | None = None
    """Is the solution's final answer right?"""
    generator: str | None = None
    """The model that wrote the solution."""
    counts: tuple[RolloutCount | None, ...] | None = None
    """Rollouts that verify each step, one entry per step."""
    kept: tuple[bool, ...] | None = None
    """Per step: is its label used in training (after balancing)? None: all are."""
    layout: str | None = None
    """The layout that `fields` belong to; none without fields."""
    fields: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """JSON values that only `layout` has a place for. They are written again in that layout."""

    def __post_init__(self) -> None:
        if not self.fields:
            object.__setattr__(self, "layout", None)
        for name in ("labels", "counts", "kept"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.steps):
                raise DataError(
                    f"{name}: {len(values)} for {len(self.steps)} steps; give one per step"
                )
        for label in self.labels or ():
            if label is not None and label != NEUTRAL and not _in_range(label):
                raise DataError(
                    f"labels: {shown(label)} is no label; give true, false, {NEUTRAL!r}, a number "
                    "from 0 to 1, or none"
                )


def is_soft(label: Label) -> bool:
    """True for a probability."""
    return isinstance(label, float)


def _in_range(label: object) -> bool:
    if isinstance(label, bool):
        return True
    return isinstance(label, float) and math.isfinite(label) and 0.0 <= label <= 1.0
