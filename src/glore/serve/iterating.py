"""Jobs for the model glore-iterated → answers: what the ORM still calls wrong is refined again.

A round refines the chosen candidate, globally and from its first bad step, and the ORM chooses
among it and its refinements. It ends where the ORM accepts the choice, where no refinement is
better (the next round would make the same ones), or after `MAX_ROUNDS`. `glore study run budget`
measures the same loop.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from glore.engines.protocol import Completion, Request
from glore.records import Refinement
from glore.refiner import Refiner
from glore.scorer import checked_scores
from glore.serve.choosing import choice_of, solution_text
from glore.serve.progress import Progress, Tell, tells_of, work_text
from glore.serve.refining import KINDS, asked, refining
from glore.serve.served import Served
from glore.serve.work import Answer, Choice, Draw, Job, Sampling
from glore.solutions import completion_text

__all__ = ["MAX_ROUNDS", "iterate_jobs"]

MAX_ROUNDS = 4


@dataclasses.dataclass
class _Candidate:
    """A question's chosen candidate so far."""

    question: str
    draw: Draw
    steps: tuple[str, ...]
    completion: Completion
    n_tokens: int
    tell: Tell | None
    """Who is told the work so far."""
    work: list[str] = dataclasses.field(default_factory=list)
    """What each round did, as text."""


def iterate_jobs(served: Served, jobs: Sequence[Job]) -> None:
    """Refine the questions of all jobs in rounds, a batch each, and answer the jobs."""
    models = served.refiner
    candidates = _drafts(served, jobs)
    going = candidates
    for number in range(1, MAX_ROUNDS + 1):
        going = _called_wrong(models, going)
        if not going:
            break
        before = ["\n\n".join([*c.work, f"Round {number}\n"]) for c in going]
        progress = Progress(models, [c.tell for c in going], before)
        refiner = refining(models.refiner, [(c.draw, 0) for c in going], progress)
        own = Refiner(
            models.student, refiner, progress.orm, progress.sorm, models.options, models.layout
        )
        found = own.refine([c.question for c in going], [c.steps for c in going])
        for candidate, refinement in zip(going, found, strict=True):
            _take(candidate, refinement, refiner.completions, number)
        going = [c for c, r in zip(going, found, strict=True) if r.chosen != 0]
    start = 0
    for job in jobs:
        work = job.work
        assert isinstance(work, Sampling)
        own_part = candidates[start : start + len(work.prompts) * work.n]
        start += len(own_part)
        choices = tuple(_choice(served, candidate) for candidate in own_part)
        job.future.set_result(Answer(choices, sum(c.n_tokens for c in own_part)))


def _drafts(served: Served, jobs: Sequence[Job]) -> list[_Candidate]:
    """The drafts of all questions, drawn in one batch."""
    layout = served.refiner.layout
    questions, draws = asked(jobs)
    requests = [
        Request(f"q{n}", layout.solve(question), (seed,), draw.params())
        for n, (question, (draw, seed)) in enumerate(zip(questions, draws, strict=True))
    ]
    drawn = {r.request.id: r.completions[0] for r in served.refiner.student.run(requests)}
    found = []
    for n, (question, (draw, _), tell) in enumerate(
        zip(questions, draws, tells_of(jobs), strict=True)
    ):
        completion = drawn[f"q{n}"]
        steps = completion_text(completion.text, layout.steps).steps
        found.append(_Candidate(question, draw, steps, completion, completion.n_tokens, tell))
    return found


def _called_wrong(models: Refiner, candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The candidates with steps that the ORM calls wrong."""
    with_steps = [c for c in candidates if c.steps]
    items = [(c.question, c.steps) for c in with_steps]
    scores = checked_scores("orm", models.orm, items) if items else []
    return [c for c, p in zip(with_steps, scores, strict=True) if models.options.needs_work(p)]


def _take(
    candidate: _Candidate, r: Refinement, completions: dict[str, Completion], number: int
) -> None:
    """Go on with what a round has chosen."""
    candidate.n_tokens += r.n_tokens
    candidate.work.append(f"Round {number}\n{work_text(r)}")
    kind = r.candidate_kinds[r.chosen]
    if kind in KINDS:
        candidate.steps = r.candidates[r.chosen]
        candidate.completion = completions[f"{r.problem_id}/{KINDS[kind]}"]


def _choice(served: Served, candidate: _Candidate) -> Choice:
    text = solution_text(candidate.steps, served.refiner.layout.steps)
    work = "\n\n".join(candidate.work) or "The ORM accepts the draft."
    return choice_of(text, candidate.completion, work, candidate.draw)
