"""Jobs for the model glore → answers, through `Refiner.refine`.

The refiner samples greedily and names its requests `q0`, `q0/global`, … Engines around the real
ones give each of these what its client asked for, and keep how each completion ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from glore.decisions import GLOBAL, LOCAL_SORM
from glore.engines.lifetime import Closable
from glore.engines.protocol import Completion, Engine, FollowUp, Request, Result
from glore.prompts import BAD_MARK, StepFormat
from glore.records import Refinement
from glore.refiner import Refiner
from glore.seeds import stable_seed
from glore.serve.choosing import cut, solution_text
from glore.serve.every_mark import every_candidate
from glore.serve.served import Served
from glore.serve.work import Answer, Choice, Draw, Job, Sampling

__all__ = ["KINDS", "Around", "asked", "refine_jobs", "refining", "work_text"]

KINDS = {"global": GLOBAL, "local": LOCAL_SORM}
"""Kind of a candidate → that of its request."""


def asked(jobs: Sequence[Job]) -> tuple[list[str], list[tuple[Draw, int]]]:
    """The questions of all jobs, each n times, and how to draw each draft: settings and seed."""
    questions: list[str] = []
    draws: list[tuple[Draw, int]] = []
    for job in jobs:
        work = job.work
        assert isinstance(work, Sampling)
        for prompt in work.prompts:
            questions += [prompt.question] * work.n
            draws += [
                (work.draw, stable_seed("serve", work.draw.seed, c, 0)) for c in range(work.n)
            ]
    return questions, draws


def refining(engine: Engine, draws: Sequence[tuple[Draw, int]]) -> Around:
    """The refiner's engine, so that each refinement has the tokens that its client asked for."""

    def change(request: Request) -> Request:
        tokens = draws[_index(request.id)][0].max_tokens
        params = dataclasses.replace(request.params, max_new_tokens=tokens)
        return dataclasses.replace(request, params=params)

    return Around(engine, change)


def refine_jobs(served: Served, jobs: Sequence[Job]) -> None:
    """Refine the questions of all jobs in one batch, and answer the jobs."""
    questions, draws = asked(jobs)

    def draft(request: Request) -> Request:
        draw, seed = draws[_index(request.id)]
        params = dataclasses.replace(
            request.params,
            temperature=draw.temperature,
            top_p=draw.top_p,
            top_k=draw.top_k,
            max_new_tokens=draw.max_tokens,
        )
        return dataclasses.replace(request, seeds=(seed,), params=params)

    given = served.refiner
    student, refiner = Around(given.student, draft), refining(given.refiner, draws)
    own = Refiner(student, refiner, given.orm, given.sorm, given.options, given.layout)
    found = own.refine(questions)
    ended = {**student.completions, **refiner.completions}
    works = [job.work for job in jobs if isinstance(job.work, Sampling)]
    wanted = [work.every_mark for work in works for _ in range(len(work.prompts) * work.n)]
    tokens = [draw.max_tokens for draw, _ in draws]
    more = every_candidate(given, found, wanted, ended, tokens)
    start = 0
    for job, work in zip(jobs, works, strict=True):
        own_part = found[start : start + len(work.prompts) * work.n]
        start += len(own_part)
        choices = tuple(
            dataclasses.replace(
                _choice(r, ended, work.draw, given.layout.steps),
                candidates=more.get(r.problem_id, ()),
            )
            for r in own_part
        )
        n_tokens = sum(
            sum(c.n_tokens for c in more[r.problem_id]) if r.problem_id in more else r.n_tokens
            for r in own_part
        )
        job.future.set_result(Answer(choices, n_tokens))


class Around(Closable):
    """An engine whose requests are changed by `change`, and whose completions are kept."""

    def __init__(self, engine: Engine, change: Callable[[Request], Request]) -> None:
        self._engine, self._change = engine, change
        self.completions: dict[str, Completion] = {}

    @property
    def backend(self) -> str:
        """The real engine's."""
        return self._engine.backend

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """As the real engine, which stays open."""
        for result in self._engine.run(map(self._change, requests), follow_up):
            self.completions[result.request.id] = result.completions[0]
            yield result


def _choice(
    refinement: Refinement, ended: dict[str, Completion], draw: Draw, how: StepFormat
) -> Choice:
    kind = refinement.candidate_kinds[refinement.chosen]
    name = refinement.problem_id
    completion = ended[f"{name}/{KINDS[kind]}" if kind in KINDS else name]
    steps = refinement.candidates[refinement.chosen]
    text, is_cut = cut(solution_text(steps, how), draw.stops)
    reason = "length" if completion.stop == "length" and not is_cut else "stop"
    return Choice(text, reason, work_text(refinement), refinement)


def work_text(refinement: Refinement) -> str:
    """Draft, marks and candidates with their scores, as text for people."""
    r = refinement
    verdict = "needs work" if r.needs_work else "looks right"
    lines = [f"Draft ({verdict}; ORM and SORM of every step)"]
    for i, (step, orm, sorm) in enumerate(zip(r.draft, r.orm_scores, r.sorm_scores, strict=True)):
        mark = f"{BAD_MARK} " if i == r.marked_step else ""
        lines.append(f"{orm:.2f} {sorm:.2f}  {mark}{step}")
    for i, (kind, steps, score) in enumerate(
        zip(r.candidate_kinds, r.candidates, r.candidate_scores, strict=True)
    ):
        lines.append("")
        name = "Draft" if kind == "draft" else f"{kind.capitalize()} refinement"
        lines.append(f"{name} (score {score:.3f}{', chosen' if i == r.chosen else ''})")
        lines += steps if kind != "draft" else ()
    return "\n".join(lines)


def _index(request_id: str) -> int:
    """`q12/global` → 12."""
    return int(request_id.partition("/")[0].removeprefix("q"))
