"""The cascade: draft, its global refinement, samples; one by one until the ORM accepts one.

The answer is the solution with the best score among all that were made. `glore study budget`
measures the same, on solutions that a run has (`CASCADE`). Questions go forward together: a round
makes the next solution of every question without an answer, with one batch of each engine and one
batch of scores. An empty draft has no refinement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from glore.decisions import GLOBAL, Decisions
from glore.engines.protocol import Completion, Engine, Request, SamplingParams
from glore.how import refine_request
from glore.prompts import PromptLayout
from glore.scorer import Scorer, checked_scores
from glore.solutions import completion_text

__all__ = [
    "N_SAMPLES",
    "Attempt",
    "CascadeModels",
    "CascadeQuestion",
    "Cascaded",
    "run_cascade",
]

N_SAMPLES = 8
"""Samples at most, if nobody says otherwise: as many as were measured."""
DRAFT, SAMPLE = "draft", "sample"


class CascadeModels(NamedTuple):
    """The models, and how they decide."""

    student: Engine
    refiner: Engine
    orm: Scorer
    decisions: Decisions
    global_mark: int | None
    """The 0-based step of a draft that `[BAD]` precedes; none: no mark."""
    layout: PromptLayout


@dataclasses.dataclass(frozen=True, slots=True)
class CascadeQuestion:
    """A question, and how to draw its solutions."""

    text: str
    draft: SamplingParams
    """The refinement is greedy, and has as many tokens at most."""
    draft_seed: int
    samples: SamplingParams
    sample_seeds: tuple[int, ...]
    """One for each sample that may be drawn."""

    @property
    def n_samples(self) -> int:
        """Samples at most. None where all are greedy: each would be the draft again."""
        is_greedy = self.draft.temperature == 0 == self.samples.temperature
        return 0 if is_greedy else len(self.sample_seeds)


class Attempt(NamedTuple):
    """A solution that was made for a question."""

    kind: str
    """`draft`, `global` (the draft's refinement) or `sample`."""
    steps: tuple[str, ...]
    scores: tuple[float, ...]
    """The ORM's probability after every step."""
    completion: Completion


@dataclasses.dataclass(frozen=True, slots=True)
class Cascaded:
    """An answered question."""

    index: int
    """Of the question."""
    attempts: tuple[Attempt, ...]
    chosen: int
    """Index of the answer among the attempts."""

    @property
    def n_tokens(self) -> int:
        """Tokens of all attempts."""
        return sum(a.completion.n_tokens for a in self.attempts)


OnAttempt = Callable[[int, Sequence[Attempt]], None]
"""Is told the index of a question, and its attempts so far, when the last of them is scored."""


def run_cascade(
    models: CascadeModels,
    questions: Sequence[CascadeQuestion],
    *,
    is_wanted: Callable[[int], bool] = lambda _: True,
    on_attempt: OnAttempt = lambda *_: None,
) -> Iterator[Cascaded]:
    """Yields each question when it is answered. One that nobody wants any more, by its index, is
    left out. Names of requests are `q0`, `q0/global`, `q0/sample1`, …

    Raises ModelError for scores that are no probabilities.
    """
    decisions, how = models.decisions, models.layout.steps
    going = [_Asked(n, question) for n, question in enumerate(questions)]
    while going := [one for one in going if is_wanted(one.index)]:
        drawn = _drawn(models, going)
        # What is drawn for nobody may end anywhere, so it is not read.
        wanted = [one for one in going if is_wanted(one.index)]
        read = [completion_text(drawn[one.index].text, how).steps for one in wanted]
        items = [(one.question.text, steps) for one, steps in zip(wanted, read, strict=True)]
        scores = checked_scores("ORM", models.orm, items)
        going = []
        for one, steps, values in zip(wanted, read, scores, strict=True):
            one.take(steps, values, drawn[one.index])
            on_attempt(one.index, one.made)
            if one.left and decisions.needs_work(values):
                going.append(one)
            else:
                chosen = decisions.choose([a.scores or None for a in one.made])
                yield Cascaded(one.index, tuple(one.made), chosen)


@dataclasses.dataclass
class _Asked:
    """A question without an answer yet."""

    index: int
    question: CascadeQuestion
    made: list[Attempt] = dataclasses.field(default_factory=list)
    left: list[str] = dataclasses.field(default_factory=lambda: [DRAFT])
    """Kinds of the attempts that may follow."""

    def take(self, steps: tuple[str, ...], scores: tuple[float, ...], c: Completion) -> None:
        """Add the next attempt."""
        kind = self.left.pop(0)
        self.made.append(Attempt(kind, steps, scores, c))
        if kind == DRAFT:
            self.left = [GLOBAL] * bool(steps) + [SAMPLE] * self.question.n_samples

    def request(self, models: CascadeModels) -> Request:
        """That of the next attempt."""
        asked, name = self.question, f"q{self.index}"
        if self.left[0] == GLOBAL:
            draft, most = self.made[0].steps, asked.draft.max_new_tokens
            return refine_request(
                f"{name}/{GLOBAL}", asked.text, draft, models.global_mark, most, 0, models.layout
            )
        segments = models.layout.solve(asked.text)
        if self.left[0] == DRAFT:
            return Request(name, segments, (asked.draft_seed,), asked.draft)
        k = sum(a.kind == SAMPLE for a in self.made)
        seeds = (asked.sample_seeds[k],)
        return Request(f"{name}/{SAMPLE}{k + 1}", segments, seeds, asked.samples)


def _drawn(models: CascadeModels, going: Sequence[_Asked]) -> dict[int, Completion]:
    """Index of each question → the completion of its next attempt."""
    of: dict[str, int] = {}
    to_refine: list[Request] = []
    to_solve: list[Request] = []
    for one in going:
        request = one.request(models)
        of[request.id] = one.index
        (to_refine if one.left[0] == GLOBAL else to_solve).append(request)
    return {
        of[result.request.id]: result.completions[0]
        for engine, requests in ((models.refiner, to_refine), (models.student, to_solve))
        if requests
        for result in engine.run(requests)
    }
