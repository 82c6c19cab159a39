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
from glore.prompts import StepFormat
from glore.records import Refinement
from glore.refiner import Refiner
from glore.seeds import stable_seed
from glore.serve.choosing import choice_of, solution_text
from glore.serve.every_mark import every_candidate
from glore.serve.progress import Progress, tells_of, work_text
from glore.serve.served import Served
from glore.serve.work import Answer, Choice, Draw, Job, Sampling

__all__ = ["KINDS", "Around", "asked", "question_index", "refine_jobs", "refining"]

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


def refining(engine: Engine, draws: Sequence[tuple[Draw, int]], progress: Progress) -> Around:
    """The refiner's engine, so that each refinement has the tokens that its client asked for, and
    is told to `progress`.
    """

    def change(request: Request) -> Request:
        tokens = draws[question_index(request.id)][0].max_tokens
        params = dataclasses.replace(request.params, max_new_tokens=tokens)
        return dataclasses.replace(request, params=params)

    return Around(engine, change, progress)


def refine_jobs(served: Served, jobs: Sequence[Job]) -> None:
    """Refine the questions of all jobs in one batch, and answer the jobs."""
    questions, draws = asked(jobs)

    def draft(request: Request) -> Request:
        draw, seed = draws[question_index(request.id)]
        params = dataclasses.replace(
            request.params,
            temperature=draw.temperature,
            top_p=draw.top_p,
            top_k=draw.top_k,
            max_new_tokens=draw.max_tokens,
        )
        return dataclasses.replace(request, seeds=(seed,), params=params)

    given = served.refiner
    progress = Progress(given, tells_of(jobs))
    student, refiner = Around(given.student, draft), refining(given.refiner, draws, progress)
    own = Refiner(student, refiner, progress.orm, progress.sorm, given.options, given.layout)
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
    """An engine whose requests are changed by `change`, and whose completions are kept. Those of
    refinements are told to `progress`.
    """

    def __init__(
        self,
        engine: Engine,
        change: Callable[[Request], Request],
        progress: Progress | None = None,
    ) -> None:
        self._engine, self._change, self._progress = engine, change, progress
        self.completions: dict[str, Completion] = {}

    @property
    def backend(self) -> str:
        """The real engine's."""
        return self._engine.backend

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """As the real engine, which stays open."""
        if self._progress is not None:
            self._progress.begin()
        for result in self._engine.run(map(self._change, requests), follow_up):
            name, (completion,) = result.request.id, result.completions
            self.completions[name] = completion
            if self._progress is not None:
                kind = next(kind for kind, of in KINDS.items() if name.endswith(f"/{of}"))
                self._progress.refined(question_index(name), kind, completion)
            yield result


def _choice(
    refinement: Refinement, ended: dict[str, Completion], draw: Draw, how: StepFormat
) -> Choice:
    kind = refinement.candidate_kinds[refinement.chosen]
    name = refinement.problem_id
    completion = ended[f"{name}/{KINDS[kind]}" if kind in KINDS else name]
    steps = refinement.candidates[refinement.chosen]
    choice = choice_of(solution_text(steps, how), completion, work_text(refinement), draw)
    return dataclasses.replace(choice, refinement=refinement)


def question_index(request_id: str) -> int:
    """The index of a request's question: `q12/global` → 12."""
    return int(request_id.partition("/")[0].removeprefix("q"))
