"""What the stages share: tasks and models that are opened at first use, sampling and scoring shard
by shard.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glore.chat_template import prompt_layout
from glore.config import RunConfig
from glore.config.section import SamplingSettings
from glore.engines.protocol import Engine, SamplingParams
from glore.pipeline import StageContext
from glore.prompts import LINES, PromptLayout, Shot, StepFormat
from glore.records import Problem, Solution, StepLabels, StepScores
from glore.seeds import stable_seed
from glore.student import ONE_SHOT, sample_solutions
from glore.tasks.open import open_task
from glore.tasks.protocol import OracleTask, Task
from glore.where import truth_labels

if TYPE_CHECKING:
    from glore.engines.local.scorer import StepScorer
    from glore.reward_models.pool import PoolScorer

__all__ = [
    "SAMPLING",
    "drawn_by",
    "kept_scorer",
    "layout_of",
    "lazy_engine",
    "model_name",
    "problems_by_id",
    "sample",
    "score",
    "score_with_question",
    "seeded_choice",
    "shard_size",
    "step_scorer",
    "task_of",
    "task_with",
    "truth_of",
    "verdicts",
]

SAMPLING = ("student.max_new_tokens", "prompt", "engine")
"""What solutions of a student depend on, besides the model and how they are drawn."""
COMPLETIONS_PER_SHARD = 4096
"""Completions sampled between two commits, roughly. A kill loses at most that many."""
SCORES_PER_SHARD = 8192


def drawn_by(section: str) -> tuple[str, ...]:
    """The settings of a section that say how solutions are drawn."""
    return tuple(f"{section}.{name}" for name in SamplingSettings.model_fields)


def task_of(ctx: StageContext, form: StepFormat = LINES) -> Task:
    """The run's task. `form`: how worked solutions are cut into steps; grading needs none."""
    return open_task(ctx.config.task, ctx.seed, form)


def task_with(config: RunConfig) -> Task:
    """The task of these settings, for a check before the first stage."""
    return open_task(config.task, config.seed)


def problems_by_id(ctx: StageContext, *splits: str) -> dict[str, Problem]:
    """Problems of these splits, as the first stage wrote them."""
    return {p.id: p for split in splits for p in ctx.read("problems", Problem, split)}


