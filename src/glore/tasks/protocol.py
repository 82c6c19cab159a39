"""What a task is: problems in three splits, and what counts as right.

A task with an `oracle` also knows the truth of every step of any solution text (the built-in `stories` does).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from glore.records import Problem

__all__ = ["Grade", "OracleTask", "ScratchTask", "Task"]


@dataclasses.dataclass(frozen=True, slots=True)
class Grade:
    """Verdict on one solution."""

    verdict: str
    """`right`, `wrong` or `unknown` (an answer is there, but could not be compared)."""
    answer: str | None
    """The normalised answer found, none where there is none (the verdict is then `wrong`)."""


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
        """L flags: is the statement of this step true (whatever the way or the order)? Not propagated."""
        ...


@runtime_checkable
class ScratchTask(Protocol):
    """A task that can supply the text a small base model is trained on from nothing."""

    def base_documents(self, seed: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Endless (prompt segments, target segments) documents: drills, short problems, copying. Deterministic per seed."""
        ...
