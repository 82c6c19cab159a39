"""Stages on the test questions: drafts, samples, step labels, scores, refinements, tables (methods
5 and 6).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from glore.config import RunConfig, load_run
from glore.errors import RunError
from glore.evaluation import EvaluationInputs, EvaluationOptions, evaluate, write_evaluation
from glore.evaluation.inputs import REFINERS, REWARD_MODELS, SFT_ORM
from glore.how import MarkedDraft, refine_requests
from glore.pipeline import StageContext
from glore.pipeline.marks import recorded_files
from glore.records import PrefixTrials, Problem, Solution, StepLabels, StepScores, read_records
from glore.solutions import first_of_each, graded_solution
from glore.stages.bases import chosen_round
from glore.stages.common import (
    lazy_engine,
    problems_by_id,
    sample,
    score,
    shard_size,
    task_of,
    truth_of,
    verdicts,
)
from glore.stages.reward import has_own_orm, roll_out
from glore.where import first_bad_step, label_drafts

__all__ = [
    "evaluate_run",
    "evaluation_options",
    "label_test_drafts",
    "read_inputs",
    "refine_test_drafts",
    "sample_test_questions",
    "score_test_drafts",
    "score_test_solutions",
    "solve_test_questions",
    "verify_test_drafts",
]

T = TypeVar("T")


def solve_test_questions(ctx: StageContext, model: str) -> None:
    """Greedy drafts of `models/MODEL`."""
    if _same_as_student(ctx, model):
        return
    sample(ctx, ctx.model_dir(model), ctx.read("problems", Problem, "test"), source=model)


def sample_test_questions(ctx: StageContext, model: str) -> None:
    """K samples per test question of `models/MODEL`."""
    if _same_as_student(ctx, model):
        return
    settings = ctx.config.evaluation
    problems = ctx.read("problems", Problem, "test")
    sample(
        ctx,
        ctx.model_dir(model),
        problems,
        source=model,
        n=settings.samples,
        temperature=settings.temperature,
    )


def _same_as_student(ctx: StageContext, model: str) -> bool:
    """Is this the SFT model, and the student too? Then its solutions are the student's, and the
    part stays empty.
    """
    if model != "sft" or chosen_round(ctx)[0] > 0:
        return False
    ctx.write([], Solution)
    ctx.count(skipped=1)
    return True


def verify_test_drafts(ctx: StageContext) -> None:
    """Verifying rollouts from the prefixes of the test drafts."""
    full = ctx.config.evaluation.label_full_counts or ctx.config.labels.full_counts
    settings = ctx.config.labels.model_copy(update={"full_counts": full})
    roll_out(ctx, ctx.read("test_drafts", Solution), problems_by_id(ctx, "test"), settings)


def label_test_drafts(ctx: StageContext) -> None:
    """Labels as in training, but not balanced; the truth where the task knows it. Parts: `part`,
    `truth`.
    """
    drafts = ctx.read("test_drafts", Solution)
    rule = ctx.config.labels.model_copy(update={"balance": False})
    labels, counts = label_drafts(
        drafts, ctx.read("test_rollouts", PrefixTrials), rule, seed=ctx.seed
    )
    ctx.write(labels, StepLabels)
    ctx.write(truth_of(ctx, drafts, problems_by_id(ctx, "test")), StepLabels, "truth")
    ctx.count(**dataclasses.asdict(counts))


def score_test_drafts(ctx: StageContext) -> None:
    """All reward models on the drafts: one part per model."""
    drafts, problems = ctx.read("test_drafts", Solution), problems_by_id(ctx, "test")
    for model in REWARD_MODELS:
        score(ctx, model, drafts, problems, part=model)


def refine_test_drafts(ctx: StageContext) -> None:
    """Every draft refined globally, and locally at the ORM's and at the SORM's first bad step where
    there is one.

    Parts: `global`, `local_orm`, `local_sorm`, `truth`.
    """
    task, engine, problems = (
        task_of(ctx),
        lazy_engine(ctx, ctx.model_dir("refiner")),
        problems_by_id(ctx, "test"),
    )
    drafts = [d for d in ctx.read("test_drafts", Solution) if d.steps]
    first = 0 if ctx.config.refiner.global_mark == "first" else None
    work_lists = {"global": [MarkedDraft(d, first) for d in drafts]}
    for model in ("orm", "sorm"):
        p_of = {
            s.solution_id: s.p_correct for s in ctx.read("test_draft_scores", StepScores, model)
        }
        marks = [
            MarkedDraft(d, first_bad_step(p_of[d.id], ctx.config.evaluation.threshold))
            for d in drafts
        ]
        work_lists[f"local_{model}"] = [m for m in marks if m.marked_step is not None]
    made: list[Solution] = []
    for kind, marked in work_lists.items():

        def work(shard: Sequence[MarkedDraft], kind: str = kind) -> list[Solution]:
            requests = refine_requests(
                shard,
                problems,
                kind,
                max_new_tokens=ctx.config.student.max_new_tokens,
                seed=ctx.seed,
            )
            results = {r.request.id: r.completions[0] for r in engine().run(requests)}
            ctx.count(tokens=sum(c.n_tokens for c in results.values()))
            return [
                graded_solution(
                    task,
                    problems[m.draft.problem_id],
                    results[request.id],
                    solution_id=request.id,
                    source=kind,
                    temperature=0.0,
                    draft_id=m.draft.id,
                )
                for m, request in zip(shard, requests, strict=True)
            ]

        refined = ctx.sharded(marked, shard_size(1), work, Solution, kind, unit="drafts")
        ctx.count(**verdicts(refined, kind))
        made += refined
    ctx.write(truth_of(ctx, made, problems), StepLabels, "truth")


def score_test_solutions(ctx: StageContext) -> None:
    """All reward models on samples and refinements, and the SFT student's own ORM on its samples,
    where it has one.

    Parts: `samples_MODEL`, `refined_MODEL`, `sft_orm`.
    """
    problems = problems_by_id(ctx, "test")
    samples = ctx.read("test_samples", Solution)
    refined = [s for kind in REFINERS for s in ctx.read("test_refinements", Solution, kind)]
    for model in REWARD_MODELS:
        score(ctx, model, samples, problems, part=f"samples_{model}")
        score(ctx, model, refined, problems, part=f"refined_{model}")
    if ctx.config.student.bootstrap == "sft":
        if has_own_orm(ctx.read("sft_samples", Solution)):
            score(ctx, SFT_ORM, ctx.read("sft_test_samples", Solution), problems, part=SFT_ORM)
        else:
            ctx.write([], StepScores, SFT_ORM)


def evaluate_run(ctx: StageContext) -> None:
    """All tables, as `report/evaluation.json`."""
    evaluation = evaluate(
        _gathered(ctx.read, ctx.config), evaluation_options(ctx.config), ctx.config.labels
    )
    write_evaluation(ctx.run_dir / "report" / "evaluation.json", evaluation)
    ctx.count(**dataclasses.asdict(evaluation.counts))


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

    return _gathered(read, config or load_run(run_dir))


class _Reader(Protocol):
    def __call__(self, stage: str, kind: type[T], part: str = "part") -> list[T]: ...


def _gathered(read: _Reader, config: RunConfig) -> EvaluationInputs:
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
