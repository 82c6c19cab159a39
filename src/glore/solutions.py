"""Completions → graded solutions, for everything that samples: student, refiners, inference."""

from __future__ import annotations

from collections.abc import Sequence

from glore.engines.protocol import Completion
from glore.prompts import LINES, SolutionText, StepFormat, lines_of
from glore.records import Problem, Solution
from glore.tasks.protocol import Task

__all__ = ["by_problem", "completion_text", "first_of_each", "graded_solution", "same_text"]


def graded_solution(
    task: Task,
    problem: Problem,
    completion: Completion,
    *,
    solution_id: str,
    source: str,
    temperature: float,
    draft_id: str | None = None,
    steps: StepFormat = LINES,
) -> Solution:
    """A completion → its record: its steps in this format, graded against the problem's answer."""
    found = completion_text(completion.text, steps)
    grade = task.grade(problem, lines_of(found.steps))
    return Solution(
        id=solution_id,
        problem_id=problem.id,
        steps=found.steps,
        answer=grade.answer,
        correct=grade.verdict,
        source=source,
        draft_id=draft_id,
        n_tokens=completion.n_tokens,
        stop=completion.stop,
        seed=completion.seed,
        temperature=temperature,
        thought=found.thought,
        n_cut=found.n_cut,
    )


def completion_text(text: str, steps: StepFormat = LINES) -> SolutionText:
    """A sampled text → its steps in this format.

    Bytes that are no text (U+FFFD) are dropped. Encoded again, they would take up to three times
    the tokens, so the noise of a weak model could exceed the context of the models that score and
    refine it.
    """
    return steps.read(text.replace("\ufffd", ""))


def by_problem(solutions: Sequence[Solution]) -> dict[str, list[Solution]]:
    """Problem id → its solutions, both in the order given."""
    out: dict[str, list[Solution]] = {}
    for solution in solutions:
        out.setdefault(solution.problem_id, []).append(solution)
    return out


def first_of_each(solutions: Sequence[Solution], n: int) -> list[Solution]:
    """The first n solutions of every problem, grouped by problem in order of first appearance."""
    return [s for group in by_problem(solutions).values() for s in group[:n]]


def same_text(steps: tuple[str, ...]) -> str:
    """Steps → the text that is the same for duplicates: without surrounding blanks (method 1)."""
    return "\n".join(step.strip() for step in steps).strip()
