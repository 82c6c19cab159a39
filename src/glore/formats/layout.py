"""What a layout of files is: how its rows are told from others', read and written, and what they
can hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from glore.formats.fields import Fields
from glore.formats.labelled import LabelledSolution

__all__ = [
    "COUNTS",
    "KEPT",
    "MISSING_LABELS",
    "NEUTRAL_LABELS",
    "NO_LABELS",
    "PLACEHOLDER",
    "SOFT_LABELS",
    "Layout",
    "ReadOptions",
    "UnfitError",
    "WriteOptions",
]

SOFT_LABELS: Final = "soft labels"
NEUTRAL_LABELS: Final = "neutral labels"
MISSING_LABELS: Final = "steps without a label"
NO_LABELS: Final = "solutions without labels"
COUNTS: Final = "counts"
KEPT: Final = "kept"

PLACEHOLDER = "ки"
"""The token at which Math-Shepherd's models predict a step's label (Wang et al. 2023)."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows are read."""

    placeholder: str = PLACEHOLDER
    """Ends each step in layouts whose placeholder can be chosen."""


@dataclasses.dataclass(frozen=True, slots=True)
class WriteOptions:
    """How solutions are written."""

    placeholder: str = PLACEHOLDER
    threshold: float | None = None
    """Soft labels above it become good where a layout has hard labels only; none refuses them."""
    neutral: str = "good"
    """What a neutral label becomes where a layout has none: `good`, `bad` or `missing`."""
    missing: str = "leave_out"
    """A solution with steps without a label, where the layout has none: `leave_out`, or `cut` after
    its last labelled step if all steps before have a label.
    """
    columnar: bool = False
    """Is it a Parquet file, all rows of which have the same types?"""


class UnfitError(Exception):
    """A solution that a layout has no place for. It is left out and counted by the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """One layout of files with step labels."""

    name: str
    title: str
    """Whose it is, and its main fields."""
    detects: Callable[[Fields], bool]
    """Do the names and types of a row's fields fit?"""
    read: Callable[[Fields, ReadOptions], Iterable[LabelledSolution]]
    """A row → its solutions (several in PRM800K). Raises FieldError."""
    write: Callable[[LabelledSolution, WriteOptions], dict[str, object]]
    """A solution → a row. Its labels are of kinds that the layout holds. Raises UnfitError, and
    DataError for a text that the layout would read as something else.
    """
    holds: frozenset[str] = frozenset()
    """Kinds of labels and names of fields that survive, besides question, steps and hard labels."""
    loses: Callable[[LabelledSolution], str | None] = lambda solution: None
    """What else is lost of a solution, in words."""
