"""What studies do with one value per test question: its mean with an interval, and differences of
two ways on the same questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from glore.evaluation import EvaluationInputs, EvaluationOptions
from glore.evaluation.inputs import Index
from glore.pipeline import StageContext
from glore.records import Problem, Solution, StepScores
from glore.statistics import Estimate
from glore.studies.measured import Measured, difference

__all__ = ["differences", "estimate", "question_index", "right"]


def question_index(
    ctx: StageContext,
    drafts: Sequence[Solution],
    samples: Sequence[Solution] = (),
    scores: Iterable[StepScores] = (),
    aggregate: str = "final",
) -> Index:
    """The test questions with these records, and the bootstrap over them
    (`evaluation.bootstrap_samples`).
    """
    inputs = EvaluationInputs(
        name="",
        problems=tuple(ctx.read("problems", Problem, "test")),
        drafts=tuple(drafts),
        samples=tuple(samples),
        scores=tuple(scores),
    )
    options = EvaluationOptions(
        aggregate=aggregate,
        bootstrap_samples=ctx.config.evaluation.bootstrap_samples,
        seed=ctx.seed,
    )
    return Index(inputs, options, keeps=True)


def right(solutions: Iterable[Solution | None]) -> list[float]:
    """1 for every right solution, 0 for any other and for none."""
    return [float(s is not None and s.correct == "right") for s in solutions]


def estimate(index: Index, problem_ids: Sequence[str], values: Sequence[float]) -> Estimate:
    """Mean of one value per problem: a share of yes and no with Wilson's interval, any other mean
    with the bootstrap's.
    """
    units = [index.cluster_of[i] for i in problem_ids]
    if all(v in (0, 1) for v in values) and len(set(units)) == len(units):
        return index.resampler.share(units, values)
    return index.resampler.mean(units, values)


def differences(
    index: Index,
    table: str,
    problem_ids: Sequence[str],
    values: Mapping[str, Sequence[float]],
    pairs: Iterable[tuple[str, str]],
    column: str = "difference",
) -> list[Measured]:
    """First minus second on the same problems, a row for each pair of ways. `values`: way → one
    value per problem, in the order of the ids.
    """
    units = [index.cluster_of[i] for i in problem_ids]
    return [
        difference(
            table,
            (first, second),
            column,
            index.resampler.paired(units, values[first], values[second]),
        )
        for first, second in pairs
    ]
