"""How problems and drills become documents for a base model that is trained from nothing.

What can't be known beforehand (a question's wording, a drill's numbers) is read, not learnt: its
entropy would only add noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from glore.prompts import step_text
from glore.tasks.protocol import Document

__all__ = ["drill_pieces", "problem_pieces", "verdict"]


def drill_pieces(asked: str, result: str) -> Document:
    """`12 + 7`, which is read, and ` = 19`, which is learnt, on a line of their own."""
    return (asked, False), (step_text(result), True)


def problem_pieces(prompt: Sequence[str], steps: Sequence[str]) -> Document:
    """A prompt in its segments (read) and the steps of its solution (learnt)."""
    return (*((segment, False) for segment in prompt), *((step_text(step), True) for step in steps))


def verdict(right: bool) -> str:
    """The line that says whether all before it is right."""
    return step_text("Right" if right else "Wrong")
