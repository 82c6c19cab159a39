"""The results of the study: scores of all models, reranking, step and answer accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glore.evaluation.rerank_curves import MAJORITY, rerank_curves
from glore.pipeline import Stage, StageContext
from glore.records import Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.judging import (
    curve_rows,
    final_rows,
    read_scored,
    reference_labels,
    rerank_differences,
    rerank_rows,
    score_stage,
    step_rows,
)
from glore.studies.measured import Measured, line_chart, pivot, read_measured, share
from glore.studies.paired import question_index
from glore.studies.prm.models import LABEL_TOKEN, LABEL_TOKEN_3, NEUTRAL_GOOD, THREE

__all__ = ["charts", "result_stages", "tables"]

RUN_MODELS = {"ORM": "orm", "SORM": "sorm"}
SCORES, NEUTRAL_BAD_SCORES, RESULTS = "prm_scores", "prm_neutral_bad_scores", "prm_results"
RERANK, CURVES, DIFFERENCES = "prm-rerank", "prm-curves", "prm-differences"
STEPS, FINAL = "prm-steps", "prm-final"
WAYS = ("product", "min", "mean", "final")
AS_BAD = {name: f"{name}, neutral as bad" for name in (THREE, LABEL_TOKEN_3)}
"""Models with three classes → the same with the other reading of neutral."""
PAIRS = ((THREE, NEUTRAL_GOOD), (LABEL_TOKEN, NEUTRAL_GOOD), (LABEL_TOKEN_3, THREE))
"""Heads that learned from the same labels."""


def result_stages(models: Mapping[str, str]) -> tuple[Stage, ...]:
    """Scores of the study's models and of the run's, and the numbers. `models`: name in the tables
    → folder.
    """
    everything = {**models, **RUN_MODELS}
    again = {AS_BAD[name]: models[name] for name in AS_BAD if name in models}
    scoring = [score_stage(SCORES, everything, tuple(everything.values()))]
    if again:
        inputs = tuple(again.values())
        scoring.append(score_stage(NEUTRAL_BAD_SCORES, again, inputs, neutral="bad"))
    measuring = Stage(
        RESULTS,
        lambda ctx: _measure(ctx, everything, again),
        inputs=(*(stage.name for stage in scoring), "test_labels"),
        reads=("evaluation.bootstrap_samples", "evaluation.threshold"),
        opens=lambda _: (),
        version=2,
    )
    return (*scoring, measuring)


def _measure(ctx: StageContext, models: Mapping[str, str], again: Mapping[str, str]) -> None:
    """`again`: models that were also scored with neutral as bad."""
    index = question_index(ctx, ctx.read("test_drafts", Solution))
    samples = ctx.read("test_samples", Solution)
    of_drafts, of_samples = read_scored(ctx, SCORES, models)
    if again:
        more_drafts, more_samples = read_scored(ctx, NEUTRAL_BAD_SCORES, again)
        of_drafts, of_samples = {**of_drafts, **more_drafts}, {**of_samples, **more_samples}
    first = next(iter(models))
    way = {name: "final" if name in RUN_MODELS else "product" for name in of_samples}
    shown = {name: of_samples[name] for name in (first, *RUN_MODELS)}
    voted = question_index(ctx, index.drafts, samples)
    ctx.write(
        [
            *rerank_rows(index, RERANK, samples, of_samples, WAYS),
            *curve_rows(index, CURVES, samples, shown, way),
            *(
                share(CURVES, MAJORITY, "accuracy", point.accuracy, float(point.k))
                for point in rerank_curves(voted)
                if point.way == MAJORITY
            ),
            *rerank_differences(
                index,
                DIFFERENCES,
                samples,
                of_samples,
                way,
                [
                    *((first, m) for m in of_samples if m != first),
                    *(pair for pair in PAIRS if set(pair) <= of_samples.keys()),
                ],
            ),
            *step_rows(index, STEPS, reference_labels(ctx), of_drafts, "ORM"),
            *final_rows(index, FINAL, of_drafts, "ORM"),
        ],
        Measured,
    )


def tables(folder: Path) -> list[TableView]:
    """The tables of the study, from its folder."""
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            RERANK,
            "PRM · reranking all samples, by the way to reduce step scores",
            "Share of test questions answered right. Let's Verify scores a solution by the product "
            "of its steps; published since: models on people's labels rank best by the minimum, "
            "models on rollouts by the last step. Neutral as bad: the same model, whose score is "
            "p(good) alone.",
            "reward model",
            n_column=True,
        ),
        pivot(
            found,
            DIFFERENCES,
            "PRM · differences with all samples",
            "First minus second, PRMs by product, ORM and SORM by the last step; paired on the "
            "same test questions.",
            ("first", "second"),
            n_column=True,
        ),
        pivot(
            found,
            STEPS,
            "PRM · step accuracy on the test drafts (App. H)",
            "Steps before the answer line, against the exact truth where the task knows it. The "
            "paper's PRM: 91 % of steps.",
            "reward model",
            n_column=True,
        ),
        pivot(
            found,
            FINAL,
            "PRM · as a predictor of the final answer (App. H)",
            "The score after the last step against the draft's verdict. The paper's PRM: 58 %.",
            "reward model",
            n_column=True,
        ),
    ]


def charts(folder: Path) -> list[Chart]:
    """The main figure of Let's Verify."""
    return [
        line_chart(
            read_measured(folder, RESULTS),
            CURVES,
            "PRM, ORM and majority over K",
            "Accuracy when the best of K samples is chosen: the PRM by the product over steps, ORM "
            "and SORM by the last one. Bands: 95 % intervals.",
            "K samples",
            "right, %",
            x_scale="log",
        )
    ]
