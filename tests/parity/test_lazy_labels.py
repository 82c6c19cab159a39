"""The backward scan with early stopping gives exactly the labels of full counts, in every way of
drawing waves.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glore.config import LabelSettings
from glore.engines.protocol import Request
from glore.progress import SilentProgress
from glore.records import PrefixTrials, Solution
from glore.where import expected_rollouts, good_traces, label_drafts, numbers, verify_prefixes
from support.fakes import FunctionEngine, LastLineTask, problem, solution

TASK = LastLineTask()
PROBLEMS = {"p0": problem()}


def _rollout(request: Request, seed: int) -> str:
    """Right and consistent, right and inconsistent, wrong, or ungraded; from the seed alone."""
    uses = " ".join(sorted(numbers(" ".join(request.segments[1:]))))
    kinds = [f"{uses}\n#### 10", "#### 10", "999\n#### 3", "#### ?"]
    return random.Random(seed).choices(kinds, weights=(1, 1, 5, 1))[0]


def _draft(name: str, n_steps: int, verdict: str, rng: random.Random) -> Solution:
    lines = [f"{rng.randint(1, 99)} + 1 = {rng.randint(1, 99)}" for _ in range(n_steps)]
    return solution(
        "\n".join([*lines[:-1], "#### 10" if verdict == "right" else "#### 3"]), verdict, name
    )


def _scan(
    drafts: list[Solution], rule: LabelSettings, seed: int, waves: tuple[int, ...] = (1, 3)
) -> tuple[list[PrefixTrials], int]:
    engine = FunctionEngine(_rollout)
    return verify_prefixes(
        engine, TASK, PROBLEMS, drafts, rule, seed=seed, progress=SilentProgress(), waves=waves
    ), engine.n_drawn


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.sampled_from(["wrong", "wrong", "right", "unknown"])),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 8),
    st.integers(0, 10_000),
    st.sampled_from(["number", "substring", "off"]),
    st.lists(st.integers(1, 5), max_size=3),
)
def test_scan_equals_full_counts(
    shapes: list[tuple[int, str]], k: int, seed: int, consistency: str, waves: list[int]
) -> None:
    rng = random.Random(seed)
    drafts = [_draft(f"s{n}", n_steps, verdict, rng) for n, (n_steps, verdict) in enumerate(shapes)]
    lazy = LabelSettings.model_validate({"rollouts": k, "consistency": consistency})
    full = lazy.model_copy(update={"full_counts": True})
    scanned, n_scanned = _scan(drafts, lazy, seed, tuple(waves))
    counted, n_counted = _scan(drafts, full, seed)
    assert (
        label_drafts(drafts, scanned, lazy, seed=seed).labels
        == label_drafts(drafts, counted, full, seed=seed).labels
    )
    assert n_scanned <= n_counted
    assert n_counted == k * sum(n_steps - 1 for n_steps, verdict in shapes if verdict != "unknown")

    # The success that ends a scan is the first good trace of full counts: a target for the local
    # refiner.
    by_id = {d.id: d for d in drafts}
    first = {
        (t.solution_id, t.n_steps_kept): good_traces(by_id[t.solution_id], t, full)[:1]
        for t in counted
    }
    assert all(
        good_traces(by_id[t.solution_id], t, lazy) == first[t.solution_id, t.n_steps_kept]
        for t in scanned
    )


def test_records_do_not_depend_on_waves() -> None:
    rng = random.Random(3)
    drafts = [_draft(f"s{n}", 5, "wrong", rng) for n in range(30)]
    rule = LabelSettings(rollouts=8)
    runs = [_scan(drafts, rule, 7, waves) for waves in [(), (1, 3), (2,), (1,) * 8, (8,), (100,)]]
    assert all(trials == runs[0][0] for trials, _ in runs)
    assert runs[3][1] < runs[1][1] < runs[0][1]


def test_labels_under_a_looser_rule_come_from_the_same_scan() -> None:
    rng = random.Random(4)
    drafts = [_draft(f"s{n}", 5, "wrong", rng) for n in range(40)]
    strict, loose = LabelSettings(rollouts=4), LabelSettings(rollouts=4, consistency="off")
    from_strict = label_drafts(drafts, _scan(drafts, strict, 1)[0], loose, seed=1).labels
    assert from_strict == label_drafts(drafts, _scan(drafts, loose, 1)[0], loose, seed=1).labels


def test_cost_of_the_scan_is_the_expected_one() -> None:
    """One draft in waves of one: drawn rollouts follow the formula of method 3 (success rate 1/8 at
    every prefix).
    """
    rng = random.Random(2)
    drafts = [_draft(f"s{n}", 4, "wrong", rng) for n in range(1500)]
    _, n_drawn = _scan(drafts, LabelSettings(rollouts=4), 11, (1,) * 4)
    assert n_drawn / len(drafts) == pytest.approx(expected_rollouts((1 / 8,) * 3, 4), rel=0.05)
