"""What a task is: problems in three splits, and what counts as right.

A task with an `oracle` also knows the truth of every step of any solution text (the built-in
`stories` does).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from glore.records import Problem

__all__ = ["VERDICTS", "Document", "Grade", "OracleTask", "ScratchTask", "Task", "Verifier"]

Document = tuple[tuple[str, bool], ...]
"""Text for a base model in pieces, each with a flag: is it to be learnt (true), or only read?"""


VERDICTS = ("right", "wrong", "unknown")
"""`unknown`: an answer is there, but could not be compared."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grade:
    """Verdict on one solution."""

    verdict: str
    """One of `VERDICTS`."""
    answer: str | None
    """The normalised answer found, none where there is none (the verdict is then `wrong`)."""


Verifier = Callable[[str, Sequence[str]], Grade]
"""A problem's answer and the steps of a solution → grade."""


class Task(Protocol):
    """Problems and grading."""

    name: str

    def problems(self, split: str) -> list[Problem]:
        """All problems of `train`, `dev` or `test`, always in the same order."""
        ...

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """Is the final answer of this solution right?"""
        ...


@runtime_checkable
class OracleTask(Protocol):
    """A task that can check steps."""

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        """L flags: is the statement of this step true (whatever the way or the order)? Not
        propagated.
        """
        ...


@runtime_checkable
class ScratchTask(Protocol):
    """A task that can supply the text a small base model is trained on from nothing."""

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """One document (drill, short problem, copying) from the generator's state and the share of
        training done, 0 to 1.
        """
        ...
