"""The decisions that Refiner, the test stages and the evaluation share."""

from __future__ import annotations

import pytest

from glore.decisions import CANDIDATES, MARKED_BY, Decisions, mark_drafts, refine_drafts
from glore.engines.protocol import Request
from glore.evaluation import EvaluationOptions
from glore.refiner import RefineOptions
from support.fakes import FunctionEngine, solution

DRAFTS = [
    solution("one\ntwo\n#### 3", "wrong", "d0"),
    solution("one\n#### 1", "right", "d1"),
    solution("", "wrong", "empty"),
]
SCORES = {"d0": (0.9, 0.4, 0.2), "d1": (0.8, 0.7), "empty": ()}


def test_global_refinements_mark_the_first_step_of_every_draft_that_has_one() -> None:
    marked = mark_drafts(DRAFTS, "global", {}, Decisions(), mark_global=True)
    assert [(m.draft.id, m.marked_step) for m in marked] == [("d0", 0), ("d1", 0)]
    unmarked = mark_drafts(DRAFTS, "global", {}, Decisions(), mark_global=False)
    assert [m.marked_step for m in unmarked] == [None, None]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.5, [("d0", 1)]), (0.3, [("d0", 2)]), (0.1, []), (0.7, [("d0", 1), ("d1", 1)])],
)
def test_local_refinements_mark_the_first_bad_step(
    threshold: float, expected: list[tuple[str, int]]
) -> None:
    decisions = Decisions(threshold=threshold)
    marked = mark_drafts(DRAFTS, "local_sorm", SCORES, decisions, mark_global=True)
    assert [(m.draft.id, m.marked_step) for m in marked] == expected


def test_refinements_of_all_kinds_are_one_batch_and_come_back_in_order() -> None:
    asked: list[str] = []

    def answer(request: Request, seed: int) -> str:
        asked.append(request.id)
        return f"for {request.id}"

    marked = {
        kind: mark_drafts(DRAFTS, kind, SCORES, Decisions(), mark_global=True)
        for kind in CANDIDATES
    }
    found = refine_drafts(FunctionEngine(answer), marked, {"p0": "What?"}, max_new_tokens=9, seed=0)
    texts = {kind: [c.text for c in completions] for kind, completions in found.items()}
    assert texts == {
        "global": ["for d0/global", "for d1/global"],
        "local_sorm": ["for d0/local_sorm"],
    }
    assert sorted(asked) == ["d0/global", "d0/local_sorm", "d1/global"]


def test_the_best_candidate_wins_and_what_was_not_scored_can_not() -> None:
    decisions = Decisions(aggregate="min")
    assert decisions.choose([(0.2, 0.9), (0.5, 0.6), (0.5, 0.5)]) == 1
    assert decisions.choose([None, ()]) == 1
    assert decisions.choose([(0.5,), (0.5,)]) == 0


def test_threshold_and_aggregate_are_one_record() -> None:
    assert issubclass(RefineOptions, Decisions)
    assert issubclass(EvaluationOptions, Decisions)
    assert set(CANDIDATES) < set(MARKED_BY)
