"""The stages of the study: data and trainings, and refinements of the test drafts by each way."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.engines.protocol import Request, SamplingParams
from glore.errors import RunError
from glore.evaluation.inputs import ORM
from glore.how import global_pairs
from glore.pipeline import Stage, StageContext, declare
from glore.prompts import PromptLayout
from glore.records import Problem, RefinementPair, Solution
from glore.seeds import stable_seed
from glore.solutions import by_problem, graded_solution, same_text
from glore.stages.checks import check_engine, check_training
from glore.stages.common import (
    SAMPLING,
    layout_of,
    lazy_engine,
    model_name,
    problems_by_id,
    sample,
    shard_size,
    task_of,
)
from glore.stages.estimates import draft_tokens, refiner_tokens
from glore.stages.fine_tuning import TRAINING, base_model, base_opened
from glore.stages.labelling import train_drafts
from glore.stages.policy_gradient import check_policy_engine, in_turns, ppo_tokens, train_ppo
from glore.stages.refining import refiner_opened, train_refiner
from glore.student import first_answer
from glore.studies.refining import global_mark
from glore.studies.rise.turns import answer_again
from glore.studies.rl_refinement.play import Players
from glore.studies.rl_refinement.settings import (
    EI_MODEL,
    RlRefinementSettings,
    Variant,
    variants,
)
from glore.tasks.grading.answers import with_answer_line
from glore.training.ppo.episodes import PolicyTokens

__all__ = ["DRAFTS", "PROMPTED_STAGE", "STUDENT", "TESTED", "refinement_stages", "shot_of"]

PROMPTED_STAGE, TESTED, DRAFTS = "rl_prompted", "rl_test_refinements", "drafts"
STUDENT = "student"
PAIRS = "rl_ei_pairs"
Steps = tuple[str, ...]
SHOT = (
    "Mia picked 12 apples and Tom picked 9. They put all of them into 3 bags, the same number in "
    "each. How many apples are in one bag?",
    ("Together they picked 12 + 9 = 20 apples.", "One bag holds 20 / 4 = 5 apples.", "#### 5"),
    ("Together they picked 12 + 9 = 21 apples.", "One bag holds 21 / 3 = 7 apples.", "#### 7"),
)
"""A worked refinement where the run has none: question, draft, refinement."""


def refinement_stages(config: RunConfig, settings: RlRefinementSettings) -> tuple[Stage, ...]:
    """All of them but the results, in order."""
    trained = variants(settings)
    return (
        ei_pairs,
        ei,
        _prompted(settings),
        *(_ppo(v, settings) for v in trained),
        _tested(trained),
    )


@declare(
    PAIRS,
    inputs=("samples",),
    reads=("refiner.global_mark", "task.merge_answer_line"),
    opens=lambda _: (),
)
def ei_pairs(ctx: StageContext) -> None:
    """Each distinct wrong sample of the student with one right sample of its question."""
    samples = ctx.read("samples", Solution)
    wrong = {
        (s.problem_id, same_text(s.steps)): s for s in samples if s.correct == "wrong" and s.steps
    }
    right = {
        i: list({same_text(s.steps): s.steps for s in group}.values())
        for i, group in by_problem([s for s in samples if s.correct == "right"]).items()
    }
    merge = ctx.config.task.merge_answer_line
    targets = {i: [with_answer_line(s, merge) for s in found] for i, found in right.items()}
    mark = ctx.config.refiner.global_mark
    found = global_pairs(list(wrong.values()), targets, seed=ctx.seed, mark=mark)
    ctx.write(found, RefinementPair)
    ctx.count(samples=len(samples), wrong=len(wrong), pairs=len(found))


@declare(
    EI_MODEL,
    inputs=("base", "student", PAIRS),
    reads=("refiner.init", "refiner.train"),
    uses=TRAINING,
    models=(EI_MODEL,),
    opens=refiner_opened,
    estimate=refiner_tokens,
    checks=(check_training("refiner.train"),),
)
def ei(ctx: StageContext) -> None:
    """The refiner of expert iteration, with the settings of the run's refiner."""
    found = ctx.read(PAIRS, RefinementPair)
    if not found:
        raise RunError(
            "no question has both a wrong and a right sample, so a refiner has nothing to learn "
            "from; draw more samples (reward.samples)"
        )
    train_refiner(ctx, EI_MODEL, found)


def _ppo(variant: Variant, settings: RlRefinementSettings) -> Stage:
    start = EI_MODEL if variant.from_ei else STUDENT
    judges = (ORM,) if variant.reward == "orm" else ()

    def run(ctx: StageContext) -> None:
        folder = ctx.model_dir(start)
        problems = problems_by_id(ctx, "train")
        drafts = [d for d in train_drafts(ctx) if d.steps and d.correct != "unknown"]
        players = Players(
            ctx, variant, settings, problems, layout_of(ctx, folder), PolicyTokens(folder)
        )
        train = functools.partial(train_ppo, ctx, variant.model, folder, settings)
        if variant.draws_drafts:
            asked = [problems[i] for i in by_problem(drafts)]
            items = in_turns(ctx, asked, lambda p: p.id, settings.prompts)
            train(items, players.draft_and_refine)
        else:
            refined = in_turns(ctx, drafts, lambda d: d.id, settings.prompts)
            train(refined, players.refine)

    return Stage(
        variant.model,
        run,
        inputs=("samples", start, *judges),
        reads=("refiner.global_mark", "reward.draft_samples", *SAMPLING),
        uses=TRAINING,
        models=(variant.model,),
        opens=lambda _: (start, *judges),
        estimate=lambda c: ppo_tokens(c, settings, 3 if variant.draws_drafts else 2),
        checks=(check_engine, check_policy_engine),
        own={**settings.model_dump(exclude={"variants", "prompted"}), **variant._asdict()},
    )


