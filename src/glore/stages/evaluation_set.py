"""Stages on the test questions: drafts, samples, step labels, scores, refinements (methods 5 and
6).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from glore.chat_template import step_format
from glore.decisions import MARKED_BY, Decisions, MarkedDraft, mark_drafts, refine_drafts
from glore.engines.protocol import Engine
from glore.evaluation.inputs import REFINERS, REWARD_MODELS, SFT_ORM
from glore.pipeline import Stage, StageContext, declare
from glore.records import PrefixTrials, Problem, Solution, StepLabels, StepScores
from glore.solutions import graded_solution
from glore.stages.checks import check_engine
from glore.stages.common import (
    SAMPLING,
    drawn_by,
    layout_of,
    lazy_engine,
    problems_by_id,
    sample,
    score,
    shard_size,
    task_of,
    truth_of,
    verdicts,
)
from glore.stages.diagnoses import judges_every_draft_alike, refiner_copies
from glore.stages.estimates import (
    draft_tokens,
    refinement_tokens,
    test_rollout_tokens,
    test_sample_tokens,
    unless_student,
)
from glore.stages.expert_iteration import chosen_round
from glore.stages.fine_tuning import longer
from glore.stages.labelling import LABELS, ROLLOUTS, roll_out, student_policy
from glore.stages.reward import has_own_orm
from glore.where import label_drafts

__all__ = [
    "draft_scores",
    "drafts",
    "labels",
    "refined_solutions",
    "refinements",
    "rollouts",
    "samples",
    "scores",
]

SCORING = ("student.bootstrap", "engine")


def drafts(name: str, model: str) -> Stage:
    """Greedy solutions of the test questions by `models/MODEL`."""

    def run(ctx: StageContext) -> None:
        if not _is_student_too(ctx, model):
            problems = ctx.read("problems", Problem, "test")
            sample(ctx, ctx.model_dir(model), problems, source=model)

    return Stage(
        name,
        run,
        inputs=("student",),
        reads=SAMPLING,
        opens=lambda _: (model,),
        estimate=unless_student(model, draft_tokens),
        checks=(check_engine,),
    )


def samples(name: str, model: str) -> Stage:
    """K samples per test question by `models/MODEL`."""

    def run(ctx: StageContext) -> None:
        if not _is_student_too(ctx, model):
            settings = ctx.config.evaluation
            sample(
                ctx,
                ctx.model_dir(model),
                ctx.read("problems", Problem, "test"),
                source=model,
                n=settings.samples,
                drawn=settings,
            )

    return Stage(
        name,
        run,
        inputs=("student",),
        reads=("evaluation.samples", *drawn_by("evaluation"), *SAMPLING),
        opens=lambda _: (model,),
        estimate=unless_student(model, test_sample_tokens),
        checks=(check_engine,),
    )


def _is_student_too(ctx: StageContext, model: str) -> bool:
    """Is this the SFT model, and the student too? Then its solutions are the student's, and the
    part stays empty.
    """
    if model != "sft" or chosen_round(ctx)[0] > 0:
        return False
    ctx.write([], Solution)
    ctx.count(skipped=1)
    return True


@declare(
    "test_rollouts",
    inputs=("test_drafts",),
    reads=(*ROLLOUTS, "evaluation.label_full_counts"),
    opens=lambda _: ("student",),
    estimate=test_rollout_tokens,
    checks=(check_engine,),
)
def rollouts(ctx: StageContext) -> None:
    """Verifying rollouts from the prefixes of the test drafts."""
    full = ctx.config.evaluation.label_full_counts or ctx.config.labels.full_counts
    settings = ctx.config.labels.model_copy(update={"full_counts": full})
    drafts, problems = ctx.read("test_drafts", Solution), problems_by_id(ctx, "test")
    roll_out(ctx, drafts, problems, settings, student_policy(ctx))


@declare("test_labels", inputs=("test_rollouts",), reads=LABELS, opens=lambda _: ())
def labels(ctx: StageContext) -> None:
    """Labels as in training, but not balanced; the truth where the task knows it. Parts: `part`,
    `truth`.
    """
    solutions = ctx.read("test_drafts", Solution)
    trials = ctx.read("test_rollouts", PrefixTrials)
    rule = ctx.config.labels.model_copy(update={"balance": False})
    steps = step_format(ctx.config.prompt)
    found, counts = label_drafts(solutions, trials, rule, seed=ctx.seed, steps=steps)
    ctx.write(found, StepLabels)
    ctx.write(truth_of(ctx, solutions, problems_by_id(ctx, "test")), StepLabels, "truth")
    ctx.count(**dataclasses.asdict(counts))


@declare(
    "test_draft_scores",
    inputs=("test_drafts", "orm", "balanced_orm", "sorm"),
    reads=SCORING,
    opens=lambda _: REWARD_MODELS,
    checks=(check_engine,),
)
def draft_scores(ctx: StageContext) -> None:
    """All reward models on the drafts: one part per model."""
    solutions, problems = ctx.read("test_drafts", Solution), problems_by_id(ctx, "test")
    for model in REWARD_MODELS:
        score(ctx, model, solutions, problems, part=model)


@declare(
    "test_refinements",
    inputs=("test_draft_scores", "refiner"),
    reads=("refiner.global_mark", "evaluation.threshold", *SAMPLING),
    uses=("reward.ready.orm",),
    opens=lambda _: ("refiner",),
    estimate=refinement_tokens,
    checks=(check_engine,),
)
def refinements(ctx: StageContext) -> None:
    """Every draft refined globally, and locally at the ORM's and at the SORM's first bad step where
    there is one.

    Parts: `global`, `local_orm`, `local_sorm`, `truth`.
    """
    problems = problems_by_id(ctx, "test")
    engine = lazy_engine(ctx, ctx.model_dir("refiner"))
    solutions = ctx.read("test_drafts", Solution)
    decisions = Decisions(threshold=ctx.config.evaluation.threshold)
    made: list[Solution] = []
    for kind, model in MARKED_BY.items():
        found = ctx.read("test_draft_scores", StepScores, model) if model else []
        scores = {s.solution_id: s.p_correct for s in found}
        mark_global = ctx.config.refiner.global_mark == "first"
        marked = mark_drafts(solutions, kind, scores, decisions, mark_global=mark_global)
        if model == "orm":
            verdicts_of_orm = [decisions.needs_work(scores[d.id]) for d in solutions]
            is_ready = ctx.config.reward.ready.orm is not None
            training = None if is_ready else longer(ctx, "reward.orm")
            ctx.warn(judges_every_draft_alike(model, verdicts_of_orm, solutions, training))

        refined = refined_solutions(ctx, marked, kind, problems, engine, part=kind)
        ctx.count(**verdicts(refined, kind))
        made += refined
    training = longer(ctx, "refiner.train")
    ctx.warn(refiner_copies(made, {d.id: d for d in solutions}, training))
    ctx.write(truth_of(ctx, made, problems), StepLabels, "truth")


def refined_solutions(
    ctx: StageContext,
    marked: Sequence[MarkedDraft],
    kind: str,
    problems: Mapping[str, Problem],
    engine: Callable[[], Engine],
    *,
    name: str = "",
    part: str = "part",
) -> list[Solution]:
    """Greedy refinements of marked drafts by the run's refiner, written as `part`.

    `kind`: how they were marked, and the solutions' source. `name`: ends their ids; the kind if
    empty.
    """
    task, layout = task_of(ctx), layout_of(ctx, ctx.model_dir("refiner"))
    questions = {i: p.question for i, p in problems.items()}

    def work(shard: Sequence[MarkedDraft]) -> list[Solution]:
        completions = refine_drafts(
            engine(),
            {kind: shard},
            questions,
            max_new_tokens=ctx.config.student.max_new_tokens,
            seed=ctx.seed,
            layout=layout,
        )[kind]
        ctx.count(tokens=sum(c.n_tokens for c in completions))
        refined = [
            graded_solution(
                task,
                problems[m.draft.problem_id],
                completion,
                solution_id=f"{m.draft.id}/{name or kind}",
                source=kind,
                temperature=0.0,
                draft_id=m.draft.id,
                steps=layout.steps,
            )
            for m, completion in zip(shard, completions, strict=True)
        ]
        ctx.curves.share("right", sum(s.correct == "right" for s in refined), len(refined))
        return refined

    return ctx.sharded(marked, shard_size(1), work, Solution, part, unit="drafts")


def scores(has_sft: bool) -> Stage:
    """The scores of samples and refinements; `has_sft`: of the SFT student's samples, too."""
    sft = ("sft_test_drafts", "sft_test_samples", "sft_orm") if has_sft else ()
    return Stage(
        "test_scores",
        _score_solutions,
        inputs=("test_samples", "test_refinements", *sft),
        reads=SCORING,
        opens=lambda _: (*REWARD_MODELS, *((SFT_ORM,) if has_sft else ())),
        checks=(check_engine,),
    )


def _score_solutions(ctx: StageContext) -> None:
    """All reward models on samples and refinements, and the SFT student's own ORM on its samples,
    where it has one.

    Parts: `samples_MODEL`, `refined_MODEL`, `sft_orm`.
    """
    problems = problems_by_id(ctx, "test")
    sampled = ctx.read("test_samples", Solution)
    refined = [s for kind in REFINERS for s in ctx.read("test_refinements", Solution, kind)]
    for model in REWARD_MODELS:
        score(ctx, model, sampled, problems, part=f"samples_{model}")
        score(ctx, model, refined, problems, part=f"refined_{model}")
    if ctx.config.student.bootstrap == "sft":
        if has_own_orm(ctx.read("sft_samples", Solution)):
            score(ctx, SFT_ORM, ctx.read("sft_test_samples", Solution), problems, part=SFT_ORM)
        else:
            ctx.write([], StepScores, SFT_ORM)
