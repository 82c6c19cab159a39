"""Study `self-filter`: SORMs that filter their own training labels (App. I).

A SORM of one epoch and one of two judge the steps that they learned from. A label that the model
disagrees with is left out, and a SORM is trained anew on the rest. Measured: accuracy on the
training steps (against their labels) and on the test drafts, how many labels stay, and whether
those that stay agree better with the exact truth.

Assumption: the judged model has seen the labels that it judges, as in the paper, so it filters what
it could not memorise. The anew-trained models have the run's settings. If the run's SORM has one or
two epochs, it is that model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.pipeline import Stage, StageContext
from glore.records import Solution, StepLabels, StepScores
from glore.report.views import TableView
from glore.stages.checks import check_engine
from glore.stages.common import problems_by_id, score
from glore.stages.labelling import train_drafts
from glore.stages.reward import train_reward_model
from glore.statistics import Resampler
from glore.studies.judging import (
    label_agreement,
    read_scored,
    reference_labels,
    reward_stage,
    score_stage,
    step_rows,
)
from glore.studies.measured import Measured, number, pivot, read_measured, share
from glore.studies.paired import question_index
from glore.studies.study import Study

__all__ = ["STUDY", "filtered"]

EPOCHS = (1, 2)
JUDGED, SCORES, RESULTS = "self_filter_judged", "self_filter_scores", "self_filter_results"
TRAIN, STEPS = "self-filter", "self-filter-steps"
PAPER = {
    "1 epoch": "91 / 75",
    "2 epochs": "95 / 78",
    "anew, filtered by 1 epoch": "– / 79",
    "anew, filtered by 2 epochs": "– / 79",
}
"""Accuracy on training / test steps, %."""


def filtered(
    labels: Sequence[StepLabels], scores: Mapping[str, tuple[float, ...]], threshold: float
) -> list[StepLabels]:
    """The labels, kept only where the model agrees: its probability is on their side of the
    threshold. `scores`: by solution id.
    """
    return [
        r
        if r.labels is None or r.kept is None
        else dataclasses.replace(
            r,
            kept=tuple(
                kept and (p > threshold) == label
                for kept, label, p in zip(r.kept, r.labels, scores[r.solution_id], strict=True)
            ),
        )
        for r in labels
    ]


def _epochs_name(epochs: int) -> str:
    return f"{epochs} epoch" + ("s" if epochs > 1 else "")


def _judges(config: RunConfig) -> dict[str, str]:
    """Name of each SORM that filters → its folder."""
    return {
        _epochs_name(n): "sorm" if config.reward.sorm.epochs == n else f"sorm_epochs_{n}"
        for n in EPOCHS
    }


def _models(config: RunConfig) -> dict[str, str]:
    judges = _judges(config)
    return judges | {f"anew, filtered by {name}": _anew(model) for name, model in judges.items()}


def _anew(model: str) -> str:
    return f"filtered_by_{model}"


def _stages(config: RunConfig) -> tuple[Stage, ...]:
    judges, models = _judges(config), _models(config)
    return (
        *(
            reward_stage(judges[_epochs_name(n)], _train_epochs(n), ("labels",))
            for n in EPOCHS
            if judges[_epochs_name(n)] != "sorm"
        ),
        Stage(
            JUDGED,
            lambda ctx: _judge(ctx, tuple(judges.values())),
            inputs=("labels", *judges.values()),
            reads=("engine", "reward.draft_samples"),
            opens=lambda _: tuple(judges.values()),
            checks=(check_engine,),
        ),
        *(
            reward_stage(
                _anew(model), _train_anew(model), (JUDGED,), reads=("evaluation.threshold",)
            )
            for model in judges.values()
        ),
        score_stage(SCORES, models, tuple(models.values())),
        Stage(
            RESULTS,
            lambda ctx: _measure(ctx, judges, models),
            inputs=(SCORES, JUDGED, "test_labels"),
            reads=(
                *("evaluation.bootstrap_samples", "evaluation.threshold", "reward.draft_samples"),
            ),
            opens=lambda _: (),
            version=2,
        ),
    )


def _train_epochs(epochs: int) -> Callable[[StageContext], None]:
    def train(ctx: StageContext) -> None:
        train_reward_model(
            ctx,
            f"sorm_epochs_{epochs}",
            train_drafts(ctx),
            ctx.read("labels", StepLabels),
            "reward.sorm",
            epochs=epochs,
        )

    return train


def _judge(ctx: StageContext, models: Sequence[str]) -> None:
    """Scores of the labelled training drafts: a part for each model."""
    problems = problems_by_id(ctx, "train")
    for model in models:
        score(ctx, model, train_drafts(ctx), problems, part=model)


def _judged(ctx: StageContext, model: str) -> dict[str, tuple[float, ...]]:
    return {s.solution_id: s.p_correct for s in ctx.read(JUDGED, StepScores, model)}


def _train_anew(model: str) -> Callable[[StageContext], None]:
    def train(ctx: StageContext) -> None:
        labels = ctx.read("labels", StepLabels)
        kept = filtered(labels, _judged(ctx, model), ctx.config.evaluation.threshold)
        ctx.count(labels=_n_kept(labels), labels_kept=_n_kept(kept))
        train_reward_model(ctx, _anew(model), train_drafts(ctx), kept, "reward.sorm")

    return train


def _n_kept(labels: Sequence[StepLabels]) -> int:
    return sum(sum(r.kept or ()) for r in labels)


def _measure(ctx: StageContext, judges: Mapping[str, str], models: Mapping[str, str]) -> None:
    index = question_index(ctx, ctx.read("test_drafts", Solution))
    labels, truth = ctx.read("labels", StepLabels), ctx.read("labels", StepLabels, "truth")
    drafts = train_drafts(ctx)
    problem_of = {d.id: d.problem_id for d in drafts}
    before = label_agreement(ctx.config, drafts, labels, truth)
    found = [
        share(TRAIN, "all labels", "labels right", before),
        number(TRAIN, "all labels", "labels", _n_kept(labels), total=True),
    ]
    threshold = ctx.config.evaluation.threshold
    for name, model in judges.items():
        kept = filtered(labels, _judged(ctx, model), threshold)
        agrees = [
            (problem_of[r.solution_id], float(now))
            for r, after in zip(labels, kept, strict=True)
            for was, now in zip(r.kept or (), after.kept or (), strict=True)
            if was
        ]
        units = [u for u, _ in agrees]
        n_draws = ctx.config.evaluation.bootstrap_samples
        resampler = Resampler(units, n_draws=n_draws, seed=ctx.seed, keeps=True)
        row = f"kept by {name}"
        found += [
            share(TRAIN, row, "labels right", label_agreement(ctx.config, drafts, kept, truth)),
            number(TRAIN, row, "labels", _n_kept(kept), total=True),
            share(
                TRAIN,
                row,
                "training steps judged right",
                resampler.mean(units, [v for _, v in agrees]),
            ),
        ]
    of_drafts, _ = read_scored(ctx, SCORES, models)
    found += step_rows(index, STEPS, reference_labels(ctx), of_drafts, next(iter(models)))
    ctx.write(found, Measured)


def _tables(config: RunConfig, folder: Path) -> list[TableView]:
    found = read_measured(folder, RESULTS)
    steps = pivot(
        found,
        STEPS,
        "Self-filtering (App. I) · step accuracy on the test drafts",
        "Steps before the answer line, against the exact truth where the task knows it, else the "
        "labels of rollouts. The paper's column: accuracy on training / test steps, %.",
        "SORM",
        n_column=True,
    )
    rows = tuple((*row, PAPER.get(str(row[0]), "–")) for row in steps.rows)
    return [
        pivot(
            found,
            TRAIN,
            "Self-filtering (App. I) · labels that stay",
            "A label stays if the SORM that learned from it agrees. Right: as the exact truth, "
            "before the answer line.",
            "label set",
        ),
        dataclasses.replace(steps, columns=(*steps.columns, "paper, %"), rows=rows),
    ]


STUDY = Study(
    "self-filter",
    "SORMs of one and two epochs filter their own training labels; others learn from the rest "
    "(App. I).",
    _stages,
    _tables,
)
