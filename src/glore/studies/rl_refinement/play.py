"""A round of PPO for refiners: the policy refines drafts, and each refinement is rewarded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from glore.engines.protocol import Completion, Engine
from glore.evaluation.inputs import ORM
from glore.pipeline import StageContext
from glore.prompts import PromptLayout
from glore.records import Problem, Solution
from glore.solutions import graded_solution
from glore.stages.common import step_scorer, task_of
from glore.stages.policy_gradient import draw, episode_of
from glore.studies.refining import global_mark
from glore.studies.rl_refinement.rewards import REWARDS, Outcome
from glore.studies.rl_refinement.settings import RlRefinementSettings, Variant
from glore.tasks.protocol import Task
from glore.training.ppo.episodes import Episode, PolicyTokens, at_the_end

__all__ = ["Players"]

Scorer = Callable[[Sequence[tuple[str, tuple[str, ...]]]], list[tuple[float, ...]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Players:
    """What the rounds of one variant need besides the policy."""

    ctx: StageContext
    variant: Variant
    settings: RlRefinementSettings
    problems: Mapping[str, Problem]
    layout: PromptLayout
    tokens: PolicyTokens

    def refine(self, engine: Engine, r: int, drafts: Sequence[Solution]) -> list[Episode]:
        """Refinements of these drafts in round r, rewarded."""
        graded = self._refinements(engine, r, drafts, self.settings.samples)
        rewards = self._rewards([(d, s) for d, s, _ in graded])
        return [
            self._refinement(d, s, c, reward)
            for (d, s, c), reward in zip(graded, rewards, strict=True)
        ]

    def draft_and_refine(
        self, engine: Engine, r: int, problems: Sequence[Problem]
    ) -> list[Episode]:
        """Drafts of these questions, then one refinement of each draft. Both earn what the
        refinement does. A draft without steps or verdict is not refined, and not learned.
        """
        task = task_of(self.ctx)
        prompts = {p.id: self.layout.solve(p.question) for p in problems}
        found = draw(self.ctx, engine, prompts, self.settings, r)
        drafted = [
            (self._graded(task, p, c, f"{p.id}/{k}", None), c)
            for p in problems
            for k, c in enumerate(found[p.id])
        ]
        drawn = {s.id: (s, c) for s, c in drafted if s.steps and s.correct != "unknown"}
        graded = self._refinements(engine, r, [s for s, _ in drawn.values()], 1)
        rewards = self._rewards([(d, s) for d, s, _ in graded])
        drafts = [
            self._episode("draft", d, drawn[d.id][1], prompts[d.problem_id], reward)
            for (d, _, _), reward in zip(graded, rewards, strict=True)
        ]
        return [
            *drafts,
            *(
                self._refinement(d, s, c, reward)
                for (d, s, c), reward in zip(graded, rewards, strict=True)
            ),
        ]

    def _refinements(
        self, engine: Engine, r: int, drafts: Sequence[Solution], samples: int
    ) -> list[tuple[Solution, Solution, Completion]]:
        """(draft, refinement, its completion); without those that can't be graded."""
        task, mark = task_of(self.ctx), global_mark(self.ctx)
        prompts = {
            d.id: self.layout.refine(self.problems[d.problem_id].question, d.steps, mark)
            for d in drafts
        }
        found = draw(self.ctx, engine, prompts, self.settings, r, samples=samples)
        made = [
            (d, self._graded(task, self.problems[d.problem_id], c, f"{d.id}/{k}", d.id), c)
            for d in drafts
            for k, c in enumerate(found[d.id])
        ]
        self.ctx.count(unknown=sum(s.correct == "unknown" for _, s, _ in made))
        return [(d, s, c) for d, s, c in made if s.correct != "unknown" and c.tokens]

    def _graded(
        self, task: Task, problem: Problem, completion: Completion, id: str, draft_id: str | None
    ) -> Solution:
        return graded_solution(
            task,
            problem,
            completion,
            solution_id=id,
            source=self.variant.model,
            temperature=self.settings.temperature,
            draft_id=draft_id,
            steps=self.layout.steps,
        )

    def _rewards(self, pairs: Sequence[tuple[Solution, Solution]]) -> list[float]:
        """Of every (draft, refinement)."""
        reward = REWARDS[self.variant.reward]
        if self.variant.reward == "orm":
            of_drafts = self._orm([d for d, _ in pairs])
            of_refinements = self._orm([s for _, s in pairs])
        else:
            of_drafts = of_refinements = [0.0] * len(pairs)
        return [
            reward(Outcome(s.correct == "right", d.correct == "right", orm, draft_orm))
            for (d, s), orm, draft_orm in zip(pairs, of_refinements, of_drafts, strict=True)
        ]

    def _orm(self, solutions: Sequence[Solution]) -> list[float]:
        """The score after the last step; 0 without steps."""
        scored = [s for s in solutions if s.steps]
        score: Scorer = step_scorer(self.ctx, ORM)
        items = [(self.problems[s.problem_id].question, s.steps) for s in scored]
        last = iter([p[-1] for p in score(items)])
        self.ctx.release(ORM)
        return [next(last) if s.steps else 0.0 for s in solutions]

    def _refinement(
        self, draft: Solution, refinement: Solution, completion: Completion, reward: float
    ) -> Episode:
        question = self.problems[draft.problem_id].question
        prompt = self.layout.refine(question, draft.steps, global_mark(self.ctx))
        return dataclasses.replace(
            self._episode("refinement", refinement, completion, prompt, reward),
            draft_correct=draft.correct,
            copied=refinement.steps == draft.steps,
        )

    def _episode(
        self,
        kind: str,
        solution: Solution,
        completion: Completion,
        prompt: Sequence[str],
        reward: float,
    ) -> Episode:
        rewards = at_the_end(len(completion.tokens or ()), reward)
        return episode_of(kind, solution, completion, self.tokens.prompt(prompt), rewards)
