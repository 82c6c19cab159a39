"""Rollouts of one grader, graded by another, lead to the very records that a scan with the other
one makes.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from glore.config import LabelSettings
from glore.engines.protocol import Request
from glore.progress import SilentProgress
from glore.records import PrefixTrials, Problem, Solution
from glore.regrade.verdicts import Tally, regraded_trials
from glore.seeds import stable_seed
from glore.tasks.protocol import Grade, Task
from glore.where import verify_prefixes
from support.fakes import FunctionEngine, LastLineTask, problem, solution

PROBLEMS = {"p0": problem()}


class RandomGrader(LastLineTask):
    """Any verdict for any text, always the same one; a share of the texts keeps what `LastLineTask`
    says.
    """

    def __init__(self, seed: int, share: float) -> None:
        super().__init__()
        self._seed, self._share = seed, share

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        rng = random.Random(stable_seed(self._seed, *steps))
        verdict = rng.choices(["right", "wrong", "unknown"], weights=(1, 3, 1))[0]
        usual = super().grade(problem, steps)
        return Grade(verdict, usual.answer) if rng.random() < self._share else usual


def _rollout(request: Request, seed: int) -> str:
    return random.Random(seed).choices(
        [f"{seed % 97}\n#### 10", f"{seed % 89}\n#### 3", "#### ?"], weights=(1, 5, 1)
    )[0]


def _graded(drafts: Sequence[Solution], task: Task) -> list[Solution]:
    return [
        dataclasses.replace(d, correct=task.grade(PROBLEMS["p0"], d.steps).verdict) for d in drafts
    ]


def _scan(
    drafts: Sequence[Solution],
    task: Task,
    rule: LabelSettings,
    seed: int,
    drawn: Sequence[PrefixTrials] = (),
) -> tuple[list[PrefixTrials], int]:
    engine = FunctionEngine(_rollout)
    return verify_prefixes(
        engine, task, PROBLEMS, drafts, rule, seed=seed, progress=SilentProgress(), drawn=drawn
    ), engine.n_drawn


def _without_tokens(trials: Sequence[PrefixTrials]) -> list[PrefixTrials]:
    return [dataclasses.replace(t, n_tokens=0) for t in trials]


@settings(max_examples=80, deadline=None)
@given(
    shapes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    k=st.integers(1, 8),
    seed=st.integers(0, 10_000),
    full=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_regraded_rollouts_are_those_of_a_scan(
    shapes: list[int], k: int, seed: int, full: bool, share: float
) -> None:
    rng = random.Random(seed)
    rule = LabelSettings(rollouts=k, consistency="off", full_counts=full)
    texts = [
        "\n".join(
            [
                *(f"{rng.randint(1, 99)} + 1" for _ in range(n - 1)),
                rng.choice(["#### 10", "#### 3", "#### ?"]),
            ]
        )
        for n in shapes
    ]
    drafts = [solution(text, name=f"s{n}") for n, text in enumerate(texts)]
    before, after = LastLineTask(), RandomGrader(seed, share)
    stored, _ = _scan(_graded(drafts, before), before, rule, seed)
    now = _graded(drafts, after)
    expected, n_from_nothing = _scan(now, after, rule, seed)

    found = regraded_trials(after, PROBLEMS, now, stored, rule, Tally(3), lambda: None)
    assert _without_tokens(found.records) == _without_tokens(
        [t for t in expected if t.solution_id not in found.unfinished]
    )
    gone_on, n_drawn = _scan(now, after, rule, seed, drawn=found.stored)
    assert _without_tokens(gone_on) == _without_tokens(expected)
    assert n_drawn <= n_from_nothing
    assert (n_drawn > 0) == bool(found.unfinished)

    # Tokens are those of a scan, but where rollouts were dropped: there, those of all that were
    # drawn.
    tokens = {(t.solution_id, t.n_steps_kept): (t.n_tokens, len(t.completions)) for t in stored}
    for kept, scanned in zip(gone_on, expected, strict=True):
        n_stored, n_completions = tokens.get((kept.solution_id, kept.n_steps_kept), (0, 0))
        assert kept.n_tokens == (
            n_stored if n_completions > len(kept.completions) else scanned.n_tokens
        )
    if share == 0.0:
        assert (found.records, found.unfinished, found.n_dropped) == (stored, frozenset(), 0)
