"""How well step scores agree with the labels of a file: steps judged right, and ProcessBench's F1,
with 95 % intervals over questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glore.formats.labelled import Label
from glore.solution_files.answers import question_key
from glore.statistics import Estimate, FloatArray, Resampler
from glore.where import first_bad_step

__all__ = ["FirstErrors", "Judged", "first_errors", "step_accuracy"]

Labels = Sequence[Label] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """Steps with a hard label; a step is called good if its score is above the threshold."""

    natural: Estimate
    """Share judged right."""
    balanced: Estimate
    """Mean of the recalls of good and bad steps."""


@dataclasses.dataclass(frozen=True, slots=True)
class FirstErrors:
    """Whether the first wrong step is found (ProcessBench, Zheng et al. 2024)."""

    wrong: Estimate
    """Of the solutions with a wrong step: share whose first step called bad is that step."""
    right: Estimate
    """Of those without: share in which no step is called bad."""
    f1: Estimate
    """Harmonic mean of the two."""


def step_accuracy(
    questions: Sequence[str],
    labels: Sequence[Labels],
    scores: Sequence[Sequence[float]],
    threshold: float = 0.5,
) -> Judged:
    """Labels and scores of the solutions of these questions → accuracy over the steps whose label
    is true or false.
    """
    units: list[str] = []
    pairs: list[tuple[bool, bool]] = []
    for question, given, p in zip(questions, labels, scores, strict=True):
        for label, value in zip(given or (), p, strict=bool(given)):
            if isinstance(label, bool):
                units.append(question_key(question))
                pairs.append((label, value > threshold))
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    good, called = table[:, 0], table[:, 1]
    columns = np.stack([good * called, good, (1 - good) * (1 - called), 1 - good], axis=1)
    estimate = Resampler(units).estimate
    return Judged(
        estimate(units, columns, lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3])),
        estimate(units, columns, lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2),
    )


def first_errors(
    questions: Sequence[str],
    labels: Sequence[Labels],
    scores: Sequence[Sequence[float]],
    threshold: float = 0.5,
) -> FirstErrors:
    """The solutions whose labels tell the first wrong step, or that there is none → ProcessBench's
    numbers. Solutions with a step without a hard label before that are left out.
    """
    units: list[str] = []
    rows: list[tuple[float, float, float, float]] = []
    for question, given, p in zip(questions, labels, scores, strict=True):
        if not given:
            continue
        first = next((i for i, x in enumerate(given) if x is False), None)
        if not all(x is True for x in given[:first]):
            continue
        hit = float(first_bad_step(p, threshold) == first)
        units.append(question_key(question))
        rows.append((hit, 1.0, 0.0, 0.0) if first is not None else (0.0, 0.0, hit, 1.0))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    estimate = Resampler(units).estimate
    wrong = estimate(units, table, lambda s: s[..., 0] / s[..., 1])
    right = estimate(units, table, lambda s: s[..., 2] / s[..., 3])
    return FirstErrors(
        dataclasses.replace(wrong, n=int(table[:, 1].sum())),
        dataclasses.replace(right, n=int(table[:, 3].sum())),
        estimate(units, table, _harmonic),
    )


def _harmonic(sums: FloatArray) -> FloatArray:
    wrong, right = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    both = wrong + right
    mean: FloatArray = np.where(both > 0, 2 * wrong * right / np.where(both > 0, both, 1), both)
    return mean
