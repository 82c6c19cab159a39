"""Step scores of a reward model, ours or another's, for the solutions of a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

from glore.formats import LabelledSolution
from glore.progress import Progress
from glore.solution_files.judging import FirstErrors, Judged, first_errors, step_accuracy
from glore.solution_files.writing import write_plain
from glore.step_layouts.parts import Item
from glore.where import first_bad_step

__all__ = ["Scored", "score_file"]

SCORED_TOGETHER = 2048
"""Solutions given to the scorer at a time. It shares what those of one question have in common."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """What was scored, and how well the scores agree with the labels of the file."""

    n_solutions: int
    n_steps: int
    n_too_long: int
    """Solutions without scores, since they don't fit into the model's context."""
    steps: Judged
    first: FirstErrors


class Scorer(Protocol):
    """What scores: `glore.reward_models.open.open_reward_model` gives one."""

    def fits(self, items: Sequence[Item]) -> list[bool]:
        """For each solution: does it fit into the model's context with its question?"""
        ...

    def score(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """p(good) after each step of each solution."""
        ...


def score_file(
    solutions: Iterable[LabelledSolution],
    scorer: Scorer,
    output: Path,
    model: str,
    progress: Progress,
    *,
    threshold: float = 0.5,
) -> Scored:
    """Score every solution, and write all to `output` with the columns `scores` (one per step, the
    probability that it is good), `first_bad` (0-based index of the first step whose score is at
    most the threshold, or -1) and `model`. A solution that does not fit into the model's context
    has none of them, and is counted.

    Raises ModelError, EngineError, DataError, RunError.
    """
    scored: list[tuple[LabelledSolution, tuple[float, ...]]] = []
    n_too_long = 0

    def rows() -> Iterator[tuple[LabelledSolution, dict[str, object]]]:
        nonlocal n_too_long
        source = iter(solutions)
        progress.begin("scores", 0, "solutions")
        while chunk := list(islice(source, SCORED_TOGETHER)):
            items = [(s.question, s.steps) for s in chunk]
            fitting = scorer.fits(items)
            n_too_long += fitting.count(False)
            found = iter(scorer.score([i for i, fits in zip(items, fitting, strict=True) if fits]))
            progress.advance(len(chunk))
            for solution, fits in zip(chunk, fitting, strict=True):
                if not fits:
                    yield solution, {"scores": None, "first_bad": None, "model": None}
                    continue
                p = next(found)
                scored.append((solution, p))
                first = first_bad_step(p, threshold)
                yield (
                    solution,
                    {
                        "scores": list(p),
                        "first_bad": -1 if first is None else first,
                        "model": model,
                    },
                )

    n = write_plain(output, rows())
    questions = [s.question for s, _ in scored]
    labels = [s.labels for s, _ in scored]
    scores = [p for _, p in scored]
    return Scored(
        n,
        sum(map(len, scores)),
        n_too_long,
        step_accuracy(questions, labels, scores, threshold),
        first_errors(questions, labels, scores, threshold),
    )
