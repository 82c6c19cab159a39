"""Cascades: one solution after the other until the ORM accepts one, the first being the draft.

What comes next after a solution that the ORM rejects is the difference: a sample; the draft's
global refinement and then samples; or the global refinement of each solution before the next
sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from glore.config import RunConfig
from glore.decisions import GLOBAL, Decisions, MarkedDraft
from glore.evaluation.inputs import ORM
from glore.pipeline import StageContext, declare
from glore.records import Solution, StepScores
from glore.solutions import by_problem
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, problems_by_id, score
from glore.stages.estimates import refinement_tokens
from glore.stages.evaluation_set import refined_solutions
from glore.studies.budget.spent import (
    Scores,
    Spent,
    decisions_of,
    orm_scores,
    sample_numbers,
    until_accepted,
)
from glore.studies.refining import global_mark, refiner_engine

__all__ = ["CASCADE", "DRAFT_FIRST", "REFINED_TOO", "cascades", "sample_refinements"]

DRAFT_FIRST = "draft, then samples until the ORM accepts"
CASCADE = "GLoRe's cascade until the ORM accepts"
REFINED_TOO = "GLoRe's cascade, samples refined too"


def _tokens(config: RunConfig) -> int:
    return config.evaluation.samples * refinement_tokens(config) // 12


@declare(
    "sample_refinements",
    inputs=("test_scores", "refiner", ORM),
    reads=("refiner.global_mark", "evaluation.threshold", "evaluation.aggregate", *SAMPLING),
    opens=lambda _: ("refiner", ORM),
    estimate=_tokens,
    checks=(check_engine,),
)
def sample_refinements(ctx: StageContext) -> None:
    """Global refinements of the samples that the ORM rejects, for questions where it rejects the
    draft and its global refinement. Parts: `part`, `orm` (their scores).
    """
    problems, decisions = problems_by_id(ctx, "test"), decisions_of(ctx)
    scores, refined = orm_scores(ctx), _global_refinements(ctx)

    def is_rejected(solution: Solution) -> bool:
        return decisions.needs_work(scores[solution.id])

    going = {
        d.problem_id
        for d in ctx.read("test_drafts", Solution)
        if is_rejected(d) and (d.id not in refined or is_rejected(refined[d.id]))
    }
    rejected = [
        s for s in ctx.read("test_samples", Solution) if s.problem_id in going and is_rejected(s)
    ]
    marked = [MarkedDraft(s, global_mark(ctx)) for s in rejected if s.steps]
    made = refined_solutions(ctx, marked, GLOBAL, problems, refiner_engine(ctx))
    ctx.release("refiner")
    score(ctx, ORM, made, problems, part=ORM)


def _global_refinements(ctx: StageContext) -> dict[str | None, Solution]:
    """Draft's id → its global refinement."""
    return {s.draft_id: s for s in ctx.read("test_refinements", Solution, GLOBAL)}


def cascades(
    ctx: StageContext,
    drafts: Sequence[Solution],
    decisions: Decisions,
    scores: Mapping[str, Scores],
) -> list[Spent]:
    """What every cascade spends on each question. Step: solutions at most. `scores`: the ORM's of
    drafts, refinements and samples.
    """
    refined = _global_refinements(ctx)
    samples = by_problem(ctx.read("test_samples", Solution))
    of_sample = {s.draft_id: s for s in ctx.read(sample_refinements.name, Solution)}
    scores = dict(scores) | {
        s.solution_id: s.p_correct for s in ctx.read(sample_refinements.name, StepScores, ORM)
    }
    most = max(map(len, samples.values()), default=0)
    found: list[Spent] = []
    for draft in drafts:
        rest = samples.get(draft.problem_id, [])
        mended = [refined[draft.id]] if draft.id in refined else []
        for way, attempts, limit in (
            (DRAFT_FIRST, [draft, *rest], 1 + most),
            (CASCADE, [draft, *mended, *rest], 2 + most),
            (REFINED_TOO, [draft, *mended, *_with_refinements(rest, of_sample)], 2 + 2 * most),
        ):
            found += _spent(way, draft.problem_id, attempts, scores, decisions, limit)
    return found


def _with_refinements(
    samples: Sequence[Solution], refinement_of: Mapping[str | None, Solution]
) -> Iterator[Solution]:
    """Each sample, then its refinement."""
    for sample in samples:
        yield sample
        if sample.id in refinement_of:
            yield refinement_of[sample.id]


def _spent(
    way: str,
    problem_id: str,
    attempts: Sequence[Solution],
    scores: Mapping[str, Scores],
    decisions: Decisions,
    limit: int,
) -> Iterator[Spent]:
    own = [scores[a.id] for a in attempts]
    for n in sample_numbers(limit):
        yield Spent(way, n, problem_id, *until_accepted(attempts, own, decisions, n))
