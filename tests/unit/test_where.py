"""Consistency of rollouts, labels from raw rollouts, balancing, and the first bad step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.config import LabelSettings
from glore.engines.protocol import Request
from glore.progress import SilentProgress
from glore.records import PrefixTrials
from glore.where import (
    balance_mask,
    consistent_rollouts,
    expected_rollouts,
    first_bad_step,
    good_traces,
    label_drafts,
    numbers,
    step_result,
    truth_labels,
    verify_prefixes,
)
from support.fakes import FunctionEngine, LastLineTask, problem, solution


def is_consistent(
    prefix: tuple[str, ...], rollout: tuple[str, ...], how: str = "number", steps: str = "all"
) -> bool:
    return consistent_rollouts(prefix, [rollout], how, steps)[0]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("He sold 48/2 = <<48/2=24>>24 clips in May", "24"),
        ("<<1+1=2>>2 and <<2+2=4>>4 = 9", "4"),
        ("Ana : 12 + 7 = 19", "19"),
        ("2 pens + 3 pens = 5 pens, 1 lost", "5"),
        ("He has 3 dogs and 12 cats", "12"),
        ("so x = ? with 8 left", "8"),
        ("5 - 8 = -3", "-3"),
        ("12-3", "3"),
        ("It costs $1,234.50.", "1,234.50"),
        ("Nothing to see", None),
        ("", None),
    ],
)
def test_result_of_a_step(step: str, expected: str | None) -> None:
    assert step_result(step) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,234.50 and 007", {"1234.5", "7"}),
        ("3,4", {"3", "4"}),
        ("12 - 3, then -3, −4 and 9 -2", {"12", "3", "-3", "-4", "9", "2"}),
        ("- 5 pens", {"5"}),
        (".5 is 0.50; -0 is 0", {"0.5", "0"}),
        ("72. 1.5.", {"72", "1.5"}),
        ("9" * 10_000, {"9" * 10_000}),
        ("٣", set()),
    ],
)
def test_numbers_of_a_text(text: str, expected: set[str]) -> None:
    assert numbers(text) == expected


def test_every_result_of_the_prefix_must_be_used_later() -> None:
    prefix = ("2 + 3 = 5", "5 + 7 = 12")
    assert is_consistent(prefix, ("12 * 2 = 24", "#### 24"))
    assert not is_consistent(prefix, ("5 * 2 = 10", "#### 10")), "12 is never used"
    assert not is_consistent(("2 + 3 = 5", "1 + 1 = 2"), ("2 + 2 = 4",)), "5 is never used"
    assert is_consistent(("2 + 3 = 5", "1 + 1 = 2"), ("2 + 2 = 4",), steps="last")
    assert is_consistent(("no number here",), ())
    assert not is_consistent(("2 + 3 = 5",), ("15 + 2.5 = 17.5",)), (
        "5 inside other numbers is not 5"
    )
    assert is_consistent(("2 + 3 = 5",), ("15 + 2 = 17",), how="substring")
    assert is_consistent(("2 + 3 = 5",), ("1 + 1 = 2",), how="off")
    assert is_consistent(("it is $1,200.00",), ("1200 / 2 = 600",))
    assert not is_consistent(("it is $1,200.00",), ("1200 / 2 = 600",), how="substring")


def test_use_in_the_same_step_does_not_count() -> None:
    assert not is_consistent(("5 and 2 + 3 = 5",), ("1 + 1 = 2",))


def _trial(
    i: int, texts: list[str], verdicts: list[str], draft: str = "s0", exhausted: bool = True
) -> PrefixTrials:
    return PrefixTrials(
        draft, i, tuple(texts), tuple(verdicts), (True,) * len(texts), 10, exhausted
    )


DRAFT = solution("2 + 3 = 5\n5 + 1 = 6\n6 + 1 = 8\n#### 8")


def test_labels_by_hand() -> None:
    trials = [
        _trial(3, ["#### 10"], ["right"]),  # right, but 8 is not used
        _trial(2, ["6 + 4 = 10\n#### 10", "#### ?"], ["right", "unknown"]),
        _trial(1, ["5 + 2 = 7\n#### 7"], ["wrong"]),
    ]
    settings = LabelSettings(rollouts=1, balance=False, full_counts=True)
    labels, counts = label_drafts([DRAFT], trials, settings, seed=0)
    assert labels[0].labels == (True, True, False, False)
    assert labels[0].first_error == 2
    assert labels[0].kept == (True,) * 4
    assert (
        counts.n_rollouts,
        counts.n_right_rollouts,
        counts.n_consistent_rollouts,
        counts.n_unknown_rollouts,
    ) == (4, 2, 1, 1)
    assert (counts.n_positive_sampled, counts.n_positive, counts.n_negative) == (1, 2, 2)
    assert good_traces(DRAFT, trials[1], settings) == [("6 + 4 = 10", "#### 10")]

    raw, _ = label_drafts([DRAFT], trials, settings.model_copy(update={"propagate": False}), seed=0)
    assert raw[0].labels == (False, True, False, False)
    assert raw[0].first_error == 0
    loose, _ = label_drafts(
        [DRAFT], trials, settings.model_copy(update={"consistency": "off"}), seed=0
    )
    assert loose[0].labels == (True, True, True, False)


def test_correct_drafts_are_good_throughout_and_ungraded_ones_have_no_labels() -> None:
    drafts = [
        solution("1 + 1 = 2\n#### 10", "right", "a"),
        solution("1 + 1 = 2\n#### ?", "unknown", "b"),
        solution("", "wrong", "c"),
    ]
    labels, counts = label_drafts(drafts, [], LabelSettings(balance=False), seed=0)
    assert [x.labels for x in labels] == [(True, True), None, None]
    assert [x.first_error for x in labels] == [None, None, None]
    assert counts.n_unlabelled == 2


def test_a_rule_that_needs_more_rollouts_than_were_drawn_gives_no_labels() -> None:
    stopped_by_a_loose_rule = [_trial(3, ["#### 10"], ["right"], exhausted=False)]
    loose = LabelSettings(balance=False, consistency="off")
    assert label_drafts([DRAFT], stopped_by_a_loose_rule, loose, seed=0).labels[0].labels == (
        True,
        True,
        True,
        False,
    )
    strict = LabelSettings(balance=False)
    assert label_drafts([DRAFT], stopped_by_a_loose_rule, strict, seed=0).labels[0].labels is None


def test_truth_labels_are_negative_after_the_first_false_step() -> None:
    labels = truth_labels(DRAFT, (True, False, True, True))
    assert labels.labels == (True, False, False, False)
    assert (labels.first_error, labels.rule) == (1, "truth")


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.booleans(), min_size=1, max_size=6)), max_size=25
    ),
    st.integers(0, 3),
)
def test_balance_is_exact_per_length_and_does_not_depend_on_order(
    drafts: list[tuple[int, list[bool]]], seed: int
) -> None:
    labels = {(f"p{q}", f"s{n}"): steps for n, (q, steps) in enumerate(drafts)}
    kept = balance_mask(labels, seed)
    for i in range(6):
        here = [(steps[i], kept[key][i]) for key, steps in labels.items() if i < len(steps)]
        n_good, n_bad = sum(label for label, _ in here), sum(not label for label, _ in here)
        assert (
            sum(k for label, k in here if label)
            == sum(k for label, k in here if not label)
            == min(n_good, n_bad)
        )
    shuffled = list(labels.items())
    random.Random(seed).shuffle(shuffled)
    assert balance_mask(dict(shuffled), seed) == kept


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.booleans(), min_size=1, max_size=4)), max_size=25
    ),
    st.integers(0, 3),
)
def test_balance_within_each_question(drafts: list[tuple[int, list[bool]]], seed: int) -> None:
    labels = {(f"p{q}", f"s{n}"): steps for n, (q, steps) in enumerate(drafts)}
    kept = balance_mask(labels, seed, within_question=True)
    assert kept.keys() == labels.keys()
    for question in {key[0] for key in labels}:
        alone = {key: steps for key, steps in labels.items() if key[0] == question}
        here = {key: kept[key] for key in alone}
        assert here == balance_mask(alone, seed), "as if it were the only question"


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_propagated_labels_are_monotone_and_end_at_the_last_success(success: list[bool]) -> None:
    draft = solution("\n".join(f"step {'abcdefghij'[n]}" for n in range(len(success) + 1)))
    trials = [
        _trial(i + 1, ["#### 10"], ["right" if s else "wrong"]) for i, s in enumerate(success)
    ]
    labels = label_drafts([draft], trials, LabelSettings(balance=False), seed=0).labels[0].labels
    assert labels is not None
    assert list(labels) == sorted(labels, reverse=True)
    assert sum(labels) == max((i + 1 for i, s in enumerate(success) if s), default=0)


def test_first_bad_step() -> None:
    assert first_bad_step((0.9, 0.5, 0.1), 0.5) == 1
    assert first_bad_step((0.9, 0.51), 0.5) is None
    assert first_bad_step((), 0.5) is None


def test_the_scan_asks_for_no_more_than_it_needs() -> None:
    """P_3 fails, P_2 succeeds at k = 1: K + 4 drawn in waves of 1, 3, …; k > 1 is not recorded."""
    right = {2: 1}

    def answer(request: Request, seed: int) -> str:
        i = len(request.segments) - 1
        drawn = int(request.id.rpartition("/")[2]) + request.seeds.index(seed)
        return "6 + 4 = 10\n#### 10" if right.get(i) == drawn else "#### 3"

    engine = FunctionEngine(answer)
    drafts = [
        DRAFT,
        solution("5 + 5 = 10\n#### 10", "right", "s1"),
        solution("x\n#### ?", "unknown", "s2"),
        solution("#### 3", "wrong", "s3"),
    ]
    settings = LabelSettings(rollouts=8)
    trials = verify_prefixes(
        engine,
        LastLineTask(),
        {"p0": problem()},
        drafts,
        settings,
        seed=1,
        progress=SilentProgress(),
    )
    assert [(t.solution_id, t.n_steps_kept, len(t.completions), t.exhausted) for t in trials] == [
        ("s0", 2, 2, False),
        ("s0", 3, 8, True),
    ]
    assert trials[0].correct == ("wrong", "right")
    assert trials[0].consistent == (False, True)
    assert engine.n_drawn == 8 + 4


def test_expected_rollouts_against_a_simulation() -> None:
    rates, k, rng = (0.9, 0.3, 0.05), 8, random.Random(5)

    def simulated() -> int:
        n = 0
        for rate in reversed(rates):
            for _ in range(k):
                n += 1
                if rng.random() < rate:
                    return n
        return n

    n_runs = 20_000
    mean = sum(simulated() for _ in range(n_runs)) / n_runs
    assert expected_rollouts(rates, k) == pytest.approx(mean, rel=0.02)
    assert expected_rollouts((0.0, 0.0), k) == 2 * k
    assert expected_rollouts((0.2, 1.0), k) == 1
    assert expected_rollouts((), k) == 0
