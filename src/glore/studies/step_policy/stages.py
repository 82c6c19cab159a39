"""The stages of the second half: trainings with PPO, and solutions of the test questions."""

from __future__ import annotations

import functools

from glore.pipeline import Stage, StageContext
from glore.records import Problem, Solution
from glore.solutions import by_problem
from glore.stages.checks import check_engine
from glore.stages.common import SAMPLING, drawn_by, layout_of, problems_by_id, sample
from glore.stages.estimates import draft_tokens, test_sample_tokens
from glore.stages.fine_tuning import TRAINING
from glore.stages.policy_gradient import check_policy_engine, in_turns, ppo_tokens, train_ppo
from glore.studies.step_policy.play import Players
from glore.studies.step_policy.settings import POLICIES, ShepherdSettings, StepPolicy
from glore.training.ppo.episodes import PolicyTokens

__all__ = ["TESTED", "policy_stages"]

TESTED = "shepherd_policy_tests"


def policy_stages(settings: ShepherdSettings) -> tuple[Stage, ...]:
    """The trainings, and the tests of what they made."""
    models = tuple(p.model for p in POLICIES)
    tested = Stage(
        TESTED,
        _test,
        inputs=("problems", *models),
        reads=("evaluation.samples", *drawn_by("evaluation"), *SAMPLING),
        opens=lambda _: models,
        estimate=lambda c: len(models) * (draft_tokens(c) + test_sample_tokens(c)),
        checks=(check_engine,),
    )
    return (*(_training(p, settings) for p in POLICIES), tested)


def _training(policy: StepPolicy, settings: ShepherdSettings) -> Stage:
    judges = (policy.judge,) if policy.judge else ()

    def run(ctx: StageContext) -> None:
        folder, problems = ctx.model_dir("student"), problems_by_id(ctx, "train")
        asked = [problems[i] for i in by_problem(ctx.read("samples", Solution))]
        players = Players(ctx, policy, settings, layout_of(ctx, folder), PolicyTokens(folder))
        items = in_turns(ctx, asked, lambda p: p.id, settings.prompts)
        train_ppo(ctx, policy.model, folder, settings, items, players.solve)

    return Stage(
        policy.model,
        run,
        inputs=("samples", "student", *judges),
        reads=SAMPLING,
        uses=TRAINING,
        models=(policy.model,),
        opens=lambda _: ("student", *judges),
        estimate=lambda c: ppo_tokens(c, settings, 1),
        checks=(check_engine, check_policy_engine),
        own={**settings.model_dump(exclude={"policy"}), **policy._asdict()},
    )


def _test(ctx: StageContext) -> None:
    """Greedy solutions and samples of the test questions by every policy. Parts: `greedy_MODEL`,
    `samples_MODEL`.
    """
    problems, drawn = ctx.read("problems", Problem, "test"), ctx.config.evaluation
    for policy in POLICIES:
        ask = functools.partial(
            sample, ctx, ctx.model_dir(policy.model), problems, source=policy.model
        )
        ask(part=f"greedy_{policy.model}")
        ask(n=drawn.samples, drawn=drawn, part=f"samples_{policy.model}")
