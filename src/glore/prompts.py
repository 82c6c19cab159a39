"""Steps, prompt layouts and the `[BAD]` mark: the only place that knows how a question and a
solution become text.

A step is one non-empty line (method, notation); a line ends at `\\n` or `\\r\\n`, at no other
character. Every layout is a tuple of text *segments*; tokenizers encode each segment by itself, so
a step's last token is well defined and a prefix's tokens never depend on what follows it. The mark
is a segment of its own; every other segment ends in a newline, so no question or step can pass for
it.
"""

from __future__ import annotations

from collections.abc import Sequence

from glore.files import split_lines

__all__ = [
    "BAD_MARK",
    "MAX_QUESTION_CHARS",
    "MAX_SOLUTION_CHARS",
    "STEP_END",
    "mark_draft",
    "refine_segments",
    "solve_segments",
    "split_steps",
    "step_text",
]

BAD_MARK = "[BAD]"
MAX_QUESTION_CHARS = 20_000
"""Longer questions are refused at inference."""
MAX_SOLUTION_CHARS = 20_000
"""Longer model output is cut here before it is parsed."""


STEP_END = "\n"
"""Ends every step; as `SamplingParams.stop` it makes a completion one step (an empty one where a
model begins with an empty line).
"""


def split_steps(text: str) -> tuple[str, ...]:
    """The steps of a solution text: its non-empty lines, stripped."""
    lines = (line.strip() for line in split_lines(text[:MAX_SOLUTION_CHARS]))
    return tuple(line for line in lines if line)


def step_text(step: str) -> str:
    """A step as it stands in a prompt or target."""
    return f"{step}{STEP_END}"


def solve_segments(question: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
    """Student prompt (and the reward models' input): the question, then the steps so far."""
    return (f"Question: {question.strip()}\nAnswer:\n", *(step_text(s) for s in steps))


def mark_draft(steps: Sequence[str], marked_step: int | None) -> tuple[str, ...]:
    """The draft's segments, `[BAD]` before the step of that 0-based index (none: no mark). A mark
    the draft brought along is removed.
    """
    clean = [s.replace(BAD_MARK, "").strip() for s in steps]
    return tuple(
        part
        for i, s in enumerate(clean)
        for part in ((BAD_MARK, step_text(f" {s}")) if i == marked_step else (step_text(s),))
    )


def refine_segments(
    question: str, draft: Sequence[str], marked_step: int | None
) -> tuple[str, ...]:
    """Refiner prompt: the question, the marked draft, then the place for the new solution (method
    4).
    """
    return (
        f"Question: {question.strip()}\nDraft:\n",
        *mark_draft(draft, marked_step),
        "Answer:\n",
    )
