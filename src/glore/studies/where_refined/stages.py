"""What the study `where-refined` draws and trains: wrong solutions, their refinements by each way,
and, if asked for, a refiner for each kind beside two of both kinds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from glore.decisions import GLOBAL, MarkedDraft
from glore.errors import RunError
from glore.evaluation import EvaluationInputs
from glore.evaluation.decomposition import first_errors
from glore.pipeline import Stage, StageContext
from glore.records import Problem, RefinementPair, Solution, StepLabels
from glore.seeds import stable_seed
from glore.solutions import same_text
from glore.stages.checks import check_engine, check_training
from glore.stages.common import SAMPLING, problems_by_id, truth_of
from glore.stages.estimates import draft_tokens, refiner_tokens
from glore.stages.fine_tuning import TRAINING
from glore.stages.refining import refiner_opened, train_refiner
from glore.studies.error_kinds import EQUATION, error_kind
from glore.studies.records import first_false
from glore.studies.refining import global_mark, refined, refiner_engine

__all__ = [
    "APART",
    "GLOBAL_AGAIN",
    "GREEDY",
    "LOCAL",
    "LOCAL_AGAIN",
    "MIXED",
    "SAMPLED",
    "WRONG",
    "WrongSolution",
    "apart_stages",
    "part_of",
    "refining_stage",
]

WRONG, APART = "wrong_solutions_refined", "wrong_solutions_refined_apart"
MIXED = "wrong_solutions_refined_mixed"
GREEDY, SAMPLED = "greedy drafts", "samples"
LOCAL, GLOBAL_AGAIN, LOCAL_AGAIN = "local", "global, sampled", "local, sampled"
KINDS = (GLOBAL, LOCAL)
OWN_REFINER = MappingProxyType({GLOBAL: "global_refiner", LOCAL: "local_refiner"})
"""Kind → the model that learns from pairs of that kind alone."""
MIXED_REFINER = MappingProxyType({GLOBAL: "mixed_refiner_1", LOCAL: "mixed_refiner_2"})
"""Kind → the model that refines so, and learned from half of the pairs of both kinds."""


@dataclasses.dataclass(frozen=True, slots=True)
class WrongSolution:
    """A wrong solution that is refined, and its first error."""

    solution_id: str
    where: str
    """GREEDY or SAMPLED."""
    error: int
    """0-based first wrong step."""
    n_mistakes: int
    """Its own mistakes; 1 if only the labels of rollouts are known."""


def refining_stage(limit: int) -> Stage:
    """All ways with the run's refiner. Parts: `wrong`, and a part of refinements for each way.
    `limit`: most wrong samples.
    """

    def refine(ctx: StageContext) -> None:
        problems = problems_by_id(ctx, "test")
        wrong = _wrong(ctx, problems, limit)
        ctx.write([w for w, _ in wrong], WrongSolution, "wrong")
        first = global_mark(ctx)
        whole = [MarkedDraft(s, first) for _, s in wrong]
        local = [MarkedDraft(s, w.error) for w, s in wrong]
        engine = refiner_engine(ctx)
        for way, marked, temperature in (
            (GLOBAL, whole, 0.0),
            (LOCAL, local, 0.0),
            (GLOBAL_AGAIN, whole, 1.0),
            (LOCAL_AGAIN, local, 1.0),
        ):
            part = part_of(way)
            refined(ctx, marked, way, problems, engine, part=part, temperature=temperature)

    return Stage(
        WRONG,
        refine,
        inputs=("test_labels", "test_samples", "refiner"),
        reads=("refiner.global_mark", *SAMPLING),
        opens=lambda _: ("refiner",),
        estimate=lambda c: 4 * draft_tokens(c),
        checks=(check_engine,),
        own={"samples": limit},
    )


def apart_stages() -> tuple[Stage, ...]:
    """A refiner for each kind, from the run's pairs of that kind, as many of both; then all ways
    with them, on the same wrong solutions. And, to tell kinds from models, two refiners of both
    kinds, from one half of all pairs each: the first refines globally, the second locally.
    """
    by_kind = [_trained(OWN_REFINER[kind], functools.partial(_of_kind, kind)) for kind in KINDS]
    by_half = [_trained(MIXED_REFINER[kind], functools.partial(_half, kind)) for kind in KINDS]
    return (
        *by_kind,
        _refined_by(APART, OWN_REFINER, again=True),
        *by_half,
        _refined_by(MIXED, MIXED_REFINER, again=False),
    )


def _of_kind(kind: str, pairs: Sequence[RefinementPair]) -> list[RefinementPair]:
    return [p for p in pairs if p.kind == kind]


def _half(kind: str, pairs: Sequence[RefinementPair]) -> list[RefinementPair]:
    """Every second pair of each kind: the first half for global refinement, the other for local."""
    first = KINDS.index(kind)
    return [p for k in KINDS for p in _of_kind(k, pairs)[first::2]]


def _trained(
    model: str, chosen: Callable[[Sequence[RefinementPair]], list[RefinementPair]]
) -> Stage:
    """Trains `models/MODEL` on some of the run's pairs."""

    def train(ctx: StageContext) -> None:
        pairs = chosen(ctx.read("pairs", RefinementPair))
        if not pairs:
            raise RunError(
                f"the run has too few pairs, so there is nothing that {model} could learn from; "
                "give it more wrong drafts (reward.draft_samples)"
            )
        ctx.count(pairs=len(pairs))
        train_refiner(ctx, model, pairs)

    return Stage(
        model,
        train,
        inputs=("base", "student", "pairs"),
        reads=("refiner.init", "refiner.train"),
        uses=TRAINING,
        models=(model,),
        opens=refiner_opened,
        estimate=lambda c: refiner_tokens(c) // 2,
        checks=(check_training("refiner.train"),),
    )


