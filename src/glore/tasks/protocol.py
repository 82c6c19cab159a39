"""The protocol of a task: problems in three splits, and grades of solutions.

An `OracleTask` also knows whether each step of any solution is true (the built-in stories). A
`ScratchTask` supplies text to train a base model on.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from glore.records import Problem

__all__ = ["VERDICTS", "Document", "Grade", "OracleTask", "ScratchTask", "Task", "Verifier"]

Document = tuple[tuple[str, bool], ...]
"""Text for a base model in pieces. Each has a flag: whether it counts in the loss."""


VERDICTS = ("right", "wrong", "unknown")
"""`unknown`: an answer is there, but could not be compared."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grade:
    """The grade of one solution."""

    verdict: str
    """One of `VERDICTS`."""
    answer: str | None
    """The normalised answer; none if the solution has none (the verdict is then `wrong`)."""


Verifier = Callable[[str, Sequence[str]], Grade]
"""A problem's answer and the steps of a solution → grade."""


class Task(Protocol):
    """Problems and grading."""

    name: str

    def problems(self, split: str) -> list[Problem]:
        """All problems of `train`, `dev` or `test`, always in the same order."""
        ...

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """The verdict on the final answer of this solution."""
        ...


@runtime_checkable
class OracleTask(Protocol):
    """A task that can check steps."""

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        """L flags: whether the statement of each step is true, in any derivation and order. Not
        propagated.
        """
        ...


@runtime_checkable
class ScratchTask(Protocol):
    """A task that supplies text to train a small base model from nothing."""

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """One document (drill, short problem, copying), from the random generator and the share of
        training done, 0 to 1.
        """
        ...
