"""A round of PPO for solvers: the policy solves questions, its steps or solutions are rewarded."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from glore.engines.protocol import Completion, Engine
from glore.pipeline import StageContext
from glore.prompts import PromptLayout
from glore.records import Problem, Solution
from glore.solutions import graded_solution
from glore.stages.common import step_scorer, task_of
from glore.stages.policy_gradient import draw, episode_of
from glore.studies.step_policy.settings import ShepherdSettings, StepPolicy
from glore.tasks.protocol import Task
from glore.training.ppo.episodes import Episode, PolicyTokens, at_the_end, at_the_steps, step_ends

__all__ = ["Players", "minimum_rewards"]


def minimum_rewards(scores: Sequence[float]) -> list[float]:
    """What each step changes of the minimum of the scores so far; before the first step it is 0.
    They add up to the minimum of all.
    """
    least = list(itertools.accumulate(scores, min))
    return [b - a for a, b in itertools.pairwise([0.0, *least])]


@dataclasses.dataclass(frozen=True, slots=True)
class Players:
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
            episode_of("solution", s, c, self.tokens.prompt(prompts[p.id]), paid)
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
