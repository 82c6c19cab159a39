"""Study `prm`: reward models on step labels as people give them (App. H; Lightman et al. 2023,
*Let's Verify Step by Step*, arXiv 2305.20050).

The exact truth of the task stands in for people, on the drafts that the SORM learns from. As in
PRM800K, labels stop at the first mistake; beside that, all labels, each step judged by itself. A
step is neutral where truth and rollouts disagree: an error without consequence, or a true step
from which nobody finds the answer. Neutral counts as good, as bad, or not at all.

- `labels=FILE`: another PRM learns from a file of labelled solutions (PRM800K's layout, or another
  of docs/formats.md), whose neutral steps count as `neutral` says.
- `truth=false`: only that one, where the task knows no exact truth.

Measured: reranking by product, minimum, mean and last; ORM, SORM, PRM and majority over K (the main
figure of Let's Verify); step accuracy; and the PRM as a predictor of the final answer (App. H).

Left out: a head with three classes, and the label as a token of the language model. Two classes
with neutral on either side are what the paper and PRM800K's authors report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from glore.config import Settings
from glore.config.section import LocalPath
from glore.errors import ConfigError, RunError
from glore.evaluation.rerank_curves import MAJORITY, rerank_curves
from glore.formats.reading import read_solutions
from glore.pipeline import Stage, StageContext
from glore.pipeline.fingerprints import digest_of_files
from glore.records import Solution, StepLabels
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.solution_files.examples import LabelRule, training_solutions
from glore.stages.common import layout_of, problems_by_id, task_of
from glore.stages.labelling import train_drafts
from glore.stages.reward import train_on_steps, train_reward_model
from glore.stages.reward_training import start_of
from glore.studies.judging import (
    curve_rows,
    final_rows,
    read_scored,
    reference_labels,
    rerank_differences,
    rerank_rows,
    reward_stage,
    score_stage,
    step_rows,
)
from glore.studies.measured import Measured, line_chart, pivot, read_measured, share
from glore.studies.paired import question_index
from glore.studies.study import Study
from glore.tasks.protocol import OracleTask

__all__ = ["STUDY", "PrmSettings", "all_labels", "neutral_as", "until_first_mistake"]

PRM, ALL, FROM_FILE = "PRM", "PRM, all labels", "PRM, from the file"
NEUTRALS = {"good": True, "bad": False, "left out": None}
TRUTH_MODELS = {
    PRM: "prm",
    ALL: "prm_all_labels",
    **{f"PRM, neutral {name}": f"prm_neutral_{name.replace(' ', '_')}" for name in NEUTRALS},
}
FILE_MODELS = {FROM_FILE: "prm_file"}
RUN_MODELS = {"ORM": "orm", "SORM": "sorm"}
LABELS, SCORES, RESULTS = "prm_labels", "prm_scores", "prm_results"
RERANK, CURVES, DIFFERENCES = "prm-rerank", "prm-curves", "prm-differences"
STEPS, FINAL = "prm-steps", "prm-final"
WAYS = ("product", "min", "mean", "final")


class PrmSettings(Settings):
    """Of the study `prm`."""

    labels: LocalPath | None = None
    """A file of labelled solutions."""
    neutral: str = "good"
    """What its neutral labels become: `good`, `bad` or `missing`."""
    truth: bool = True
    """PRMs on the exact truth, too. False where the task does not know it."""


def until_first_mistake(record: StepLabels) -> StepLabels:
    """The labels up to the first negative one, which stays; later steps are not learned."""
    if record.labels is None or record.first_error is None:
        return record
    kept = tuple(i <= record.first_error for i in range(len(record.labels)))
    return dataclasses.replace(record, kept=kept, rule="prm")


def all_labels(draft: Solution, truth: Sequence[bool]) -> StepLabels:
    """Every step judged by itself, also after the first mistake."""
    labels = tuple(truth)
    first = labels.index(False) if False in labels else None
    return StepLabels(draft.id, labels, (True,) * len(labels), first, "prm all labels")


def neutral_as(truth: StepLabels, rollouts: StepLabels, neutral: bool | None) -> StepLabels:
    """The truth, where steps on which the rollouts disagree are neutral. Neutral steps become
    `neutral`, none: they are not learned. Labels stop at the first bad step.
    """
    if truth.labels is None or rollouts.labels is None:
        return dataclasses.replace(truth, labels=None, kept=None, first_error=None)
    agreed = [a == b for a, b in zip(truth.labels, rollouts.labels, strict=True)]
    pairs = list(zip(truth.labels, agreed, strict=True))
    first = next((i for i, (good, sure) in enumerate(pairs) if sure and not good), len(pairs))
    labels = tuple(good if sure or neutral is None else neutral for good, sure in pairs)
    kept = tuple(i <= first and (sure or neutral is not None) for i, (_, sure) in enumerate(pairs))
    error = next(
        (i for i, (x, k) in enumerate(zip(labels, kept, strict=True)) if k and not x), None
    )
    return StepLabels(truth.solution_id, labels, kept, error, "prm neutral")


def _make_labels(ctx: StageContext) -> None:
    """Labels of the training drafts for each PRM: a part for each, none without the truth."""
    drafts, truth = train_drafts(ctx), ctx.read("labels", StepLabels, "truth")
    rollouts, task = ctx.read("labels", StepLabels), task_of(ctx)
    if not isinstance(task, OracleTask):
        raise RunError(
            "the study prm needs step labels as people give them, and this task knows no exact "
            "truth of steps; give a file of them: labels=FILE truth=false"
        )
    problems = problems_by_id(ctx, "train")
    made = {
        PRM: [until_first_mistake(r) for r in truth],
        ALL: [all_labels(d, task.step_truth(problems[d.problem_id], d.steps)) for d in drafts],
        **{
            f"PRM, neutral {name}": [
                neutral_as(a, b, value) for a, b in zip(truth, rollouts, strict=True)
            ]
            for name, value in NEUTRALS.items()
        },
    }
    for name, labels in made.items():
        ctx.write(labels, StepLabels, TRUTH_MODELS[name])
    agree = zip(truth, rollouts, strict=True)
    ctx.count(
        drafts=len(drafts),
        neutral_steps=sum(
            x != y for a, b in agree for x, y in zip(a.labels or (), b.labels or (), strict=False)
        ),
    )


def _train(model: str) -> Callable[[StageContext], None]:
    def train(ctx: StageContext) -> None:
        labels = ctx.read(LABELS, StepLabels, model)
        train_reward_model(ctx, model, train_drafts(ctx), labels, "reward.sorm")

    return train


def _train_file(settings: PrmSettings) -> Callable[[StageContext], None]:
    def train(ctx: StageContext) -> None:
        from glore.training.examples import StepExample

        path = Path(settings.labels or "")
        rule = LabelRule("prm", neutral=settings.neutral)
        found, left_out = training_solutions(read_solutions(path), rule, str(path))
        ctx.count(solutions=len(found), left_out=left_out.total())
        start = start_of(ctx)
        layout = layout_of(ctx, start)
        examples = [
            StepExample(
                prompt=layout.solve(s.question),
                steps=tuple(map(layout.steps.text, s.steps)),
                labels=s.labels,
                kept=s.kept,
            )
            for s in found
        ]
        train_on_steps(ctx, FILE_MODELS[FROM_FILE], examples, "reward.sorm", start, layout)

    return train


def build(settings: Settings) -> Study:
    """The study with these settings. Raises ConfigError, DataError for a file that is not there."""
    assert isinstance(settings, PrmSettings)
    LabelRule("prm", neutral=settings.neutral)
    if settings.labels is not None and not Path(settings.labels).is_file():
        raise ConfigError(
            f"labels: there is no file {settings.labels}; give a file of labelled solutions"
        )
    if settings.labels is None and not settings.truth:
        raise ConfigError("truth: false leaves nothing to learn from; give a file, labels=FILE")
    return Study(
        "prm",
        "Reward models on step labels as people give them, against ORM, SORM and majority (App. H; "
        "Let's Verify Step by Step).",
        lambda config: _stages(settings),
        lambda config, folder: _tables(folder),
        lambda config, folder: _charts(folder),
        settings=settings,
        build=build,
    )


def _stages(settings: PrmSettings) -> tuple[Stage, ...]:
    models = TRUTH_MODELS if settings.truth else {}
    found: list[Stage] = []
    if settings.truth:
        found.append(
            Stage(
                LABELS,
                _make_labels,
                inputs=("labels",),
                reads=("task", "reward.draft_samples"),
                opens=lambda _: (),
            )
        )
        found += [reward_stage(m, _train(m), (LABELS,)) for m in models.values()]
    if settings.labels is not None:
        models = models | FILE_MODELS
        own = {
            "neutral": settings.neutral,
            "labels": digest_of_files({"labels": Path(settings.labels)}, "labels"),
        }
        stage = reward_stage(FILE_MODELS[FROM_FILE], _train_file(settings), ())
        found.append(dataclasses.replace(stage, own=own))
    everything = {**models, **RUN_MODELS}
    return (
        *found,
        score_stage(SCORES, everything, tuple(everything.values())),
        Stage(
            RESULTS,
            lambda ctx: _measure(ctx, everything),
            inputs=(SCORES, "test_labels"),
            reads=("evaluation.bootstrap_samples", "evaluation.threshold"),
            opens=lambda _: (),
        ),
    )


def _measure(ctx: StageContext, models: Mapping[str, str]) -> None:
    index = question_index(ctx, ctx.read("test_drafts", Solution))
    samples = ctx.read("test_samples", Solution)
    of_drafts, of_samples = read_scored(ctx, SCORES, models)
    first = next(iter(models))
    way = {name: "final" if name in RUN_MODELS else "product" for name in models}
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
                [(first, m) for m in models if m != first],
            ),
            *step_rows(index, STEPS, reference_labels(ctx), of_drafts, "ORM"),
            *final_rows(index, FINAL, of_drafts, "ORM"),
        ],
        Measured,
    )


def _tables(folder: Path) -> list[TableView]:
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            RERANK,
            "PRM · reranking all samples, by the way to reduce step scores",
            "Share of test questions answered right. Let's Verify scores a solution by the product "
            "of its steps; published since: models on people's labels rank best by the minimum, "
            "models on rollouts by the last step.",
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


def _charts(folder: Path) -> list[Chart]:
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


STUDY = build(PrmSettings())
