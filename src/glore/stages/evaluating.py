"""Stage: the tables, from the records of the run (method 6)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol, TypeVar

from glore.chat_template import step_format
from glore.config import RunConfig, load_run
from glore.errors import RunError
from glore.evaluation import EvaluationInputs, EvaluationOptions, evaluate, write_evaluation
from glore.evaluation.card_metrics import write_card_metrics
from glore.evaluation.inputs import REFINERS, REWARD_MODELS, SFT_ORM
from glore.pipeline import Stage, StageContext
from glore.pipeline.integrity import recorded_files
from glore.records import PrefixTrials, Problem, Solution, StepLabels, StepScores, read_records
from glore.solutions import first_of_each

__all__ = ["EVALUATED", "evaluated", "evaluation", "evaluation_options", "gathered", "read_inputs"]

T = TypeVar("T")


EVALUATED = (
    "student.bootstrap",
    *(f"evaluation.{name}" for name in ("threshold", "aggregate", "best_of", "bootstrap_samples")),
    "labels",
    "reward.draft_samples",
)
"""Settings that `gathered` and `evaluation_options` read, and how labels are made."""


def evaluated(has_sft: bool) -> tuple[str, ...]:
    """The stages whose records `gathered` reads, with those that they come from."""
    sft = ("sft_test_drafts", "sft_test_samples") if has_sft else ()
    return ("labels", "test_labels", "test_scores", *sft)


def evaluation(has_sft: bool) -> Stage:
    """All tables; `has_sft`: those of the SFT student, too."""
    return Stage(
        "evaluate",
        _evaluate,
        inputs=evaluated(has_sft),
        reads=EVALUATED,
        uses=("name",),
        opens=lambda _: (),
    )


def _evaluate(ctx: StageContext) -> None:
    """All tables, as `report/evaluation.json`."""
    options = evaluation_options(ctx.config)
    steps = step_format(ctx.config.prompt)
    found = evaluate(gathered(ctx.read, ctx.config), options, ctx.config.labels, steps)
    write_evaluation(ctx.run_dir / "report" / "evaluation.json", found)
    write_card_metrics(ctx.run_dir / "models", found)
    ctx.count(**dataclasses.asdict(found.counts))


def evaluation_options(config: RunConfig) -> EvaluationOptions:
    """The settings that the tables depend on."""
    settings = config.evaluation
    return EvaluationOptions(
        threshold=settings.threshold,
        aggregate=settings.aggregate,
        best_of=settings.best_of,
        bootstrap_samples=settings.bootstrap_samples,
        seed=config.seed,
    )


def read_inputs(run_dir: Path, config: RunConfig | None = None) -> EvaluationInputs:
    """The records of a finished run that its tables are made of; `config`: the settings they were
    made with, if not those in its folder.

    Raises RunError where the run is not finished.
    """

    def read(stage: str, kind: type[T], part: str = "part") -> list[T]:
        files = recorded_files(run_dir / "stages" / stage, part)
        if not files:
            raise RunError(
                f"run {run_dir} has no {part} records of stage {stage}; finish it first with glore "
                "run"
            )
        return read_records(files, kind)

    return gathered(read, config or load_run(run_dir))


class _Reader(Protocol):
    def __call__(self, stage: str, kind: type[T], part: str = "part") -> list[T]: ...


def gathered(read: _Reader, config: RunConfig) -> EvaluationInputs:
    """The records of a run that its tables are made of. `read`: as `StageContext.read`."""
    has_sft = config.student.bootstrap == "sft"
    refinements = [s for kind in REFINERS for s in read("test_refinements", Solution, kind)]
    scores = [s for model in REWARD_MODELS for s in read("test_draft_scores", StepScores, model)]
    scored = [f"{what}_{model}" for what in ("samples", "refined") for model in REWARD_MODELS] + (
        [SFT_ORM] if has_sft else []
    )
    scores += [s for part in scored for s in read("test_scores", StepScores, part)]
    drafts, samples = read("test_drafts", Solution), read("test_samples", Solution)
    sft_drafts = read("sft_test_drafts", Solution) if has_sft else []
    sft_samples = read("sft_test_samples", Solution) if has_sft else []
    if has_sft and not sft_drafts:
        # The student is the SFT model: so are its solutions, and its ORM.
        sft_drafts, sft_samples, sampled = drafts, samples, {s.id for s in samples}
        scores += [
            dataclasses.replace(s, model=SFT_ORM)
            for s in scores
            if s.model == "orm" and s.solution_id in sampled
        ]
    train = first_of_each(read("samples", Solution), config.reward.draft_samples)
    return EvaluationInputs(
        name=config.name,
        problems=tuple(read("problems", Problem, "test")),
        drafts=tuple(drafts),
        samples=tuple(samples),
        sft_drafts=tuple(sft_drafts),
        sft_samples=tuple(sft_samples),
        refinements=tuple(refinements),
        scores=tuple(scores),
        draft_labels=tuple(read("test_labels", StepLabels)),
        draft_truth=(
            *read("test_labels", StepLabels, "truth"),
            *read("test_refinements", StepLabels, "truth"),
        ),
        test_trials=tuple(read("test_rollouts", PrefixTrials)),
        train_drafts=tuple(train),
        train_trials=tuple(read("rollouts", PrefixTrials)),
        train_labels=tuple(read("labels", StepLabels)),
        train_truth=tuple(read("labels", StepLabels, "truth")),
    )