def _refined_by(stage: str, model_of: Mapping[str, str], again: bool) -> Stage:
    """Both kinds, each with its model, on the wrong solutions of `refining_stage`. `again`: sampled
    ones beside the greedy ones.
    """

    def refine(ctx: StageContext) -> None:
        problems = problems_by_id(ctx, "test")
        solutions = {s.id: s for s in ctx.read("test_drafts", Solution)}
        solutions |= {s.id: s for s in ctx.read("test_samples", Solution)}
        wrong = [(w, solutions[w.solution_id]) for w in ctx.read(WRONG, WrongSolution, "wrong")]
        first = global_mark(ctx)
        marked = {
            GLOBAL: [MarkedDraft(s, first) for _, s in wrong],
            LOCAL: [MarkedDraft(s, w.error) for w, s in wrong],
        }
        for kind, sampled in ((GLOBAL, GLOBAL_AGAIN), (LOCAL, LOCAL_AGAIN)):
            model = model_of[kind]
            engine = refiner_engine(ctx, model)
            for way, temperature in ((kind, 0.0), (sampled, 1.0))[: 2 if again else 1]:
                refined(
                    *(ctx, marked[kind], way, problems, engine),
                    part=part_of(way),
                    temperature=temperature,
                    model=model,
                )
            ctx.release(model)

    return Stage(
        stage,
        refine,
        inputs=(WRONG, *model_of.values()),
        reads=("refiner.global_mark", *SAMPLING),
        opens=lambda _: tuple(model_of.values()),
        estimate=lambda c: (4 if again else 2) * draft_tokens(c),
        checks=(check_engine,),
    )


def part_of(way: str) -> str:
    """The part of a stage that holds a way's refinements."""
    return way.replace(", ", "_")


def _wrong(
    ctx: StageContext, problems: Mapping[str, Problem], limit: int
) -> list[tuple[WrongSolution, Solution]]:
    """The wrong greedy drafts and some wrong samples, with their first errors where known."""
    drafts, samples = ctx.read("test_drafts", Solution), ctx.read("test_samples", Solution)
    truth = tuple(ctx.read("test_labels", StepLabels, "truth"))
    labels = tuple(ctx.read("test_labels", StepLabels))
    known = EvaluationInputs("", (), tuple(drafts), (), draft_labels=labels, draft_truth=truth)
    source, errors = first_errors(known)
    found = [
        (WrongSolution(d.id, GREEDY, errors[d.id], _mistakes(d, errors[d.id], source)), d)
        for d in drafts
        if d.id in errors
    ]
    seen = {(d.problem_id, same_text(d.steps)) for d in drafts}
    distinct = []
    for s in samples:
        key = (s.problem_id, same_text(s.steps))
        if s.correct == "wrong" and s.steps and key not in seen:
            seen.add(key)
            distinct.append(s)
    distinct.sort(key=lambda s: (stable_seed(ctx.seed, "where-refined", s.id), s.id))
    for record, s in zip(truth_of(ctx, distinct, problems), distinct, strict=False):
        error = first_false(record)
        if error is not None and sum(w.where == SAMPLED for w, _ in found) < limit:
            found.append((WrongSolution(s.id, SAMPLED, error, _mistakes(s, error, "truth")), s))
    return found


def _mistakes(solution: Solution, error: int, source: str | None) -> int:
    if source != "truth":
        return 1
    return 1 + sum(error_kind(step) == EQUATION for step in solution.steps[error + 1 :])
