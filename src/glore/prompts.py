"""Questions and solutions → prompt text: steps, prompt layouts and the `[BAD]` mark. No other file
knows how a prompt looks.

A step is one non-empty line (method, notation). A line ends at `\\n` or `\\r\\n`, and at no other
character. Every layout is a tuple of text *segments*. Tokenizers encode each segment by itself, so
a step has a last token, and the tokens of a prefix never depend on the text after it. The mark is a
segment of its own. Every other segment ends in a newline, so no question or step equals the mark.
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
"""Longer model output is cut to this length before it is parsed."""


STEP_END = "\n"
"""Ends every step. As `SamplingParams.stop` it makes a completion one step, which is empty if the
model begins with an empty line.
"""


def split_steps(text: str) -> tuple[str, ...]:
    """A solution text → its steps: the non-empty lines, stripped."""
    lines = (line.strip() for line in split_lines(text[:MAX_SOLUTION_CHARS]))
    return tuple(line for line in lines if line)


def step_text(step: str) -> str:
    """A step → its text in a prompt or target."""
    return f"{step}{STEP_END}"


def solve_segments(question: str, steps: Sequence[str] = ()) -> tuple[str, ...]:
    """Prompt of the student, and input of the reward models: the question, the steps so far."""
    return (f"Question: {question.strip()}\nAnswer:\n", *(step_text(s) for s in steps))


def mark_draft(steps: Sequence[str], marked_step: int | None) -> tuple[str, ...]:
    """The draft's segments with `[BAD]` before the step of index `marked_step` (0-based; none: no
    mark). A mark in the draft's own text is removed.
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
    """Prompt of the refiner: the question, the marked draft, the start of the new solution (method
    4).
    """
    return (
        f"Question: {question.strip()}\nDraft:\n",
        *mark_draft(draft, marked_step),
        "Answer:\n",
    )
