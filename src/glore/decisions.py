"""The decisions of inference (method 5): when a draft needs work, where its first bad step is,
which candidate is chosen; and the refinement of marked drafts.

`Refiner`, the test stages and the evaluation all decide here, so what users run is what the tables
measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from glore.config import EvaluationSettings
from glore.engines.protocol import Completion, Engine
from glore.how import refine_request
from glore.prompts import PLAIN, PromptLayout
from glore.rerank import aggregate, choose
from glore.when import needs_work
from glore.where import first_bad_step

__all__ = [
    "CANDIDATES",
    "GLOBAL",
    "LOCAL_ORM",
    "LOCAL_SORM",
    "MARKED_BY",
    "Decisions",
    "Draft",
    "MarkedDraft",
    "mark_drafts",
    "refine_drafts",
]

Scores = Sequence[float]

GLOBAL, LOCAL_ORM, LOCAL_SORM = "global", "local_orm", "local_sorm"
MARKED_BY: Mapping[str, str | None] = MappingProxyType(
    {GLOBAL: None, LOCAL_ORM: "orm", LOCAL_SORM: "sorm"}
)
"""Kind of refinement → the reward model that finds its first bad step; global ones need none."""
CANDIDATES = (GLOBAL, LOCAL_SORM)
"""Kinds of refinements that the reranker chooses among, after the draft itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decisions:
    """The two settings that every decision depends on."""

    threshold: float = EvaluationSettings().threshold
    """T: a step with a probability of at most T is bad; a draft that ends with one needs work."""
    aggregate: str = EvaluationSettings().aggregate
    """How step scores become one score: a key of `glore.rerank.AGGREGATES`."""

    def needs_work(self, orm_scores: Scores) -> bool:
        """When: does the ORM call the draft wrong?"""
        return needs_work(orm_scores, self.threshold)

    def first_bad_step(self, scores: Scores) -> int | None:
        """Where: 0-based index of the first bad step, or none."""
        return first_bad_step(scores, self.threshold)

    def score(self, scores: Scores) -> float:
        """One score of a solution from its step scores."""
        return aggregate(scores, self.aggregate)

    def choose(self, candidates: Sequence[Scores | None]) -> int:
        """Index of the candidate with the best score, the first on ties. None: it was not scored
        and can't win. Raises ValueError without candidates.
        """
        return choose([-1.0 if scores is None else self.score(scores) for scores in candidates])


class Draft(Protocol):
    """What a refinement needs of a draft: `Solution` has it."""

    @property
    def id(self) -> str: ...

    @property
    def problem_id(self) -> str: ...

    @property
    def steps(self) -> tuple[str, ...]: ...


class MarkedDraft(NamedTuple):
    """A draft to refine and the 0-based step that `[BAD]` precedes (none: no mark)."""

    draft: Draft
    marked_step: int | None


def mark_drafts(
    drafts: Sequence[Draft],
    kind: str,
    scores: Mapping[str, Scores],
    decisions: Decisions,
    *,
    mark_global: bool,
) -> list[MarkedDraft]:
    """The drafts to refine in the manner of `kind`, a key of `MARKED_BY`.

    Global: every draft with steps, marked before the first where the refiner was trained so
    (`mark_global`). Local: every draft with a bad step, marked before it; `scores` holds the step
    scores of the kind's reward model by draft id.
    """
    with_steps = [draft for draft in drafts if draft.steps]
    if MARKED_BY[kind] is None:
        return [MarkedDraft(draft, 0 if mark_global else None) for draft in with_steps]
    marked = [MarkedDraft(d, decisions.first_bad_step(scores[d.id])) for d in with_steps]
    return [m for m in marked if m.marked_step is not None]


def refine_drafts(
    engine: Engine,
    marked: Mapping[str, Sequence[MarkedDraft]],
    questions: Mapping[str, str],
    *,
    max_new_tokens: int,
    seed: int,
    layout: PromptLayout = PLAIN,
) -> dict[str, list[Completion]]:
    """One greedy refinement of each draft, all kinds in one batch.

    `marked`: kind → drafts; `questions`: problem id → question. Returns kind → refinements in the
    order of its drafts.
    """
    requests = {
        kind: [
            refine_request(
                f"{m.draft.id}/{kind}",
                questions[m.draft.problem_id],
                m.draft.steps,
                m.marked_step,
                max_new_tokens,
                seed,
                layout,
            )
            for m in drafts
        ]
        for kind, drafts in marked.items()
    }
    flat = [request for group in requests.values() for request in group]
    found = {result.request.id: result.completions[0] for result in engine.run(flat)}
    return {kind: [found[request.id] for request in group] for kind, group in requests.items()}
