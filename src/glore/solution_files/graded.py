"""Solutions of a file → problems and graded drafts, as a run has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from glore.config import JsonlTaskSettings, TaskSettings
from glore.errors import DataError, shown
from glore.formats import LabelledSolution
from glore.prompts import lines_of
from glore.records import Problem, Solution
from glore.solution_files.answers import answer_of, question_key, readable_answer
from glore.tasks.open import open_grader
from glore.tasks.protocol import Task

__all__ = [
    "VERDICTS",
    "Graded",
    "graded_solutions",
    "grader_of",
    "problem_ids",
    "solution_names",
]

VERDICTS = {True: "right", False: "wrong"}
"""What a file says of the final answer → the verdict in records."""


class Graded(NamedTuple):
    """One draft per solution of the file, in its order, and the problems that they answer."""

    problems: list[Problem]
    drafts: list[Solution]
    n_other_verdicts: int
    """Solutions that the grader calls other than the file does. The file's verdict counts."""


def grader_of(settings: TaskSettings, seed: int, problems: Iterable[Problem]) -> Task:
    """The task that grades answers to these problems."""
    return open_grader(settings, seed, problems)


def problem_ids(questions: Iterable[str]) -> dict[str, str]:
    """Question, as `question_key` spells it → a name, in order of first appearance."""
    keys = dict.fromkeys(map(question_key, questions))
    return {key: f"question-{n:06d}" for n, key in enumerate(keys, start=1)}


def graded_solutions(
    solutions: Iterable[LabelledSolution],
    answers: Mapping[str, str],
    settings: TaskSettings,
    seed: int,
    where: str,
) -> Graded:
    """Grade solutions by their gold answers. Where the file says whether the final answer is right,
    that counts.

    Ids are the file's, where they are there and differ. `where` names the file in errors. Raises
    DataError for solutions without a gold answer, and for two answers to one question.
    """
    found = list(solutions)
    verified = isinstance(settings, JsonlTaskSettings) and settings.verifier is not None
    ids = problem_ids(s.question for s in found)
    problems: dict[str, Problem] = {}
    missing: list[int] = []
    for number, solution in enumerate(found, start=1):
        text = answer_of(solution, answers)
        if text is None:
            missing.append(number)
            continue
        place = f"{where}, solution {number}"
        if not solution.question.strip():
            raise DataError(
                f"{place}: its question is empty, or can't be told from the first step; give it a "
                "column of its own (question)"
            )
        key = question_key(solution.question)
        gold = readable_answer(text, place, verified)
        problem = Problem(ids[key], solution.question.strip(), gold, None, "train")
        if problems.setdefault(key, problem).answer != gold:
            raise DataError(
                f"{place}: the answer is {shown(gold)}, but {shown(problems[key].answer)} in a "
                "solution of the same question before; correct one of them"
            )
    if missing:
        _refuse(found, missing, where)
    task = grader_of(settings, seed, problems.values())
    names = solution_names(found)
    drafts = [
        _draft(s, names[n], problems[question_key(s.question)], task) for n, s in enumerate(found)
    ]
    n_other = sum(
        s.correct is not None and verdict != "unknown" and verdict != VERDICTS[s.correct]
        for s, (_, verdict) in zip(found, drafts, strict=True)
    )
    return Graded(list(problems.values()), [draft for draft, _ in drafts], n_other)


def _refuse(found: list[LabelledSolution], missing: list[int], where: str) -> None:
    first = found[missing[0] - 1]
    raise DataError(
        f"{where}: {len(missing)} of {len(found)} solutions have no gold answer, the first is "
        f"number {missing[0]} ({shown(first.question, 40)}); rollouts can't be graded without one: "
        "add a field answer, or give --answers FILE with question and answer in each row"
    )


def solution_names(found: Sequence[LabelledSolution]) -> list[str]:
    """The file's ids. A missing one, and one that is there already, gets the solution's number."""
    n_of = Counter(s.id for s in found)
    return [
        s.id if s.id and n_of[s.id] == 1 else f"{s.id or 'solution'}#{number}"
        for number, s in enumerate(found, start=1)
    ]


def _draft(
    solution: LabelledSolution, name: str, problem: Problem, task: Task
) -> tuple[Solution, str]:
    """The record of a solution, and the grader's own verdict."""
    grade = task.grade(problem, lines_of(solution.steps))
    said = None if solution.correct is None else VERDICTS[solution.correct]
    draft = Solution(
        id=name,
        problem_id=problem.id,
        steps=solution.steps,
        answer=grade.answer,
        correct=said or grade.verdict,
        source=solution.generator or "file",
        draft_id=None,
        n_tokens=0,
        stop="eos",
        seed=0,
        temperature=0.0,
    )
    return draft, grade.verdict
