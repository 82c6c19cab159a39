"""Jobs for the model glore-cascade → answers, through `glore.cascade`.

All questions of all jobs go forward together. A job is answered when its own questions are, and
nothing more is made for a client that went away.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

from glore.cascade import Attempt, Cascaded, CascadeModels, CascadeQuestion, run_cascade
from glore.engines.lifetime import Closable
from glore.engines.partial import StreamsText
from glore.engines.protocol import Engine, FollowUp, Request, Result
from glore.refiner import RefineOptions
from glore.seeds import stable_seed
from glore.serve.choosing import choice_of, solution_text
from glore.serve.progress import scores_text, tells_of
from glore.serve.refining import question_index
from glore.serve.served import Served
from glore.serve.work import Answer, Choice, Draw, Job, Sampling

__all__ = ["cascade_jobs"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """A choice of a job."""

    job: Job
    draw: Draw
    index: int
    """Among the job's choices."""


def cascade_jobs(served: Served, jobs: Sequence[Job]) -> None:
    """Answer the questions of all jobs together, and each job as soon as it can be."""
    given, options = served.refiner, served.refiner.options
    places, questions = _asked(jobs)
    tells = tells_of(jobs)
    found: dict[Job, dict[int, tuple[Choice, int]]] = {job: {} for job in jobs}

    def is_wanted(n: int) -> bool:
        return places[n].job.is_wanted

    def tell(n: int, attempts: Sequence[Attempt]) -> None:
        told = tells[n]
        if told is not None:
            told(_attempts_text(attempts, options))

    models = CascadeModels(
        _WhileWanted(given.student, is_wanted),
        _WhileWanted(given.refiner, is_wanted),
        given.orm,
        options,
        options.global_mark,
        given.layout,
    )
    for result in run_cascade(models, questions, is_wanted=is_wanted, on_attempt=tell):
        place = places[result.index]
        job, ended = place.job, found[place.job]
        ended[place.index] = _choice(served, result, place.draw), result.n_tokens
        if len(ended) == _n_choices(job):
            choices = tuple(ended[i][0] for i in range(len(ended)))
            job.future.set_result(Answer(choices, sum(n for _, n in ended.values())))
    for job in jobs:
        job.end_unwanted()


def _asked(jobs: Sequence[Job]) -> tuple[list[_Place], list[CascadeQuestion]]:
    """The questions of all jobs, each n times, and whose they are."""
    places, questions = [], []
    for job in jobs:
        work = job.work
        assert isinstance(work, Sampling)
        assert work.samples is not None
        places += [_Place(job, work.draw, i) for i in range(_n_choices(job))]
        draft, samples = work.draw.params(), work.samples.params()
        for prompt in work.prompts:
            for c in range(work.n):
                first, *rest = (
                    stable_seed("serve", work.draw.seed, c, k) for k in range(1 + work.best_of)
                )
                questions.append(
                    CascadeQuestion(prompt.question, draft, first, samples, tuple(rest))
                )
    return places, questions


def _n_choices(job: Job) -> int:
    assert isinstance(job.work, Sampling)
    return len(job.work.prompts) * job.work.n


def _choice(served: Served, result: Cascaded, draw: Draw) -> Choice:
    options = served.refiner.options
    attempts, chosen = result.attempts, result.attempts[result.chosen]
    scores = [options.score(a.scores) for a in attempts]
    work = "\n\n".join(
        (
            _attempts_text(attempts, options),
            scores_text(_names(attempts), scores, result.chosen),
        )
    )
    text = solution_text(chosen.steps, served.refiner.layout.steps)
    return choice_of(text, chosen.completion, work, draw)


def _names(attempts: Sequence[Attempt]) -> list[str]:
    """`draft`, `global`, `sample 1`, …"""
    first = next((i for i, a in enumerate(attempts) if a.kind == "sample"), 0)
    return [
        f"sample {i - first + 1}" if a.kind == "sample" else a.kind for i, a in enumerate(attempts)
    ]


def _attempts_text(attempts: Sequence[Attempt], options: RefineOptions) -> str:
    """Every attempt so far with what the ORM says, as text for people."""
    parts = []
    for name, attempt in zip(_names(attempts), attempts, strict=True):
        verdict = "needs work" if options.needs_work(attempt.scores) else "looks right"
        title = "Global refinement" if name == "global" else name.capitalize()
        score = f"{options.score(attempt.scores):.3f}"
        lines = [f"{title} ({verdict}, score {score}; ORM of every step)"]
        lines += [f"{p:.2f}  {step}" for p, step in zip(attempt.scores, attempt.steps, strict=True)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


class _WhileWanted(Closable):
    """An engine that stops drawing for a question that nobody wants any more, where it can.
    `is_wanted`: of the question's index.
    """

    def __init__(self, engine: Engine, is_wanted: Callable[[int], bool]) -> None:
        self._engine, self._is_wanted = engine, is_wanted

    @property
    def backend(self) -> str:
        """The real engine's."""
        return self._engine.backend

    def run(
        self, requests: Iterable[Request], follow_up: FollowUp | None = None
    ) -> Iterator[Result]:
        """As the real engine, which stays open."""
        engine = self._engine
        if not isinstance(engine, StreamsText):
            return engine.run(requests, follow_up)

        def is_wanted(request: Request) -> bool:
            return self._is_wanted(question_index(request.id))

        return engine.stream(requests, follow_up, lambda _: None, is_wanted)
