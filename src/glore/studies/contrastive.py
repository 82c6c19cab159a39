"""Study `contrastive`: a classifier against a pairwise reward model (App. F).

The contrastive model learns from pairs of a right and a wrong sample of one question that the right
one has the higher score, on the final token alone. The ORM and the Balanced ORM learn classes; the
Balanced ORM learns from the very samples of the pairs, so it differs in the loss (and in labels at
every step). All have the settings of the ORM. Scores of a pairwise model are no probabilities, so
nothing is compared with a threshold: the models rerank samples, and rank right above wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glore.config import RunConfig
from glore.evaluation.inputs import BALANCED_ORM, ORM
from glore.pipeline import Stage, StageContext
from glore.records import Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.stages.contrastive import contrastive
from glore.studies.judging import (
    above_rows,
    curve_rows,
    majority_row,
    read_scored,
    rerank_differences,
    rerank_rows,
    score_stage,
)
from glore.studies.measured import Measured, line_chart, pivot, read_measured, share
from glore.studies.paired import question_index
from glore.studies.study import Study

__all__ = ["STUDY"]

PAIRWISE = "contrastive"
MODELS: Mapping[str, str] = {
    PAIRWISE: contrastive.name,
    "ORM": ORM,
    "Balanced ORM": BALANCED_ORM,
}
SCORES, RESULTS = "contrastive_scores", "contrastive_results"
TABLE, CURVES, DIFFERENCES = "contrastive", "contrastive-curves", "contrastive-differences"
WAY = dict.fromkeys(MODELS, "final")


def _measure(ctx: StageContext) -> None:
    index = question_index(ctx, ctx.read("test_drafts", Solution))
    samples = ctx.read("test_samples", Solution)
    _, scores = read_scored(ctx, SCORES, MODELS)
    pairs = [(PAIRWISE, "ORM"), (PAIRWISE, "Balanced ORM")]
    ctx.write(
        [
            *rerank_rows(index, TABLE, samples, scores, ("final", "mean")),
            *above_rows(index, TABLE, samples, scores, WAY),
            share(TABLE, "majority", "final", majority_row(index, samples)),
            *curve_rows(index, CURVES, samples, scores, WAY),
            *rerank_differences(index, DIFFERENCES, samples, scores, WAY, pairs),
        ],
        Measured,
    )


def _stages(config: RunConfig) -> tuple[Stage, ...]:
    return (
        contrastive,
        score_stage(SCORES, MODELS, tuple(MODELS.values())),
        Stage(
            RESULTS,
            _measure,
            inputs=(SCORES,),
            reads=("evaluation.bootstrap_samples",),
            opens=lambda _: (),
            version=2,
        ),
    )


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            TABLE,
            "Contrastive reward model (App. F) · reranking all samples",
            "Share of test questions answered right by the sample with the best final score, or "
            "the best mean over steps; right above wrong: pairs of samples of one question. The "
            "majority has one number. The paper (GSM8K): classifier 56 %, contrastive 47 %.",
            "reward model",
            n_column=True,
        ),
        pivot(
            found,
            DIFFERENCES,
            "Contrastive reward model (App. F) · differences with all samples",
            "First minus second by the final score, paired on the same test questions.",
            ("first", "second"),
            n_column=True,
        ),
    ]


def _charts(config: RunConfig, folder: Path) -> list[Chart]:
    return [
        line_chart(
            read_measured(folder, RESULTS),
            CURVES,
            "Reranking by a classifier and by a pairwise model",
            "Accuracy when the best of K samples is chosen by the final score. Bands: 95 % "
            "intervals.",
            "K samples",
            "right, %",
            x_scale="log",
        )
    ]


STUDY = Study(
    "contrastive",
    "Classifier against pairwise reward model (App. F).",
    _stages,
    _tables,
    _charts,
)
