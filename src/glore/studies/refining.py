"""Refinements that several studies draw with the run's refiner: local ones from given marks, and
sampled ones beside the greedy ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from glore.decisions import MarkedDraft
from glore.engines.protocol import Engine, Request, SamplingParams
from glore.pipeline import StageContext
from glore.records import Problem, Solution
from glore.seeds import stable_seed
from glore.solutions import graded_solution
from glore.stages.common import layout_of, lazy_engine, model_name, shard_size, task_of

__all__ = ["global_mark", "mark_of", "refined", "refiner_engine"]


def global_mark(ctx: StageContext) -> int | None:
    """The 0-based step that `[BAD]` precedes in a global refinement; none: there is no mark."""
    return 0 if ctx.config.refiner.global_mark == "first" else None


def refiner_engine(ctx: StageContext, model: str = "refiner") -> Callable[[], Engine]:
    """A refiner, the run's or one of the study's, opened at first use. `ctx.release(MODEL)` closes
    it.
    """
    folder = ctx.model_dir(model)
    assert model_name(folder) == model
    return lazy_engine(ctx, folder)


def refined(
    ctx: StageContext,
    marked: Sequence[MarkedDraft],
    source: str,
    problems: Mapping[str, Problem],
    engine: Callable[[], Engine],
    *,
    part: str,
    n: int = 1,
    temperature: float = 0.0,
    model: str = "refiner",
) -> list[Solution]:
    """n refinements of every marked draft, written as `part`: greedy, or sampled at a temperature.
    `model`: the refiner behind `engine`.

    Several marks of one draft are allowed. Ids are `DRAFT/PART/MARK/k`, where `mark_of` finds the
    mark.
    """
    task, layout = task_of(ctx), layout_of(ctx, ctx.model_dir(model))
    params = SamplingParams(
        temperature=temperature, max_new_tokens=ctx.config.student.max_new_tokens
    )

    def work(shard: Sequence[MarkedDraft]) -> list[Solution]:
        names = [f"{m.draft.id}/{part}/{'-' if m[1] is None else m[1]}" for m in shard]
        requests = [
            Request(
                id=name,
                segments=layout.refine(problems[d.problem_id].question, d.steps, mark),
                seeds=tuple(stable_seed(ctx.seed, "refine", name, k) for k in range(n)),
                params=params,
            )
            for name, (d, mark) in zip(names, shard, strict=True)
        ]
        found = {r.request.id: r.completions for r in engine().run(requests)}
        ctx.count(tokens=sum(c.n_tokens for cs in found.values() for c in cs))
        return [
            graded_solution(
                task,
                problems[m.draft.problem_id],
                completion,
                solution_id=f"{name}/{k}",
                source=source,
                temperature=temperature,
                draft_id=m.draft.id,
                steps=layout.steps,
            )
            for name, m in zip(names, shard, strict=True)
            for k, completion in enumerate(found[name])
        ]

    return ctx.sharded(marked, shard_size(n), work, Solution, part, unit="drafts")


def mark_of(refinement: Solution) -> int | None:
    """The 0-based step before which the draft was marked, of a solution that `refined` made; none:
    no mark.
    """
    mark = refinement.id.split("/")[-2]
    return None if mark == "-" else int(mark)
