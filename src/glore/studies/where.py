"""Study `where`: the local refinement from the first wrong step, of every wrong test draft.

The report's decomposition knows this refinement only where a reward model happened to mark that
step. Here it is drawn for all wrong drafts whose first wrong step is known (exact truth, else the
labels of rollouts), with the run's refiner, greedily, and scored by the run's ORM. So *where* has
an oracle on all drafts, alone and together with *when* (right drafts are kept) and *which* (the
gold answer chooses). A wrong draft without a known first wrong step keeps its local refinement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.decisions import GLOBAL, LOCAL_SORM, MarkedDraft
from glore.evaluation import EvaluationInputs, EvaluationOptions
from glore.evaluation.decomposition import first_errors
from glore.evaluation.inputs import ORM, Index
from glore.evaluation.refinement import candidates_of, chosen_by_orm
from glore.pipeline import StageContext, declare
from glore.records import Problem, Solution, StepLabels, StepScores
from glore.report.views import TableView
from glore.stages.checks import check_engine
from glore.stages.common import (
    SAMPLING,
    lazy_engine,
    model_name,
    problems_by_id,
    score,
    verdicts,
)
from glore.stages.evaluation_set import refined_solutions
from glore.studies.measured import Measured, difference, pivot, read_measured, share
from glore.studies.study import Study

__all__ = ["STUDY"]

MEASURE = "where_measured"
ACCURACY, FIXED = "where-accuracy", "where-fixed"
PIPELINE = "draft + global + local from the SORM's mark, by ORM"
GAIN = "− first row"


@declare(
    "refinements_from_first_wrong_step",
    inputs=("test_labels", "test_scores"),
    # The next stage alone needs the evaluation's. They stay, so that earlier results are reused.
    reads=(
        *("evaluation.threshold", "evaluation.aggregate", "evaluation.bootstrap_samples"),
        *SAMPLING,
    ),
    opens=lambda _: ("refiner", ORM),
    checks=(check_engine,),
)
def refinements(ctx: StageContext) -> None:
    """Parts: `part` (the refinements), `orm` (their scores)."""
    problems = problems_by_id(ctx, "test")
    inputs = _inputs(ctx, problems)
    source, error_of = first_errors(inputs)
    wrong = [MarkedDraft(d, error_of[d.id]) for d in inputs.drafts if d.id in error_of]
    made = _refined(ctx, wrong, problems)
    score(ctx, ORM, made, problems, part=ORM)
    ctx.count(**verdicts(made), from_truth=int(source == "truth"))


def _inputs(ctx: StageContext, problems: Mapping[str, Problem]) -> EvaluationInputs:
    kinds = (GLOBAL, LOCAL_SORM)
    return EvaluationInputs(
        name="",
        problems=tuple(problems.values()),
        drafts=tuple(ctx.read("test_drafts", Solution)),
        samples=(),
        refinements=tuple(s for k in kinds for s in ctx.read("test_refinements", Solution, k)),
        scores=(
            *ctx.read("test_draft_scores", StepScores, ORM),
            *ctx.read("test_scores", StepScores, f"refined_{ORM}"),
        ),
        draft_labels=tuple(ctx.read("test_labels", StepLabels)),
        draft_truth=tuple(ctx.read("test_labels", StepLabels, "truth")),
    )


def _refined(
    ctx: StageContext, wrong: Sequence[MarkedDraft], problems: Mapping[str, Problem]
) -> list[Solution]:
    folder = ctx.model_dir("refiner")
    engine = lazy_engine(ctx, folder)
    made = refined_solutions(ctx, wrong, LOCAL_SORM, problems, engine, name="first wrong step")
    ctx.release(model_name(folder))
    return made


@declare(
    MEASURE,
    inputs=("test_labels", "test_scores", refinements.name),
    reads=("evaluation.threshold", "evaluation.aggregate", "evaluation.bootstrap_samples"),
    opens=lambda _: (),
    version=2,
)
def measure(ctx: StageContext) -> None:
    """Accuracies and shares fixed, with and without the first wrong step known."""
    inputs = _inputs(ctx, problems_by_id(ctx, "test"))
    made = ctx.read(refinements.name, Solution)
    scores = ctx.read(refinements.name, StepScores, ORM)
    settings = ctx.config.evaluation
    options = EvaluationOptions(
        threshold=settings.threshold,
        aggregate=settings.aggregate,
        bootstrap_samples=settings.bootstrap_samples,
        seed=ctx.seed,
    )
    own = Index(inputs, options, keeps=True)
    placed = {s.draft_id for s in made}
    right = {d.id for d in inputs.drafts if d.correct == "right"}
    others = [
        s
        for s in inputs.refinements
        if s.source == GLOBAL or (s.draft_id not in placed and s.draft_id not in right)
    ]
    oracle = Index(
        dataclasses.replace(inputs, refinements=(*others, *made), scores=(*inputs.scores, *scores)),
        options,
        keeps=True,
    )
    ways = {
        PIPELINE: [_is_right(_chosen(own, d)) for d in own.drafts],
        "where: local from the first wrong step": [
            _is_right(_chosen(oracle, d)) for d in own.drafts
        ],
        "when and where: the wrong drafts alone": [
            _is_right(d) or _is_right(_chosen(oracle, d, without_draft=True)) for d in own.drafts
        ],
        "where and which: choice by the gold answer": [
            any(map(_is_right, candidates_of(oracle, d))) for d in own.drafts
        ],
    }
    wrong = [d for d in own.drafts if d.correct == "wrong"]
    fixed = {
        name: [_is_right(index.refinement_of.get((d.id, LOCAL_SORM))) for d in wrong]
        for name, index in (
            ("local from the SORM's mark", own),
            ("local from the first wrong step", oracle),
        )
    }
    found = [
        *_compared(own, ACCURACY, own.drafts, ways, "accuracy"),
        *_compared(own, FIXED, wrong, fixed, "fixed"),
    ]
    ctx.write(found, Measured)
    ctx.count(numbers=len(found))


def _chosen(index: Index, draft: Solution, without_draft: bool = False) -> Solution:
    candidates = candidates_of(index, draft)
    return chosen_by_orm(index, (candidates[1:] if without_draft else []) or candidates)


def _compared(
    index: Index,
    table: str,
    drafts: Sequence[Solution],
    ways: Mapping[str, list[bool]],
    column: str,
) -> list[Measured]:
    """A row for each way; differences to the first one."""
    first, *_ = ways.values()
    units = index.units(drafts)
    found = []
    for way, flags in ways.items():
        gain = (
            None
            if flags is first
            else index.resampler.paired(units, list(map(float, flags)), list(map(float, first)))
        )
        found += [
            share(table, way, column, index.share(drafts, flags)),
            difference(table, way, GAIN, gain),
        ]
    return found


def _is_right(solution: Solution | None) -> bool:
    return solution is not None and solution.correct == "right"


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    found = read_measured(folder, MEASURE)
    note = (
        "Local refinements are drawn from the first wrong step of every wrong draft where it is "
        "known; right drafts have none. Differences to the first row, paired, in points."
    )
    return [
        pivot(found, table, title, note, "way", n_column=True)
        for table, title in (
            (ACCURACY, "Where · Accuracy with the first wrong step known"),
            (FIXED, "Where · Wrong drafts that local refinement fixes"),
        )
    ]


STUDY = Study(
    "where",
    "Local refinement from the first wrong step of every wrong draft: which part fails.",
    lambda config: (refinements, measure),
    _tables,
)
