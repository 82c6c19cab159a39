"""Pairs of the refiner, as in method 4, and refinement requests."""

from __future__ import annotations

from collections import Counter

from glore.how import (
    global_pairs,
    local_pairs,
    mixed_pairs,
    refine_request,
    value_mark,
    value_pairs,
)
from glore.records import PrefixTrials, StepLabels
from support.fakes import solution

DRAFT = solution("one\ntwo\nthree\n#### 3", "wrong", "d0")
RIGHT = {"p0": [("good", "#### 10"), ("better", "#### 10")]}


def _labels(first_error: int | None, draft: str = "d0") -> StepLabels:
    labels = None if first_error is None else tuple(i < first_error for i in range(4))
    return StepLabels(draft, labels, labels, first_error, "sorm")


def test_local_pair_joins_the_good_prefix_and_a_trace() -> None:
    traces = {("d0", 2): [("mended", "#### 10")], ("d0", 1): [("other", "#### 10")]}
    (pair,) = local_pairs([DRAFT], [_labels(2)], traces, RIGHT, seed=0)
    assert pair.marked_step == 2
    assert pair.draft_steps == DRAFT.steps
    assert pair.target_steps == ("one", "two", "mended", "#### 10")
    assert (pair.kind, pair.draft_id, pair.problem_id) == ("local", "d0", "p0")


def test_local_pair_at_the_first_step_is_any_right_solution() -> None:
    (pair,) = local_pairs([DRAFT], [_labels(0)], {}, RIGHT, seed=0)
    assert pair.marked_step == 0
    assert pair.target_steps in RIGHT["p0"]


def test_no_pair_without_labels_without_target_or_for_a_right_draft() -> None:
    assert local_pairs([DRAFT], [_labels(None)], {}, RIGHT, seed=0) == []
    assert local_pairs([DRAFT], [_labels(2)], {}, RIGHT, seed=0) == []
    assert (
        local_pairs([solution("a\n#### 10", "right", "d0")], [_labels(None)], {}, RIGHT, seed=0)
        == []
    )
    assert (
        global_pairs(
            [solution("a", "right"), solution("b", "unknown"), solution("", "wrong")], RIGHT, seed=0
        )
        == []
    )
    assert global_pairs([DRAFT], {}, seed=0) == []


def test_targets_are_drawn_uniformly_and_independently_of_order() -> None:
    drafts = [solution("x\n#### 3", "wrong", f"d{n}") for n in range(400)]
    pairs = global_pairs(drafts, RIGHT, seed=1)
    counts = Counter(p.target_steps[0] for p in pairs)
    assert 150 < counts["good"] < 250
    reversed_options = {"p0": RIGHT["p0"][::-1]}
    assert global_pairs(drafts[::-1], reversed_options, seed=1)[::-1] == pairs


def test_global_pairs_one_or_all_marked_or_not() -> None:
    (one,) = global_pairs([DRAFT], RIGHT, seed=0)
    assert (one.kind, one.marked_step) == ("global", 0)
    both = global_pairs([DRAFT], RIGHT, seed=0, mark="none", how_many="all")
    assert [p.target_steps for p in both] == RIGHT["p0"]
    assert {p.marked_step for p in both} == {None}


def test_mix_is_one_to_one() -> None:
    drafts = [solution("x\n#### 3", "wrong", f"d{n}") for n in range(9)]
    global_ = global_pairs(drafts, RIGHT, seed=0)
    local = local_pairs(drafts[:4], [_labels(0, d.id) for d in drafts[:4]], {}, RIGHT, seed=0)
    mixed = mixed_pairs(local, global_, seed=0)
    assert Counter(p.kind for p in mixed) == {"local": 4, "global": 4}
    assert set(mixed) == {*local, *mixed[4:]}
    assert mixed_pairs([], global_, seed=0) == []


def test_value_pairs_take_the_latest_of_the_best_prefixes_and_leave_the_draft_there() -> None:
    def trial(i: int, *outcomes: tuple[str, str]) -> PrefixTrials:
        return PrefixTrials(
            "d0",
            i,
            tuple(t for t, _ in outcomes),
            tuple(v for _, v in outcomes),
            (False,) * len(outcomes),
            5,
            True,
        )

    trials = [
        trial(1, ("a\n#### 10", "right"), ("b\n#### 3", "wrong")),
        trial(2, ("three\n#### 10", "right"), ("new\n#### 3", "wrong")),
        trial(3, ("c\n#### 3", "wrong"), ("d\n#### 3", "wrong")),
    ]
    assert value_pairs([DRAFT], trials, seed=0) == [], (
        "the only right rollout from P_2 goes on just like the draft"
    )
    trials[1] = trial(2, ("new\n#### 10", "right"), ("#### ?", "unknown"))
    (pair,) = value_pairs([DRAFT], trials, seed=0)
    assert (pair.kind, pair.marked_step, pair.target_steps) == (
        "value",
        2,
        ("one", "two", "new", "#### 10"),
    )
    assert value_pairs([DRAFT], [], seed=0) == []


def test_value_mark_is_the_step_after_the_best_prefix() -> None:
    assert value_mark((0.3, 0.8, 0.8, 0.9)) == 3
    assert value_mark((0.9, 0.2, 0.1)) == 1
    assert value_mark((0.9,)) is None
    assert value_mark(()) is None


def test_requests_are_greedy_and_marked() -> None:
    marked = refine_request("d0/local", "What is p0?", DRAFT.steps, 1, 50, 0)
    assert marked.id == "d0/local"
    assert marked.segments[:4] == ("Question: What is p0?\nDraft:\n", "one\n", "[BAD]", " two\n")
    assert marked.segments[-1] == "Answer:\n"
    params = marked.params
    assert (params.temperature, params.max_new_tokens, len(marked.seeds)) == (0.0, 50, 1)
    unmarked = refine_request("d0/global", "What is p0?", DRAFT.steps, None, 50, 0)
    assert "[BAD]" not in "".join(unmarked.segments)
