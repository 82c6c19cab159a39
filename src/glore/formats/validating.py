"""The faults of a file: line, field and rule of each."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from glore.errors import DataError
from glore.formats.joined import JOINED
from glore.formats.labelled import NEUTRAL, Label, LabelledSolution, is_soft
from glore.formats.layout import PLACEHOLDER
from glore.formats.reading import open_file

__all__ = ["MAX_FAULTS", "Validation", "validate_file"]

MAX_FAULTS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class Validation:
    """What a file holds, and what is wrong with it."""

    layout: str
    n_rows: int
    n_solutions: int
    n_steps: int
    labels: Mapping[str, int]
    """Kind of label → steps with it."""
    n_joined: int
    """Solutions whose question can't be told from the first step."""
    n_faults: int
    faults: tuple[str, ...]
    """The first of them, as `FILE, line 7: labels: …`."""


def validate_file(
    path: Path,
    layout: str | None = None,
    *,
    placeholder: str = PLACEHOLDER,
    max_faults: int = MAX_FAULTS,
) -> Validation:
    """Read a whole file and collect its faults; memory is bounded by one row and `max_faults`.

    Raises DataError for a file that can't be read at all, and if no layout or several fit.
    """
    reading = open_file(path, layout, placeholder=placeholder)
    n_rows = n_solutions = n_steps = n_joined = n_faults = 0
    labels: Counter[str] = Counter()
    faults: list[str] = []
    try:
        for row in reading.rows:
            n_rows += 1
            if row.fault is not None:
                n_faults += 1
                if len(faults) < max_faults:
                    faults.append(f"{row.where}: {row.fault}")
            for solution in row.solutions:
                n_solutions += 1
                n_steps += len(solution.steps)
                n_joined += not solution.question and reading.layout.name in JOINED
                labels.update(map(_kind, _labels(solution)))
    except DataError as error:  # the file can't be read further
        n_faults += 1
        faults.append(str(error))
    return Validation(
        reading.layout.name,
        n_rows,
        n_solutions,
        n_steps,
        dict(labels),
        n_joined,
        n_faults,
        tuple(faults),
    )


def _labels(solution: LabelledSolution) -> tuple[Label, ...]:
    return solution.labels if solution.labels is not None else (None,) * len(solution.steps)


def _kind(label: Label) -> str:
    if label is None:
        return "missing"
    if is_soft(label):
        return "soft"
    return NEUTRAL if label == NEUTRAL else "good" if label else "bad"
