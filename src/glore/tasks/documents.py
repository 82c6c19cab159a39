"""From problems and drills to documents for a base model that is trained from nothing.

What a model can't predict (a question's wording, a drill's numbers) is context without a loss: its
entropy would only add noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from glore.prompts import step_text
from glore.tasks.protocol import Document

__all__ = ["drill_pieces", "problem_pieces", "verdict"]


def drill_pieces(asked: str, result: str) -> Document:
    """One line: `12 + 7` without a loss, and ` = 19` with one."""
    return (asked, False), (step_text(result), True)


def problem_pieces(prompt: Sequence[str], steps: Sequence[str]) -> Document:
    """The segments of a prompt (no loss), then the steps of its solution (loss)."""
    return (*((segment, False) for segment in prompt), *((step_text(step), True) for step in steps))


def verdict(right: bool) -> str:
    """The line that states whether everything before it is right."""
    return step_text("Right" if right else "Wrong")
