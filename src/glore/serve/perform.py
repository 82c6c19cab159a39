"""Jobs → answers, with the models. Runs in the worker's thread.

Jobs of all clients share one run of the engine, one batch of refinements and one batch of scores.
A batch that fails is halved until the job at fault is alone, so that all others get an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from glore.engines.protocol import Completion
from glore.scorer import checked_scores
from glore.serve.cascading import cascade_jobs
from glore.serve.choosing import best_of, by_majority, chosen, drawn
from glore.serve.drawing import Found, StudentRun
from glore.serve.failures import ApiError, invalid
from glore.serve.iterating import iterate_jobs
from glore.serve.refining import refine_jobs
from glore.serve.served import BEST_OF_N, CASCADE, GLORE, ITERATED, REFINING, STUDENT, Served
from glore.serve.work import Answer, Choice, Draw, Job, Sampling, Scores, Scoring
from glore.serve.worker import More

__all__ = ["Performer", "answer_apart"]

MAX_TOGETHER = 64
"""Choices refined in one batch; answers of a batch are given before the next begins."""


class Performer:
    """Answers jobs with the models of a run."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def __call__(self, jobs: Sequence[Job], more: More) -> None:
        """Answer all jobs, and those that arrive while the student draws, by their futures."""
        scoring = [job for job in jobs if isinstance(job.work, Scoring)]
        answer_apart(scoring, self._score)
        drawing = [job for job in jobs if _draws(job)]
        if drawing:
            everything = list(drawing)
            try:
                self._draw(everything, more)
            except Exception:  # also what a library raises, such as for memory
                left = [job for job in everything if not job.future.done()]
                answer_apart(left, self._draw)
        refining = [(w.model, job) for job in jobs if isinstance(w := job.work, Sampling)]
        ways = ((GLORE, refine_jobs), (ITERATED, iterate_jobs), (CASCADE, cascade_jobs))
        for model, way in ways:
            for group in _groups([job for name, job in refining if name == model]):
                for job in group:
                    job.end_unwanted()
                wanted = [job for job in group if not job.future.done()]
                answer_apart(wanted, partial(way, self._served))

    def _score(self, jobs: Sequence[Job]) -> None:
        items = [(w.question, w.steps) for job in jobs if isinstance(w := job.work, Scoring)]
        scores = [
            checked_scores(name, scorer, items)
            for name, scorer in (
                ("orm", self._served.refiner.orm),
                ("sorm", self._served.refiner.sorm),
            )
        ]
        for job, orm, sorm in zip(jobs, *scores, strict=True):
            job.future.set_result(Scores(orm, sorm))

    def _draw(self, jobs: list[Job], more: More | None = None) -> None:
        """Answer jobs for which the student draws. `jobs` grows by those that arrive meanwhile."""
        run = StudentRun(self._served, jobs, None if more is None else partial(more, _draws))
        to_choose: list[Job] = []
        for job in run.complete_jobs():
            work, found = job.work, run.found[job]
            assert isinstance(work, Sampling)
            if not job.is_wanted:
                job.end_unwanted()
            elif _lacks_tokens(work, found):
                job.future.set_exception(_no_tokens(self._served.refiner.student.backend))
            elif work.model == BEST_OF_N:
                to_choose.append(job)
            else:
                way = drawn if work.model == STUDENT else by_majority
                _finish(self._served, job, run.found.pop(job), way)
        if to_choose:
            self._choose(to_choose, run.found)

    def _choose(self, jobs: Sequence[Job], found: dict[Job, Found]) -> None:
        """Score all solutions of all jobs at once, and choose."""
        items = [
            (prompt.question, chosen(self._served, completion).steps)
            for job in jobs
            if isinstance(work := job.work, Sampling)
            for index, prompt in enumerate(work.prompts)
            for completion in found[job][index]
        ]
        scores = iter(checked_scores("orm", self._served.refiner.orm, items))
        for job in jobs:
            _finish(
                self._served,
                job,
                found[job],
                lambda served, group, draw: best_of(
                    served, group, [next(scores) for _ in group], draw
                ),
            )


Way = Callable[[Served, Sequence[Completion], Draw], Choice]


def answer_apart(jobs: Sequence[Job], answer: Callable[[list[Job]], None]) -> None:
    """Answer jobs together; where that fails, by halves, down to the job at fault."""
    if not jobs:
        return
    try:
        answer(list(jobs))
    except Exception as error:
        left = [job for job in jobs if not job.future.done()]
        if len(left) == 1:
            left[0].future.set_exception(error)
            return
        half = len(left) // 2
        answer_apart(left[:half], answer)
        answer_apart(left[half:], answer)


def _lacks_tokens(work: Sampling, found: Found) -> bool:
    """Whether log-probabilities are asked for, and the engine does not say of which tokens."""
    return work.draw.n_logprobs is not None and any(
        c.tokens is None for completions in found.values() for c in completions
    )


def _no_tokens(backend: str) -> ApiError:
    return invalid(
        "logprobs",
        f"the run's engine ({backend}) does not say which tokens it has drawn; leave logprobs out, "
        "or serve the run with engine.kind=torch or vllm",
        "unsupported",
    )


def _draws(job: Job) -> bool:
    """Whether the student alone samples for it."""
    return isinstance(job.work, Sampling) and job.work.model not in REFINING


def _finish(served: Served, job: Job, found: Found, way: Way) -> None:
    """Answer a job by its completions, in the order of its prompts."""
    work = job.work
    assert isinstance(work, Sampling)
    choices = [way(served, completions, work.draw) for completions in _by_choice(job, found)]
    n_tokens = sum(c.n_tokens for completions in found.values() for c in completions)
    job.future.set_result(Answer(tuple(choices), n_tokens))


def _by_choice(job: Job, found: Found) -> list[tuple[Completion, ...]]:
    """The completions of each choice: n of the first prompt, then of the second, …"""
    work = job.work
    assert isinstance(work, Sampling)
    return [
        found[index][start : start + work.best_of]
        for index in range(len(work.prompts))
        for start in range(0, work.n * work.best_of, work.best_of)
    ]


def _groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs in groups of at most MAX_TOGETHER choices, or of one job."""
    groups: list[list[Job]] = []
    size = 0
    for job in jobs:
        assert isinstance(job.work, Sampling)
        n = len(job.work.prompts) * job.work.n
        if not groups or size + n > MAX_TOGETHER:
            groups.append([])
            size = 0
        groups[-1].append(job)
        size += n
    return groups
