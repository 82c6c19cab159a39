"""Completions → graded solutions, for everything that samples: student, refiners, inference."""

from __future__ import annotations

from collections.abc import Sequence

from glore.engines.protocol import Completion
from glore.prompts import split_steps
from glore.records import Problem, Solution
from glore.tasks.protocol import Task

__all__ = ["by_problem", "completion_steps", "first_of_each", "graded_solution", "same_text"]


def graded_solution(
    task: Task,
    problem: Problem,
    completion: Completion,
    *,
    solution_id: str,
    source: str,
    temperature: float,
    draft_id: str | None = None,
) -> Solution:
    """A completion → its record: steps, graded against the problem's answer."""
    steps = completion_steps(completion.text)
    grade = task.grade(problem, steps)
    return Solution(
        id=solution_id,
        problem_id=problem.id,
        steps=steps,
        answer=grade.answer,
        correct=grade.verdict,
        source=source,
        draft_id=draft_id,
        n_tokens=completion.n_tokens,
        stop=completion.stop,
        seed=completion.seed,
        temperature=temperature,
    )


def completion_steps(text: str) -> tuple[str, ...]:
    """A sampled text → its steps.

    Bytes that are no text (U+FFFD) are dropped. Encoded again, they would take up to three times
    the tokens, so the noise of a weak model could exceed the context of the models that score and
    refine it.
    """
    return split_steps(text.replace("\ufffd", ""))


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
