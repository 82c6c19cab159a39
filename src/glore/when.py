"""When to refine: training data of the outcome reward model (ORM), and whether a draft needs work
(methods 2 and 5).

Every step of a solution gets the label of its final answer, so the ORM estimates the value of the
student, V^π. The Balanced ORM is trained on as many right as wrong solutions of every question. The
contrastive reward model compares a right and a wrong solution of one question. All leave out
ungraded solutions.
"""

from __future__ import annotations

from collections.abc import Sequence

from glore.records import Solution, StepLabels
from glore.seeds import stable_seed
from glore.solutions import by_problem

__all__ = ["balanced_solutions", "contrastive_pairs", "needs_work", "orm_labels"]


def orm_labels(solutions: Sequence[Solution], rule: str = "orm") -> list[StepLabels]:
    """One record per solution: all L labels say whether the answer is right. Ungraded and empty
    solutions get no labels.
    """
    return [_labels(s, rule) for s in solutions]


def balanced_solutions(solutions: Sequence[Solution], seed: int) -> list[Solution]:
    """min(n+, n−) right and as many wrong solutions of every question, in the order given. A
    question with only right or only wrong solutions is dropped.

    The choice is by hash of the solution's id, so it does not depend on the order.
    """
    kept: set[str] = set()
    for group in by_problem([s for s in solutions if s.steps]).values():
        right, wrong = (
            [s.id for s in group if s.correct == verdict] for verdict in ("right", "wrong")
        )
        n = min(len(right), len(wrong))
        for ids in (right, wrong):
            kept.update(sorted(ids, key=lambda i: (stable_seed(seed, "balanced_orm", i), i))[:n])
    return [s for s in solutions if s.id in kept]


def contrastive_pairs(solutions: Sequence[Solution], seed: int) -> list[tuple[Solution, Solution]]:
    """min(n+, n−) pairs of a right and a wrong solution of each question, in the order of the
    questions (App. F). No solution is in two pairs.

    The solutions are those of `balanced_solutions`, so both kinds of reward model can learn from
    the same ones. Who is paired with whom is by hash of the ids, so it depends on no order.
    """
    pairs: list[tuple[Solution, Solution]] = []
    for group in by_problem(balanced_solutions(solutions, seed)).values():
        ranked = sorted(group, key=lambda s: (stable_seed(seed, "contrastive", s.id), s.id))
        right, wrong = ([s for s in ranked if s.correct == x] for x in ("right", "wrong"))
        pairs.extend(zip(right, wrong, strict=True))
    return pairs


def needs_work(p_correct: Sequence[float], threshold: float) -> bool:
    """True if the ORM's probability after the last step of the draft is at most the threshold, or
    if the draft is empty. `p_correct`: after every step.
    """
    return not p_correct or p_correct[-1] <= threshold


def _labels(solution: Solution, rule: str) -> StepLabels:
    n = len(solution.steps)
    if solution.correct == "unknown" or n == 0:
        return StepLabels(solution.id, labels=None, kept=None, first_error=None, rule=rule)
    right = solution.correct == "right"
    return StepLabels(
        solution.id,
        labels=(right,) * n,
        kept=(True,) * n,
        first_error=None if right else 0,
        rule=rule,
    )
