"""The study `rerank` on samples: accuracies at every K, by every reward model and aggregate."""

from __future__ import annotations

from collections.abc import Sequence

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
from glore.pipeline import StageContext
from glore.records import Problem, Solution, StepScores
from glore.report.views import MODEL_NAMES
from glore.rerank import AGGREGATES, aggregate
from glore.solutions import by_problem
from glore.studies.measured import Measured, difference, share

__all__ = ["CURVES", "GAINS", "LAST", "MORE", "SCORES", "measure"]

MORE, SCORES = "more_samples", "more_scores"
CURVES, LAST, GAINS = "rerank", "rerank-last-min", "rerank-differences"
WEIGHTED = "weighted majority"


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