def shot_of(ctx: StageContext) -> tuple[str, Steps, Steps]:
    """Question, wrong draft and right refinement of one training question: the pair of EI with the
    smallest hash, or a built-in one.
    """
    problems = problems_by_id(ctx, "train")
    pairs = ctx.read(PAIRS, RefinementPair)
    chosen = min(pairs, key=lambda p: stable_seed(ctx.seed, "shot", p.draft_id), default=None)
    if chosen is None:
        return SHOT
    return problems[chosen.problem_id].question, chosen.draft_steps, chosen.target_steps


def _one_shot(
    layout: PromptLayout,
    shot: tuple[str, Steps, Steps],
    question: str,
    draft: Steps,
    mark: int | None,
) -> Steps:
    """The prompt of a refinement after a worked one. In a chat the worked one stands before the
    question, in the user's words.
    """
    example, wrong, right = shot
    if layout.chat is None:
        head = (*layout.refine(example, wrong, mark), *map(layout.steps.text, right), "\n")
        return (*head, *layout.refine(question, draft, mark))
    lines = "\n".join([example, "Draft:", *wrong, "Corrected solution:", *right])
    return layout.refine(f"{lines}\n\n{question}", draft, mark)


def _prompted(settings: RlRefinementSettings) -> Stage:
    by_base = settings.prompted == "base"
    return Stage(
        PROMPTED_STAGE,
        lambda ctx: _prompt(ctx, base_model(ctx) if by_base else ctx.model_dir("student")),
        inputs=("base" if by_base else "student", "test_drafts", PAIRS),
        reads=("refiner.global_mark", *SAMPLING),
        uses=TRAINING,
        opens=base_opened if by_base else lambda _: ("student",),
        estimate=draft_tokens,
        checks=(check_engine,),
        own={} if by_base else {"prompted": settings.prompted},
    )


def _prompt(ctx: StageContext, model: str | Path) -> None:
    """Greedy refinements of the test drafts by this model, with one worked refinement in the
    prompt.
    """
    engine, layout, task = lazy_engine(ctx, model), layout_of(ctx, model), task_of(ctx)
    shot, mark, problems = shot_of(ctx), global_mark(ctx), problems_by_id(ctx, "test")
    params = SamplingParams(temperature=0.0, max_new_tokens=ctx.config.student.max_new_tokens)

    def work(shard: Sequence[Solution]) -> list[Solution]:
        requests = [
            Request(
                d.id,
                _one_shot(layout, shot, problems[d.problem_id].question, d.steps, mark),
                (stable_seed(ctx.seed, ctx.name, d.id),),
                params,
            )
            for d in shard
        ]
        found = {r.request.id: r.completions[0] for r in engine().run(requests)}
        ctx.count(tokens=sum(c.n_tokens for c in found.values()))
        return [
            graded_solution(
                task,
                problems[d.problem_id],
                first_answer(found[d.id], layout.steps),
                solution_id=f"{d.id}/{ctx.name}",
                source=ctx.name,
                temperature=0.0,
                draft_id=d.id,
                steps=layout.steps,
            )
            for d in shard
        ]

    drafts = [d for d in ctx.read("test_drafts", Solution) if d.steps]
    ctx.sharded(drafts, shard_size(1), work, Solution, unit="drafts")
    ctx.release(model_name(model))


def _tested(trained: tuple[Variant, ...]) -> Stage:
    """Greedy refinements of the test drafts by the student, which PPO starts from, and by every
    trained model: a part of its name. Of one that draws drafts, too: its own drafts as
    `drafts_MODEL`, and their refinements.
    """
    models = (STUDENT, EI_MODEL, *(v.model for v in trained))
    own_drafts = {v.model for v in trained if v.draws_drafts}

    def run(ctx: StageContext) -> None:
        problems, marked = problems_by_id(ctx, "test"), global_mark(ctx) is not None
        for model in models:
            drafts = ctx.read("test_drafts", Solution)
            if model in own_drafts:
                asked: list[Problem] = list(problems.values())
                folder = ctx.model_dir(model)
                drafts = sample(ctx, folder, asked, source=model, part=f"{DRAFTS}_{model}")
            answer_again(
                ctx,
                model,
                [d for d in drafts if d.steps],
                problems,
                marked=marked,
                drawn=None,
                part=model,
            )

    return Stage(
        TESTED,
        run,
        inputs=("test_drafts", *models),
        reads=("refiner.global_mark", *SAMPLING),
        opens=lambda _: models,
        estimate=lambda c: draft_tokens(c) * (len(models) + len(own_drafts)),
        checks=(check_engine,),
    )
