"""Math-Shepherd's second half, part of the study `shepherd`: the student is improved by PPO with a
reward at the end of each step, against a reward at the end of the solution alone (Wang et al. 2024,
arXiv 2312.08935, section 4: step-by-step PPO).

Rewards:

- step scores: every step earns the process reward model's score of it, as the paper has it;
- minimum: every step earns what it changes of the minimum of the scores so far, so a solution earns
  the minimum over its steps, and more steps can't earn more;
- ORM: the solution earns the ORM's score after its last step, at its last token;
- right answer: the solution earns 1 if its answer is right. No model: what the others stand in for.

The process reward model is the one of hard estimates with all completers. Whether the policy learns
to please it rather than to solve (reward hacking) is measured: mean reward beside accuracy, steps
and tokens of a solution, round by round.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from glore.engines.protocol import Completion, Engine
from glore.evaluation.rerank_curves import majority
from glore.pipeline import Stage, StageContext
from glore.prompts import PromptLayout
from glore.records import Problem, Solution
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.solutions import by_problem, graded_solution
from glore.stages.checks import check_engine
from glore.stages.common import (
    SAMPLING,
    drawn_by,
    layout_of,
    problems_by_id,
    sample,
    step_scorer,
    task_of,
)
from glore.stages.estimates import draft_tokens, test_sample_tokens
from glore.stages.fine_tuning import TRAINING
from glore.stages.policy_gradient import (
    check_policy_engine,
    draw,
    in_turns,
    ppo_tokens,
    train_ppo,
)
from glore.studies.measured import Measured, line_chart, number, pivot, read_measured, share
from glore.studies.paired import differences, estimate, question_index, right
from glore.studies.ppo_rounds import round_curves, round_rows
from glore.tasks.protocol import Task
from glore.training.ppo.episodes import Episode, PolicyTokens, at_the_end, at_the_steps, step_ends
from glore.training.ppo.settings import PpoSettings

__all__ = [
    "POLICIES",
    "ShepherdSettings",
    "StepPolicy",
    "minimum_rewards",
    "policy_charts",
    "policy_stages",
    "policy_tables",
]

PRM = "shepherd_hard"
TESTED, RESULTS = "shepherd_policy_tests", "shepherd_policy_results"
TABLE, DIFFERENCES = "shepherd-policy", "shepherd-policy-differences"
ROUNDS, CURVES = "shepherd-policy-rounds", "shepherd-policy-curves"
STUDENT = "student"


class ShepherdSettings(PpoSettings):
    """Of the study `shepherd`: those of PPO, `prompts` being questions, and its own."""

    policy: bool = True
    """Whether policies are trained with the rewards, too."""


class StepPolicy(NamedTuple):
    """One training with PPO."""

    model: str
    about: str
    """As tables name it."""
    judge: str
    """The reward model; empty: the right answer."""
    reward: Literal["steps", "minimum", "end"]


POLICIES = (
    StepPolicy("shepherd_ppo_steps", "PPO, step scores", PRM, "steps"),
    StepPolicy("shepherd_ppo_minimum", "PPO, minimum", PRM, "minimum"),
    StepPolicy("shepherd_ppo_orm", "PPO, ORM at the end", "orm", "end"),
    StepPolicy("shepherd_ppo_right", "PPO, right answer at the end", "", "end"),
)


def minimum_rewards(scores: Sequence[float]) -> list[float]:
    """What each step changes of the minimum of the scores so far; before the first step it is 0.
    They add up to the minimum of all.
    """
    least = list(itertools.accumulate(scores, min))
    return [b - a for a, b in itertools.pairwise([0.0, *least])]


@dataclasses.dataclass(frozen=True, slots=True)
class _Players:
    """What the rounds of one policy need besides the policy."""

    ctx: StageContext
    policy: StepPolicy
    settings: ShepherdSettings
    layout: PromptLayout
    tokens: PolicyTokens

    def solve(self, engine: Engine, r: int, problems: Sequence[Problem]) -> list[Episode]:
        """Solutions of these questions in round r, rewarded."""
        task = task_of(self.ctx)
        prompts = {p.id: self.layout.solve(p.question) for p in problems}
        found = draw(self.ctx, engine, prompts, self.settings, r)
        made = [
            (p, self._graded(task, p, c, k), c)
            for p in problems
            for k, c in enumerate(found[p.id])
            if c.tokens
        ]
        if not self.policy.judge:
            made = [m for m in made if m[1].correct != "unknown"]
        rewards = self._rewards([(p.question, s) for p, s, _ in made], [c for *_, c in made])
        return [
            Episode(
                id=s.id,
                problem_id=p.id,
                kind="solution",
                prompt_ids=self.tokens.prompt(prompts[p.id]),
                response_ids=c.tokens or (),
                rewards=paid,
                correct=s.correct,
                draft_correct="",
                copied=False,
                n_steps=len(s.steps),
            )
            for (p, s, c), paid in zip(made, rewards, strict=True)
        ]

    def _graded(self, task: Task, problem: Problem, completion: Completion, k: int) -> Solution:
        return graded_solution(
            task,
            problem,
            completion,
            solution_id=f"{problem.id}/{k}",
            source=self.policy.model,
            temperature=self.settings.temperature,
            steps=self.layout.steps,
        )

    def _rewards(
        self, solved: Sequence[tuple[str, Solution]], completions: Sequence[Completion]
    ) -> list[tuple[float, ...]]:
        """Of every drawn token. A solution without steps earns nothing."""
        judge, kind = self.policy.judge, self.policy.reward
        if not judge:
            return [
                at_the_end(c.n_tokens, float(s.correct == "right"))
                for (_, s), c in zip(solved, completions, strict=True)
            ]
        scored = iter(step_scorer(self.ctx, judge)([(q, s.steps) for q, s in solved if s.steps]))
        self.ctx.release(judge)
        found = []
        for (_, s), c in zip(solved, completions, strict=True):
            scores = next(scored) if s.steps else ()
            if kind == "end" or not scores:
                found.append(at_the_end(c.n_tokens, scores[-1] if scores else 0.0))
                continue
            ends = step_ends(c.tokens or (), self.tokens.text, self.layout.steps)
            # Text that is cut, or dropped as no text, can hold more steps than the solution has.
            ends = [*ends, *(c.n_tokens - 1 for _ in scores)][: len(scores)]
            rewards = minimum_rewards(scores) if kind == "minimum" else scores
            found.append(at_the_steps(c.n_tokens, ends, rewards))
        return found


def policy_stages(settings: ShepherdSettings) -> tuple[Stage, ...]:
    """The trainings, the tests of what they made, and the numbers."""
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
    results = Stage(
        RESULTS,
        _measure,
        inputs=(TESTED, "test_drafts", "test_samples", *models),
        reads=("evaluation.bootstrap_samples", "evaluation.samples"),
        opens=lambda _: (),
    )
    return (*(_training(p, settings) for p in POLICIES), tested, results)


def _training(policy: StepPolicy, settings: ShepherdSettings) -> Stage:
    judges = (policy.judge,) if policy.judge else ()

    def run(ctx: StageContext) -> None:
        folder, problems = ctx.model_dir("student"), problems_by_id(ctx, "train")
        asked = [problems[i] for i in by_problem(ctx.read("samples", Solution))]
        players = _Players(ctx, policy, settings, layout_of(ctx, folder), PolicyTokens(folder))
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


def _measure(ctx: StageContext) -> None:
    made = {STUDENT: (ctx.read("test_drafts", Solution), ctx.read("test_samples", Solution))}
    for p in POLICIES:
        greedy, drawn = (
            ctx.read(TESTED, Solution, f"{kind}_{p.model}") for kind in ("greedy", "samples")
        )
        made[p.about] = (greedy, drawn)
    drafts = made[STUDENT][0]
    index, ids = question_index(ctx, drafts), [d.problem_id for d in drafts]
    voted = f"majority of {ctx.config.evaluation.samples}"
    values: dict[str, dict[str, list[float]]] = {"greedy": {}, voted: {}}
    found: list[Measured] = []
    for way, (greedy, drawn) in made.items():
        groups = by_problem(drawn)
        values["greedy"][way] = right(greedy)
        values[voted][way] = right(majority(groups.get(i, [])) for i in ids)
        found += [
            share(TABLE, way, column, estimate(index, ids, of_way[way]))
            for column, of_way in values.items()
        ]
        one = [float(s.correct == "right") for s in drawn]
        found.append(
            share(TABLE, way, "one sample", estimate(index, [s.problem_id for s in drawn], one))
        )
        found.append(number(TABLE, way, "steps", _mean([len(s.steps) for s in greedy])))
        found.append(number(TABLE, way, "tokens", _mean([s.n_tokens for s in greedy])))
    first = POLICIES[0].about
    pairs = [
        *((p.about, STUDENT) for p in POLICIES),
        *((first, p.about) for p in POLICIES[1:]),
    ]
    for column, of_way in values.items():
        found += differences(index, DIFFERENCES, ids, of_way, pairs, column)
    ctx.write([*found, *_by_round(ctx)], Measured)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _by_round(ctx: StageContext) -> list[Measured]:
    return [
        m
        for p in POLICIES
        for m in (
            *round_rows(ctx, ROUNDS, p.model, p.about, ("right",)),
            *round_curves(ctx, CURVES, p.model, p.about),
        )
    ]


def policy_tables(folder: Path) -> list[TableView]:
    """The tables of this half, from the study's folder."""
    found = read_measured(folder, RESULTS)
    return [
        pivot(
            found,
            TABLE,
            "Math-Shepherd · the student after PPO",
            "Share of test questions answered right; steps and tokens of a greedy solution. The "
            "paper, greedy: Mistral-7B 77.9 → 84.1 % on GSM8K and 28.6 → 33.0 % on MATH with step "
            "scores.",
            "policy",
            n_column=True,
        ),
        pivot(
            found,
            DIFFERENCES,
            "Math-Shepherd · PPO, differences",
            "First minus second, paired on the same test questions.",
            ("first", "second"),
            n_column=True,
        ),
        pivot(
            found,
            ROUNDS,
            "Math-Shepherd · PPO, the first and the last round",
            "Solutions of training questions that the policy drew. Reward that rises while fewer "
            "answers are right is reward hacking.",
            ("policy", "round"),
        ),
    ]


def policy_charts(folder: Path) -> list[Chart]:
    """The charts of this half."""
    found = read_measured(folder, RESULTS)
    return [
        line_chart(
            found,
            CURVES,
            f"Math-Shepherd · PPO by round: {title}",
            "Solutions of training questions that the policy drew in each round. Bands: 95 % "
            "intervals.",
            "round",
            label,
            id=f"{CURVES}-{column}",
            column=column,
        )
        for column, title, label in (
            ("right", "right answers", "right, %"),
            ("reward", "mean reward", "mean reward, hundredths"),
        )
    ]
