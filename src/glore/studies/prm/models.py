"""The reward models of the study, by the name that tables show, and the stages that train them."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from glore.config import RunConfig
from glore.errors import ConfigError, DataError, RunError
from glore.formats.reading import read_solutions
from glore.pipeline import Stage, StageContext
from glore.pipeline.fingerprints import digest_of_files
from glore.records import StepLabels
from glore.solution_files.examples import (
    LabelRule,
    TrainingSolution,
    head_for,
    step_examples,
    training_solutions,
)
from glore.stages.common import layout_of, problems_by_id, task_of, task_with
from glore.stages.labelling import train_drafts
from glore.stages.reward import train_on_steps, train_reward_model
from glore.stages.reward_training import start_of
from glore.step_head import BINARY, NEUTRAL_CLASS, StepHead
from glore.studies.judging import reward_stage
from glore.studies.prm.labels import all_labels, neutral_as, neutral_steps, until_first_mistake
from glore.tasks.protocol import OracleTask

if TYPE_CHECKING:
    from glore.studies.prm import PrmSettings

__all__ = [
    "FILE_MODEL",
    "FROM_FILE",
    "LABEL_TOKEN",
    "LABEL_TOKEN_3",
    "NEUTRAL_GOOD",
    "PRM",
    "THREE",
    "file_rule",
    "file_stage",
    "truth_models",
    "truth_stages",
]

PRM, ALL, FROM_FILE = "PRM", "PRM, all labels", "PRM, from the file"
NEUTRALS = {"good": True, "bad": False, "left out": None}
NEUTRAL_GOOD = "PRM, neutral good"
THREE = "PRM, three classes"
LABEL_TOKEN = "PRM, label token, neutral good"
LABEL_TOKEN_3 = "PRM, label token, three classes"
LABELS = "prm_labels"
FILE_MODEL = "prm_file"
NO_TRUTH = (
    "the study prm needs step labels as people give them, and this task knows no exact truth of "
    "steps; give a file of them: labels=FILE truth=false"
)


class _Learned(NamedTuple):
    """A model on the exact truth."""

    model: str
    """Its folder, and its stage."""
    labels: str
    """The part of the labels that it learns from."""
    head: StepHead = BINARY


def _of_truth(label_tokens: tuple[str, ...]) -> Mapping[str, _Learned]:
    """Name in the tables → the model."""
    neutral = {name: f"prm_neutral_{name.replace(' ', '_')}" for name in NEUTRALS}
    good = neutral["good"]
    two, three = (StepHead("label_token", n, label_tokens) for n in (2, 3))
    return MappingProxyType(
        {
            PRM: _Learned("prm", "prm"),
            ALL: _Learned("prm_all_labels", "prm_all_labels"),
            NEUTRAL_GOOD: _Learned(good, good),
            THREE: _Learned("prm_classes_3", good, StepHead("classes", 3)),
            LABEL_TOKEN: _Learned("prm_label_token", good, two),
            LABEL_TOKEN_3: _Learned("prm_label_token_3", good, three),
            **{
                f"PRM, neutral {name}": _Learned(m, m)
                for name, m in neutral.items()
                if name != "good"
            },
        }
    )


def truth_models() -> dict[str, str]:
    """Name in the tables → folder."""
    return {name: learned.model for name, learned in _of_truth(("+", "-", "?")).items()}


def truth_stages(label_tokens: tuple[str, ...]) -> tuple[Stage, ...]:
    """The labels of the training drafts, and a training for each model."""
    labelling = Stage(
        LABELS,
        _make_labels,
        inputs=("labels",),
        reads=("task", "reward.draft_samples"),
        opens=lambda _: (),
        checks=(_check_truth,),
    )
    trainings = []
    for learned in _of_truth(label_tokens).values():
        stage = reward_stage(learned.model, _train(learned), (LABELS,))
        own = {} if learned.head == BINARY else {"head": dataclasses.asdict(learned.head)}
        trainings.append(dataclasses.replace(stage, own=own))
    return (labelling, *trainings)


def _check_truth(config: RunConfig) -> None:
    if not isinstance(task_with(config), OracleTask):
        raise RunError(NO_TRUTH)


def _make_labels(ctx: StageContext) -> None:
    """Labels of the training drafts for each PRM: a part for each, none without the truth."""
    drafts, truth = train_drafts(ctx), ctx.read("labels", StepLabels, "truth")
    rollouts, task = ctx.read("labels", StepLabels), task_of(ctx)
    if not isinstance(task, OracleTask):
        raise RunError(NO_TRUTH)
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
    models = truth_models()
    for name, labels in made.items():
        ctx.write(labels, StepLabels, models[name])
    agree = zip(truth, rollouts, strict=True)
    ctx.count(
        drafts=len(drafts),
        neutral_steps=sum(
            x != y for a, b in agree for x, y in zip(a.labels or (), b.labels or (), strict=False)
        ),
    )


def _train(learned: _Learned) -> Callable[[StageContext], None]:
    def train(ctx: StageContext) -> None:
        labels = ctx.read(LABELS, StepLabels, learned.labels)
        neutral = {}
        if learned.head.n_classes > len(BINARY.names):
            neutral = neutral_steps(labels, ctx.read(LABELS, StepLabels, "prm_neutral_bad"))
        train_reward_model(
            ctx,
            learned.model,
            train_drafts(ctx),
            labels,
            "reward.sorm",
            head=learned.head,
            neutral=neutral,
        )

    return train


def file_rule(settings: PrmSettings) -> LabelRule:
    """What the PRM from a file learns. Raises ConfigError."""
    try:
        head = head_for(settings.head, settings.classes, settings.label_tokens, settings.neutral)
        return LabelRule("prm", neutral=settings.neutral, head=head)
    except ConfigError as error:  # it speaks of the options of `glore train`
        raise ConfigError(_OPTION.sub(_as_setting, str(error))) from error


_OPTION = re.compile(r"--([a-z-]+)( is\b)?(?: (\w+))?")


def _as_setting(found: re.Match[str]) -> str:
    name, verb, value = found[1].replace("-", "_"), found[2] or "", found[3]
    between = " " if verb else "="
    return f"{name}{verb}" + (f"{between}{value}" if value else "")


def file_stage(settings: PrmSettings) -> Stage:
    """The training on the file. Raises DataError for a file that is not there."""
    path, rule = Path(settings.labels or ""), file_rule(settings)

    def solutions() -> tuple[list[TrainingSolution], Counter[str]]:
        found, left_out = training_solutions(read_solutions(path), rule, str(path))
        if rule.has_neutral and not any(NEUTRAL_CLASS in s.labels for s in found):
            raise DataError(
                f"{path}: no step is neutral, so there is no third class; set classes=2"
            )
        return found, left_out

    def check(config: RunConfig) -> None:
        solutions()

    def train(ctx: StageContext) -> None:
        found, left_out = solutions()
        ctx.count(solutions=len(found), left_out=left_out.total())
        start = start_of(ctx)
        layout = layout_of(ctx, start)
        examples = step_examples(found, layout)
        train_on_steps(ctx, FILE_MODEL, examples, "reward.sorm", start, layout, head=rule.head)

    own: dict[str, object] = {
        "neutral": settings.neutral,
        "labels": digest_of_files({"labels": path}, "labels"),
    }
    if rule.head != BINARY:
        own["head"] = dataclasses.asdict(rule.head)
    stage = reward_stage(FILE_MODEL, train, ())
    return dataclasses.replace(stage, own=own, checks=(*stage.checks, check))