def shard_size(completions_per_item: int) -> int:
    """Items per shard."""
    return min(2048, max(32, COMPLETIONS_PER_SHARD // max(1, completions_per_item)))


def lazy_engine(ctx: StageContext, model: str | Path) -> Callable[[], Engine]:
    """An engine that is loaded at first use: a stage whose shards are all there loads no model.

    It is closed by `ctx.release(model_name(model))`, or when the stage ends.
    """

    @functools.cache
    def opened() -> Engine:
        from glore.engines.open import open_engine

        engine = open_engine(model, ctx.config.engine, logs_warning=False)
        return ctx.keep(engine, model_name(model))

    return opened


def model_name(model: str | Path) -> str:
    """What a stage calls an open model: the last part of its folder or Hub name."""
    return Path(model).name


def sample(
    ctx: StageContext,
    model: str | Path,
    problems: Sequence[Problem],
    *,
    source: str,
    n: int = 1,
    drawn: SamplingSettings | None = None,
    part: str = "part",
    prompted: bool = False,
) -> list[Solution]:
    """n solutions of every problem from a student, written to `part` of this stage. `drawn`: how
    they are drawn; none: greedy. `prompted`: with worked examples in the prompt.
    """
    task, engine = task_of(ctx), lazy_engine(ctx, model)
    layout = functools.cache(lambda shots: prompt_layout(ctx.config.prompt, model, shots))
    shots_of = _shots(ctx) if prompted else lambda _: ()
    params = SamplingParams.of(drawn, ctx.config.student.max_new_tokens)

    def work(shard: Sequence[Problem]) -> list[Solution]:
        solutions = sample_solutions(
            engine(),
            task,
            shard,
            n=n,
            params=params,
            seed=ctx.seed,
            stage=ctx.name,
            source=source,
            progress=ctx.progress,
            layout_of=lambda problem: layout(shots_of(problem)),
            prompted=prompted,
        )
        ctx.count(tokens=sum(s.n_tokens for s in solutions))
        ctx.curves.share("right", sum(s.correct == "right" for s in solutions), len(solutions))
        return solutions

    solutions = ctx.sharded(problems, shard_size(n), work, Solution, part, unit="questions")
    ctx.release(model_name(model))
    ctx.count(**verdicts(solutions, part))
    return solutions


def _shots(ctx: StageContext) -> Callable[[Problem], tuple[Shot, ...]]:
    """A problem → the worked examples before its question (`student.shots`), of which it is none.

    They are worked training questions, the same ones for every problem; without any, `ONE_SHOT`.
    """
    n = ctx.config.student.shots
    worked = [] if n is None else ctx.read("problems", Problem, "train")
    ranked = sorted(
        (stable_seed(ctx.seed, "shots", p.id), p.id, (p.question, p.solution))
        for p in worked
        if p.solution is not None
    )
    if not ranked:
        built_in = () if n == 0 else (ONE_SHOT,)
        return lambda _: built_in
    return lambda problem: tuple(shot for _, i, shot in ranked[: (n or 0) + 1] if i != problem.id)[
        :n
    ]


def layout_of(ctx: StageContext, model: str | Path) -> PromptLayout:
    """How prompts for this model look."""
    return prompt_layout(ctx.config.prompt, model)


def verdicts(solutions: Iterable[Solution], part: str = "part") -> dict[str, int]:
    """Counts for `done.json`: how many solutions, how many right, how many could not be graded, how
    many ran out of tokens. If there are any: how many are longer than
    `prompt.max_solution_chars`, and how many have a thought apart.
    """
    found = list(solutions)
    prefix = "" if part == "part" else f"{part}_"
    rare = {"cut": sum(s.n_cut > 0 for s in found), "thoughts": sum(s.thought != "" for s in found)}
    return {
        f"{prefix}solutions": len(found),
        f"{prefix}right": sum(s.correct == "right" for s in found),
        f"{prefix}unknown": sum(s.correct == "unknown" for s in found),
        f"{prefix}out_of_tokens": sum(s.stop == "length" for s in found),
        **{f"{prefix}{name}": n for name, n in rare.items() if n},
    }


def score(
    ctx: StageContext,
    model: str,
    solutions: Sequence[Solution],
    problems: Mapping[str, Problem],
    part: str = "part",
    neutral: str | None = None,
) -> list[StepScores]:
    """One record per solution from that reward model, written to `part` of this stage. `neutral`:
    as in `step_scorer`.
    """
    scorer = functools.cache(lambda: step_scorer(ctx, model, neutral=neutral))

    def work(shard: Sequence[Solution]) -> list[StepScores]:
        scores = scorer()([(problems[s.problem_id].question, s.steps) for s in shard])
        return [StepScores(s.id, model, p) for s, p in zip(shard, scores, strict=True)]

    scores = ctx.sharded(solutions, SCORES_PER_SHARD, work, StepScores, part, unit="solutions")
    ctx.release(model)
    return scores


def score_with_question(
    ctx: StageContext,
    model: str,
    solutions: Sequence[Solution],
    problems: Mapping[str, Problem],
    part: str = "part",
) -> list[StepScores]:
    """As `score`, with one more score before the others: at the end of the bare question. Every
    solution has steps.
    """
    scorer = functools.cache(lambda: step_scorer(ctx, model, with_question=True))

    def work(shard: Sequence[Solution]) -> list[StepScores]:
        scores = scorer()([(problems[s.problem_id].question, s.steps) for s in shard])
        return [StepScores(s.id, model, p) for s, p in zip(shard, scores, strict=True)]

    scores = ctx.sharded(solutions, SCORES_PER_SHARD, work, StepScores, part, unit="solutions")
    ctx.release(model)
    return scores


def step_scorer(
    ctx: StageContext, model: str, *, with_question: bool = False, neutral: str | None = None
) -> Callable[[Sequence[tuple[str, tuple[str, ...]]]], list[tuple[float, ...]]]:
    """Load a reward model: (question, steps) → probability after each step; `with_question`: and
    before the first one; `neutral`: what the neutral class of a model with three counts as, `good`
    or `bad` (none: what its folder says).

    It is closed by `ctx.release(model)`, or when the stage ends.
    """
    return kept_scorer(ctx, model, with_question=with_question, neutral=neutral).score


def kept_scorer(
    ctx: StageContext, model: str, *, with_question: bool = False, neutral: str | None = None
) -> StepScorer | PoolScorer:
    """A reward model that is open until `ctx.release(model)` or the end of the stage; arguments as
    for `step_scorer`.
    """
    from glore.reward_models.pool import open_here_or_in_pool

    folder = ctx.model_dir(model)
    layout = layout_of(ctx, folder)
    scorer = open_here_or_in_pool(
        folder,
        ctx.config.engine,
        layout,
        with_question=with_question,
        logs_warning=False,
        neutral=neutral,
    )
    return ctx.keep(scorer, model)


def truth_of(
    ctx: StageContext, solutions: Iterable[Solution], problems: Mapping[str, Problem]
) -> list[StepLabels]:
    """Exact step labels where the task knows the truth; empty elsewhere."""
    task = task_of(ctx)
    if not isinstance(task, OracleTask):
        return []
    return [truth_labels(s, task.step_truth(problems[s.problem_id], s.steps)) for s in solutions]


def seeded_choice(
    ctx: StageContext, problems: Sequence[Problem], n: int, *, last: bool = False
) -> list[Problem]:
    """The first (or last) `n` of the problems in the run's seeded order, in their own order; 0:
    all.
    """
    if not n or n >= len(problems):
        return list(problems)
    ranked = sorted(problems, key=lambda p: (stable_seed(ctx.seed, "reward questions", p.id), p.id))
    chosen = {p.id for p in (ranked[-n:] if last else ranked[:n])}
    return [p for p in problems if p.id in chosen]
