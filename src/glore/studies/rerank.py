"""Study `rerank`: the ways to reduce step scores to one score, for every reward model (App. D).

K samples of each test question are reranked by the ORM, the Balanced ORM and the SORM, with every
way of `glore.rerank.AGGREGATES`; majority voting and pass@K stand beside them. Nothing is sampled
or scored: the study reads the samples and scores that the run has. Accuracy at K is the
expectation over all K-subsets of the samples (`glore.evaluation.rerank_curves`). Assumes that all
samples of a question come from one student at one temperature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.evaluation import EvaluationInputs, EvaluationOptions
from glore.evaluation.inputs import REWARD_MODELS, Index
from glore.evaluation.rerank_curves import CurvePoint, rerank_curves
from glore.pipeline import StageContext, declare
from glore.pipeline.integrity import recorded_files
from glore.records import Problem, Solution, StepScores, read_records
from glore.report.views import MODEL_NAMES, TableView
from glore.rerank import AGGREGATES
from glore.statistics import Difference, Estimate
from glore.studies.study import Study

__all__ = ["STUDY", "RerankDifference", "RerankPoint"]

NO_SCORES = ("majority", "pass")
"""Ways that need no reward model, so no aggregate either."""


@dataclasses.dataclass(frozen=True, slots=True)
class RerankPoint:
    """Accuracy when one of K samples is chosen."""

    way: str
    """A reward model, `majority` or `pass`."""
    aggregate: str
    """Empty for `majority` and `pass`."""
    k: int
    accuracy: float
    low: float
    high: float
    n: int
    """Test questions."""


@dataclasses.dataclass(frozen=True, slots=True)
class RerankDifference:
    """One aggregate minus `final`: the same reward model, questions and samples."""

    way: str
    aggregate: str
    difference: float
    low: float
    high: float
    n: int
    gained: int
    lost: int
    p: float


@declare(
    "rerank_curves",
    inputs=("test_samples", "test_scores"),
    reads=("evaluation.bootstrap_samples",),
    opens=lambda _: (),
)
def curves(ctx: StageContext) -> None:
    """Parts: `part` (accuracy at every K), `differences` (against `final`)."""
    problems = tuple(ctx.read("problems", Problem, "test"))
    samples = tuple(ctx.read("test_samples", Solution))
    drafts = tuple(ctx.read("test_drafts", Solution))
    scores = tuple(
        score
        for model in REWARD_MODELS
        for score in ctx.read("test_scores", StepScores, f"samples_{model}")
    )
    inputs = EvaluationInputs("", problems, drafts, samples, scores=scores)
    indexes = {
        how: Index(
            inputs,
            EvaluationOptions(
                aggregate=how,
                bootstrap_samples=ctx.config.evaluation.bootstrap_samples,
                seed=ctx.seed,
            ),
        )
        for how in AGGREGATES
    }
    found = [
        _point(point, "" if point.way in NO_SCORES else how)
        for how, index in indexes.items()
        for point in rerank_curves(index)
        if point.way not in NO_SCORES or how == "final"
    ]
    ctx.write(found, RerankPoint)
    ctx.write(_differences(indexes), RerankDifference, "differences")
    ctx.count(points=len(found))


def _point(point: CurvePoint, how: str) -> RerankPoint:
    e = point.accuracy
    assert e.value is not None
    assert e.low is not None
    assert e.high is not None
    return RerankPoint(point.way, how, point.k, e.value, e.low, e.high, e.n)


def _differences(indexes: dict[str, Index]) -> list[RerankDifference]:
    out = []
    for model in REWARD_MODELS:
        right = {how: _chosen_right(index, model) for how, index in indexes.items()}
        index = indexes["final"]
        units = [index.cluster_of[p] for p in index.samples_of]
        for how in right:
            if how != "final":
                d = index.resampler.paired(units, right[how], right["final"])
                out.append(_difference(model, how, d))
    return [d for d in out if d is not None]


def _difference(model: str, how: str, d: Difference) -> RerankDifference | None:
    if d.value is None or d.low is None or d.high is None:
        return None
    p = 1.0 if d.p is None else d.p
    return RerankDifference(model, how, d.value, d.low, d.high, d.n, d.gained, d.lost, p)


def _chosen_right(index: Index, model: str) -> list[float]:
    """Per question: is the sample right that the reward model puts first?"""
    chosen = [
        samples[index.options.choose([index.step_scores(model, s) for s in samples])]
        for samples in index.samples_of.values()
    ]
    return [float(s.correct == "right") for s in chosen]


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    stage = folder / "stages" / curves.name
    found = read_records(recorded_files(stage, "part"), RerankPoint)
    differences = read_records(recorded_files(stage, "differences"), RerankDifference)
    return [_accuracies(found), _paired(differences)]


def _accuracies(found: Sequence[RerankPoint]) -> TableView:
    ks = sorted({point.k for point in found})
    cells = {(p.way, p.aggregate, p.k): Estimate(p.accuracy, p.low, p.high, p.n) for p in found}
    rows = list(dict.fromkeys((p.way, p.aggregate) for p in found))
    return TableView(
        "rerank",
        "Rerank · accuracy by reward model and aggregate",
        f"Share of {found[0].n if found else 0} test questions answered right, % [95 %], when one "
        "of K samples is chosen.",
        ("reward model", "aggregate", *(f"K = {k}" for k in ks)),
        tuple((MODEL_NAMES[w], a, *(cells[w, a, k] for k in ks)) for w, a in sorted(rows)),
    )


def _paired(found: Sequence[RerankDifference]) -> TableView:
    return TableView(
        "rerank-differences",
        "Rerank · each aggregate against final, with all samples",
        "Paired, on the same questions, in points.",
        ("reward model", "aggregate", "points [95 %]", "n", "only this right", "only final right"),
        tuple(
            (
                MODEL_NAMES[d.way],
                d.aggregate,
                Difference(d.difference, d.low, d.high, d.n, d.gained, d.lost, d.p),
                d.n,
                d.gained,
                d.lost,
            )
            for d in found
        ),
    )


STUDY = Study(
    "rerank",
    "The ways to reduce step scores to one score, for every reward model and K (App. D).",
    lambda config: (curves,),
    _tables,
)
