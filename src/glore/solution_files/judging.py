"""How well step scores agree with what a file says of its solutions: steps judged right,
ProcessBench's F1, and right solutions scored above wrong ones, with 95 % intervals over questions.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from glore.evaluation.ranking import concordant
from glore.formats.labelled import Label
from glore.solution_files.answers import question_key
from glore.statistics import Estimate, FloatArray, Resampler, Statistic, ratio
from glore.where import first_bad_step

__all__ = ["Agreement", "FirstErrors", "Judged", "Ranked"]


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


@dataclasses.dataclass(frozen=True, slots=True)
class Ranked:
    """Whether right solutions are scored above wrong ones of the same question."""

    above: Estimate
    """Share of the pairs by the last step's score, a tie counting half; 0.5 is chance. n: questions
    with a pair.
    """
    n_pairs: int


@dataclasses.dataclass(slots=True)
class _OfQuestion:
    """What is kept of the solutions of one question."""

    steps: list[int] = dataclasses.field(default_factory=lambda: [0] * 4)
    """Good steps called good, good steps, bad steps called bad, bad steps."""
    first: list[int] = dataclasses.field(default_factory=lambda: [0] * 4)
    """First wrong steps found, solutions with one; solutions without in which no step is called
    bad, solutions without.
    """
    right: list[float] = dataclasses.field(default_factory=list)
    """Last scores of the solutions whose final answer is right, and of the wrong ones below."""
    wrong: list[float] = dataclasses.field(default_factory=list)


class Agreement:
    """Takes solutions one at a time, with their scores; keeps a few numbers for each question.
    `keeps`: estimates keep their observations (`statistics.Kept`).
    """

    def __init__(self, threshold: float = 0.5, *, keeps: bool = False) -> None:
        self.threshold, self._keeps = threshold, keeps
        self._of: dict[str, _OfQuestion] = {}

    def add(
        self,
        question: str,
        labels: Sequence[Label] | None,
        correct: bool | None,
        p: Sequence[float],
    ) -> None:
        """A solution: its labels, whether its final answer is right, p(good) after each step."""
        key = question_key(question)
        if not self._keeps:
            key = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        of = self._of.setdefault(key, _OfQuestion())
        for label, value in zip(labels or (), p, strict=bool(labels)):
            if isinstance(label, bool):
                at = 0 if label else 2
                of.steps[at] += (value > self.threshold) == label
                of.steps[at + 1] += 1
        if labels:
            self._add_first(of, labels, p)
        if correct is not None and p:
            (of.right if correct else of.wrong).append(p[-1])

    def _add_first(self, of: _OfQuestion, labels: Sequence[Label], p: Sequence[float]) -> None:
        """Solutions with a step without a hard label before the first wrong one are left out."""
        first = next((i for i, x in enumerate(labels) if x is False), None)
        if all(x is True for x in labels[:first]):
            at = 2 if first is None else 0
            of.first[at] += first_bad_step(p, self.threshold) == first
            of.first[at + 1] += 1

    def steps(self) -> Judged:
        """Accuracy over the steps whose label is true or false."""
        names, table = _table({key: of.steps for key, of in self._of.items()})
        n = int(table[:, [1, 3]].sum())
        return Judged(
            self._over(
                names, table, n, lambda s: (s[..., 0] + s[..., 2]) / (s[..., 1] + s[..., 3])
            ),
            self._over(
                names, table, n, lambda s: (s[..., 0] / s[..., 1] + s[..., 2] / s[..., 3]) / 2
            ),
        )

    def first_errors(self) -> FirstErrors:
        """ProcessBench's numbers, over the solutions whose labels tell the first wrong step, or
        that there is none.
        """
        names, table = _table({key: of.first for key, of in self._of.items()})
        n_wrong, n_right = int(table[:, 1].sum()), int(table[:, 3].sum())
        return FirstErrors(
            self._over(names, table, n_wrong, lambda s: s[..., 0] / s[..., 1]),
            self._over(names, table, n_right, lambda s: s[..., 2] / s[..., 3]),
            self._over(names, table, n_wrong + n_right, _harmonic),
        )

    def ranked(self) -> Ranked:
        """How often the last step's score puts a right solution above a wrong one."""
        both = {key: (of.right, of.wrong) for key, of in self._of.items() if of.right and of.wrong}
        columns = [(concordant(*pair), len(pair[0]) * len(pair[1])) for pair in both.values()]
        table = np.asarray(columns, dtype=np.float64).reshape(-1, 2)
        above = self._over(list(both), table, len(table), ratio)
        return Ranked(above, round(table[:, 1].sum()))

    def _over(
        self, names: Sequence[str], table: FloatArray, n: int, statistic: Statistic
    ) -> Estimate:
        """A statistic of the column sums; intervals resample whole questions, the rows of the
        table.
        """
        resampler = Resampler(names, keeps=self._keeps)
        return dataclasses.replace(resampler.estimate(names, table, statistic), n=n)


def _table(rows: Mapping[str, Sequence[int]]) -> tuple[list[str], FloatArray]:
    """The questions with something to judge, and their counts, [C, 4]."""
    judged = {key: row for key, row in rows.items() if row[1] + row[3] > 0}
    return list(judged), np.asarray(list(judged.values()), dtype=np.float64).reshape(-1, 4)


def _harmonic(sums: FloatArray) -> FloatArray:
    wrong, right = sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]
    both = wrong + right
    mean: FloatArray = np.where(both > 0, 2 * wrong * right / np.where(both > 0, both, 1), both)
    return mean
