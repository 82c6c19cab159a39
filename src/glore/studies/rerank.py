"""Study `rerank`: the ways to reduce step scores to one score, for every reward model, and K up to
96 (App. D).

K samples of each test question are reranked by the ORM, the Balanced ORM and the SORM, with every
way of `glore.rerank.AGGREGATES`; the same scores also weigh the votes of a majority. Plain majority
voting and pass@K stand beside them. By default the study reads the samples and scores of the run;
with `samples=96` it draws and scores what is missing. Accuracy at K is the expectation over all
K-subsets of the samples (`glore.evaluation.rerank_curves`); of a majority, the mean over a few.
Assumes that all samples of a question come from one student at one temperature.

Published since (arXiv 2501.07301): models trained on rollout labels rank best by the last step's
score, on human labels by the minimum. The SORM is of the first kind, so `final − min` is a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from glore.config import RunConfig, Settings
from glore.evaluation import EvaluationInputs, EvaluationOptions
from glore.evaluation.inputs import REWARD_MODELS, Index
from glore.evaluation.rerank_curves import (
    MAJORITY,
    PASS,
    grid,
    majority_at_k,
    pass_at_k,
    rerank_at_k,
)
from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution, StepScores
from glore.report.charts import Chart
from glore.report.views import MODEL_NAMES, TableView, percent, points
from glore.rerank import AGGREGATES, aggregate
from glore.solutions import by_problem
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, drawn_by, problems_by_id, sample, score
from glore.stages.estimates import draft_tokens
from glore.studies.measured import (
    Measured,
    difference,
    difference_in,
    estimate_of,
    find,
    line_chart,
    pivot,
    read_measured,
    share,
)
from glore.studies.records import BOOTSTRAP
from glore.studies.study import Study

__all__ = ["STUDY", "RerankSettings"]

MORE, SCORES, MEASURE = "more_samples", "more_scores", "rerank_measured"
CURVES, LAST, GAINS = "rerank", "rerank-last-min", "rerank-differences"
WEIGHTED = "weighted majority"


class RerankSettings(Settings):
    """Of the study `rerank`."""

    samples: int = Field(0, ge=0, le=4096)
    """K: samples of each test question, of which the run has some; 0: those alone."""


def study(settings: Settings) -> Study:
    """The study with these settings."""
    assert isinstance(settings, RerankSettings)
    wanted = settings.samples

    def missing(config: RunConfig) -> int:
        return max(0, wanted - config.evaluation.samples)

    def draw(ctx: StageContext) -> None:
        """The samples that the run lacks."""
        evaluation = ctx.config.evaluation
        sample(
            ctx,
            ctx.model_dir("student"),
            ctx.read("problems", Problem, "test"),
            source="student",
            n=missing(ctx.config),
            drawn=evaluation,
        )

    def stages(config: RunConfig) -> tuple[Stage, ...]:
        more: tuple[Stage, ...] = ()
        if missing(config):
            more = (
                Stage(
                    MORE,
                    draw,
                    inputs=("test_samples",),
                    reads=("evaluation.samples", *drawn_by("evaluation"), *SAMPLING),
                    opens=lambda _: ("student",),
                    estimate=lambda c: missing(c) * draft_tokens(c),
                    checks=(check_engine,),
                    own={"samples": wanted},
                ),
                Stage(
                    SCORES,
                    _score,
                    inputs=(MORE, *REWARD_MODELS),
                    reads=("engine",),
                    opens=lambda _: REWARD_MODELS,
                    checks=(check_engine,),
                ),
            )
        measuring = Stage(
            MEASURE,
            measure,
            inputs=("test_samples", "test_scores", *(stage.name for stage in more)),
            reads=BOOTSTRAP,
            opens=lambda _: (),
            own={"samples": wanted},
        )
        return (*more, measuring)

    return Study(
        "rerank",
        "The ways to reduce step scores to one score, for every reward model and K (App. D).",
        stages,
        tables,
        charts,
        findings,
        settings=settings,
        build=study,
    )


def _score(ctx: StageContext) -> None:
    """Every reward model on the new samples: a part each."""
    problems, samples = problems_by_id(ctx, "test"), ctx.read(MORE, Solution)
    for model in REWARD_MODELS:
        score(ctx, model, samples, problems, part=model)


def measure(ctx: StageContext) -> None:
    """Accuracies at every K, and differences to `final`."""
    index, groups = _read(ctx)
    units = [index.cluster_of[p] for p in groups]
    samples = list(groups.values())
    right = [[s.correct == "right" for s in g] for g in samples]
    found: list[Measured] = []
    chosen: dict[tuple[str, str], list[float]] = {}
    n = min(map(len, samples), default=0)

    def add(row: tuple[str, str], k: int, values: list[float]) -> None:
        estimate = index.resampler.mean(units, values)
        found.append(share(CURVES, row, f"K = {k}", estimate, x=k))

    for model in REWARD_MODELS:
        for how in AGGREGATES:
            scores = [
                [aggregate(index.step_scores(model, s) or (), how) for s in g] for g in samples
            ]
            for k in grid(n):
                values = [rerank_at_k(s, r, k) for s, r in zip(scores, right, strict=True)]
                add((MODEL_NAMES[model], how), k, values)
                chosen[model, how] = values
            for k in grid(n):
                values = [
                    majority_at_k(g, k, ctx.seed, weights)
                    for g, weights in zip(samples, scores, strict=True)
                ]
                add((f"{WEIGHTED}, {MODEL_NAMES[model]}", how), k, values)
                chosen[f"{WEIGHTED} {model}", how] = values
    for k in grid(n):
        voted = [majority_at_k(g, k, ctx.seed) for g in samples]
        add((MODEL_NAMES[MAJORITY], ""), k, voted)
        chosen[MAJORITY, ""] = voted
        add((MODEL_NAMES[PASS], ""), k, [pass_at_k(len(r), sum(r), k) for r in right])
    found += _differences(index, units, chosen)
    ctx.write(found, Measured)
    ctx.count(numbers=len(found), samples=sum(map(len, samples)))


def _read(ctx: StageContext) -> tuple[Index, dict[str, list[Solution]]]:
    """Look-ups, and the samples of every question: those of the run first."""
    problems = tuple(ctx.read("problems", Problem, "test"))
    samples = list(ctx.read("test_samples", Solution))
    scores = [
        s
        for model in REWARD_MODELS
        for s in ctx.read("test_scores", StepScores, f"samples_{model}")
    ]
    if MORE in ctx.sources:
        samples += ctx.read(MORE, Solution)
        scores += [s for model in REWARD_MODELS for s in ctx.read(SCORES, StepScores, model)]
    inputs = EvaluationInputs("", problems, (), tuple(samples), scores=tuple(scores))
    options = EvaluationOptions(
        bootstrap_samples=ctx.config.evaluation.bootstrap_samples, seed=ctx.seed
    )
    return Index(inputs, options, keeps=True), by_problem(samples)


def _differences(
    index: Index, units: Sequence[str], chosen: dict[tuple[str, str], list[float]]
) -> list[Measured]:
    """With all samples, paired: each aggregate minus `final`, and everything minus majority."""
    paired, found = index.resampler.paired, []
    for model in REWARD_MODELS:
        final, name = chosen[model, "final"], MODEL_NAMES[model]
        for how in AGGREGATES:
            values, row = chosen[model, how], (name, how)
            own = None if how == "final" else paired(units, values, final)
            weighted = chosen[f"{WEIGHTED} {model}", how]
            found += [
                difference(GAINS, row, "− final", own),
                difference(GAINS, row, "− majority", paired(units, values, chosen[MAJORITY, ""])),
                difference(
                    GAINS,
                    row,
                    f"{WEIGHTED} − majority",
                    paired(units, weighted, chosen[MAJORITY, ""]),
                ),
            ]
        gain = paired(units, final, chosen[model, "min"])
        found.append(difference(LAST, name, "final − min", gain))
    return found


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Accuracies by K, differences, last against minimum."""
    found = read_measured(folder, MEASURE)
    n = max((m.n for m in found if m.table == CURVES), default=0)
    k = max((int(m.x or 0) for m in found if m.table == CURVES), default=0)
    return [
        pivot(
            found,
            CURVES,
            "Rerank · accuracy by reward model and aggregate",
            f"Share of {n} test questions answered right when one of K samples is chosen.",
            ("reward model", "aggregate"),
        ),
        pivot(
            found,
            GAINS,
            f"Rerank · differences with all {k} samples",
            "Paired, on the same questions, in points.",
            ("reward model", "aggregate"),
        ),
        pivot(
            found,
            LAST,
            f"Rerank · the last step's score against the minimum, with all {k} samples",
            "Published: models trained on rollout labels rank best by the last step, those trained "
            "on human labels by the minimum (arXiv 2501.07301).",
            "reward model",
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Curves by `final`; for the SORM, every aggregate."""
    found = [m for m in read_measured(folder, MEASURE) if m.table == CURVES]
    final = [dataclasses.replace(m, row=m.row[:1]) for m in found if m.row[1] in ("", "final")]
    sorm = [dataclasses.replace(m, row=m.row[1:]) for m in found if m.row[0] == MODEL_NAMES["sorm"]]
    return [
        line_chart(
            shown,
            CURVES,
            title,
            "Bands: 95 % intervals over questions.",
            "K samples",
            "% right",
            id=name,
            x_scale="log",
        )
        for shown, title, name in (
            (final, "Choosing one of K samples, by the score after the last step", "rerank-models"),
            (sorm, "The SORM's step scores, reduced in every way", "rerank-aggregates"),
        )
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """The best way, and whether last beats minimum."""
    found = read_measured(folder, MEASURE)
    k = max(int(m.x or 0) for m in found if m.table == CURVES)
    at_k = [m for m in found if m.table == CURVES and m.x == k and m.row[0] != MODEL_NAMES[PASS]]
    best = max(at_k, key=lambda m: m.value or 0.0)
    voted = find(found, CURVES, (MODEL_NAMES[MAJORITY], ""), f"K = {k}")
    said = [
        f"With K = {k}, the best of all ways is {best.row[0]} by {best.row[1] or 'count'} "
        f"({percent(estimate_of(best))} %, chosen after the fact); majority voting gives "
        f"{percent(estimate_of(voted))} %."
    ]
    for m in found:
        if m.table == LAST and m.value is not None:
            d = difference_in(m)
            shown = "" if d.excludes_zero else " (no difference shown)"
            said.append(f"{m.row[0]}: last minus minimum {points(d)} points{shown}.")
    return said


STUDY = study(RerankSettings())
