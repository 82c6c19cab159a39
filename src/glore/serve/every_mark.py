"""Refinements for every threshold: the steps that some threshold marks, and a local refinement from
each, so that a threshold can be moved without sampling again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glore.decisions import GLOBAL, LOCAL_SORM
from glore.engines.protocol import Completion, check_scores
from glore.how import refine_request
from glore.records import Refinement
from glore.refiner import Refiner
from glore.serve.choosing import answer_of
from glore.serve.work import Candidate
from glore.solutions import completion_text

__all__ = ["every_candidate", "marks"]

MOST_MARKS = 16
"""Local refinements of one draft, besides the one at the run's own threshold."""
Part = tuple[str, int | None, tuple[str, ...], Completion]
"""Kind, marked step, steps, and the completion that they come from."""


def marks(scores: Sequence[float]) -> list[int]:
    """The 0-based steps that some threshold marks as the first bad one: those whose score is below
    the scores of all steps before them.
    """
    found: list[int] = []
    for i, score in enumerate(scores):
        if not found or score < scores[found[-1]]:
            found.append(i)
    return found


def every_candidate(
    models: Refiner,
    refinements: Sequence[Refinement],
    wanted: Sequence[bool],
    completions: Mapping[str, Completion],
    max_tokens: Sequence[int],
) -> dict[str, tuple[Candidate, ...]]:
    """For each wanted refinement, by its `problem_id`: the draft, its global refinement, and local
    ones by their mark, all in one batch.

    `completions`: what the refinements were made of, by request. `max_tokens`: of each refinement's
    texts. Raises ModelError for scores that are no probabilities.
    """
    chosen = [
        (r, most)
        for r, is_wanted, most in zip(refinements, wanted, max_tokens, strict=True)
        if is_wanted
    ]
    drawn = _local_refinements(models, chosen)
    parts = {r.problem_id: _parts(models, r, completions, drawn) for r, _ in chosen}
    items = [(r.question, part[2]) for r, _ in chosen for part in parts[r.problem_id]]
    orm, sorm = (iter(scorer.score(items)) for scorer in (models.orm, models.sorm))
    return {
        r.problem_id: tuple(
            _candidate(models, r, part, next(orm), next(sorm)) for part in parts[r.problem_id]
        )
        for r, _ in chosen
    }


def _candidate(
    models: Refiner, r: Refinement, part: Part, orm: tuple[float, ...], sorm: tuple[float, ...]
) -> Candidate:
    kind, mark, steps, completion = part
    if kind == "draft":  # scored before, in a batch of another shape
        orm, sorm = r.orm_scores, r.sorm_scores
    check_scores("orm", r.question, orm)
    check_scores("sorm", r.question, sorm)
    score = models.options.score(orm)
    if kind != "local" or mark == r.marked_step:
        score = r.candidate_scores[r.candidate_kinds.index(kind)]
    reason = "length" if completion.stop == "length" else "stop"
    answer, n_tokens = answer_of(steps), completion.n_tokens
    return Candidate(kind, mark, steps, orm, sorm, score, answer, n_tokens, reason)


def _local_refinements(
    models: Refiner, chosen: Sequence[tuple[Refinement, int]]
) -> dict[tuple[str, int], Completion]:
    """(problem id, marked step) → the refinement from there, but for those there are already."""
    at: dict[str, tuple[str, int]] = {}
    requests = []
    for r, most in chosen:
        for mark in [m for m in marks(r.sorm_scores) if m != r.marked_step][:MOST_MARKS]:
            name = f"{r.problem_id}/{mark}"
            at[name] = r.problem_id, mark
            requests.append(refine_request(name, r.question, r.draft, mark, most, 0, models.layout))
    results = models.refiner.run(requests) if requests else ()
    return {at[result.request.id]: result.completions[0] for result in results}


def _parts(
    models: Refiner,
    refinement: Refinement,
    completions: Mapping[str, Completion],
    drawn: Mapping[tuple[str, int], Completion],
) -> list[Part]:
    name, marked = refinement.problem_id, refinement.marked_step
    parts: list[Part] = []
    local: dict[int, Part] = {}
    for kind, steps in zip(refinement.candidate_kinds, refinement.candidates, strict=True):
        if kind == "local" and marked is not None:
            local[marked] = kind, marked, steps, completions[f"{name}/{LOCAL_SORM}"]
        else:
            request = name if kind == "draft" else f"{name}/{GLOBAL}"
            parts.append((kind, None, steps, completions[request]))
    for (owner, mark), completion in drawn.items():
        if owner == name:
            steps = completion_text(completion.text, models.layout.steps).steps
            local[mark] = "local", mark, steps, completion
    return [*parts, *(local[mark] for mark in sorted(local))]
