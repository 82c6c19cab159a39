"""Attempts in turns: the next attempt is drawn with the last one in the prompt.

RISE keeps the whole conversation, or a window of its last turns where the context is short. Here
the prompt is that of a refinement, with or without the mark, with as many of the last attempts as
the window holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from glore.config.section import SamplingSettings
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.pipeline import StageContext
from glore.records import Problem, Solution
from glore.seeds import stable_seed
from glore.solutions import graded_solution
from glore.stages.common import layout_of, lazy_engine, model_name, shard_size, task_of, verdicts

__all__ = ["answer_again", "attempts_before", "play_turns"]


def answer_again(
    ctx: StageContext,
    model: str,
    drafts: Sequence[Solution],
    problems: Mapping[str, Problem],
    *,
    marked: bool,
    drawn: SamplingSettings | None,
    n: int = 1,
    part: str = "part",
    engine: Callable[[], Engine] | None = None,
    earlier: Mapping[str, Sequence[Solution]] = MappingProxyType({}),
) -> list[Solution]:
    """n next attempts after every draft, committed as `part`, in the order of the drafts.

    `marked`: `[BAD]` stands before the draft's first step. `drawn`: how they are drawn; none:
    greedy. `engine`: an open one of the model, which stays open. `earlier`: draft id → the attempts
    before the draft that the model sees too, the oldest first.
    """
    folder = ctx.model_dir(model)
    opened, task, layout = engine or lazy_engine(ctx, folder), task_of(ctx), layout_of(ctx, folder)
    params = SamplingParams.of(drawn, ctx.config.student.max_new_tokens)

    def work(shard: Sequence[Solution]) -> list[Solution]:
        requests = [
            Request(
                id=d.id,
                segments=layout.refine(
                    problems[d.problem_id].question,
                    d.steps,
                    0 if marked and d.steps else None,
                    [before.steps for before in earlier.get(d.id, ())],
                ),
                seeds=tuple(stable_seed(ctx.seed, ctx.name, part, d.id, k) for k in range(n)),
                params=params,
            )
            for d in shard
        ]
        found = {r.request.id: r.completions for r in opened().run(requests)}
        ctx.count(tokens=sum(c.n_tokens for cs in found.values() for c in cs))
        return [
            graded_solution(
                task,
                problems[d.problem_id],
                completion,
                solution_id=f"{d.id}/{part}/{k}",
                source=model,
                temperature=params.temperature,
                draft_id=d.id,
                steps=layout.steps,
            )
            for d in shard
            for k, completion in enumerate(found[d.id])
        ]

    made = ctx.sharded(drafts, shard_size(n), work, Solution, part, unit="drafts")
    if engine is None:
        ctx.release(model_name(folder))
    return made


def play_turns(
    ctx: StageContext,
    model: str,
    first: Sequence[Solution],
    problems: Mapping[str, Problem],
    *,
    n_turns: int,
    marked: bool,
    drawn: SamplingSettings | None,
    part: str,
    window: int = 1,
) -> list[list[Solution]]:
    """Turns 1 … n_turns, each in the order of `first`, which is turn 1. Turns from 2 on are
    committed as `PART_t2`, … `window`: how many of the last attempts a turn sees, at least 1.
    """
    folder = ctx.model_dir(model)
    engine = lazy_engine(ctx, folder)
    turns = [list(first)]
    for turn in range(2, n_turns + 1):
        turns.append(
            answer_again(
                ctx,
                model,
                turns[-1],
                problems,
                marked=marked,
                drawn=drawn,
                part=f"{part}_t{turn}",
                engine=engine,
                earlier=attempts_before(turns, window),
            )
        )
    ctx.release(model_name(folder))
    ctx.count(**verdicts(turns[-1], f"{part}_t{n_turns}"))
    return turns


def attempts_before(
    turns: Sequence[Sequence[Solution]], window: int
) -> dict[str, tuple[Solution, ...]]:
    """Id of an attempt of the last turn → the attempts before it in a window of that size, which
    the attempt itself is part of, the oldest first. `turns`: each in the same order of questions.
    """
    shown = turns[-window:]
    return {attempts[-1].id: attempts[:-1] for attempts in zip(*shown, strict=True)}
