"""What RISE learns from: a state (question and last attempt), an improved attempt, its reward.

The improved attempt is the best of N of the model itself: a right one if there is one. Its weight
in the loss is exp(reward / τ), the reward being 1 for a right answer and 0 otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from glore.prompts import PromptLayout
from glore.records import RefinementPair, Solution
from glore.seeds import stable_seed
from glore.solutions import by_problem, same_text

__all__ = [
    "TAU",
    "TurnExample",
    "as_targets",
    "best_of",
    "first_turns",
    "kept_right",
    "next_turns",
    "subsample",
]

TAU = 0.4
"""The temperature of the reward weights, RISE's own."""

Steps = tuple[str, ...]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class TurnExample:
    """One state and the attempt to learn in it."""

    problem_id: str
    turn: int
    """1: the question alone; 2: the question and the attempt before."""
    draft_steps: tuple[str, ...]
    """The attempt before; empty in turn 1."""
    draft_correct: str
    target_steps: tuple[str, ...]
    reward: float
    """1 if the target's answer is right, else 0."""


def best_of(options: Sequence[Solution], seed: int, key: str) -> Solution | None:
    """A right option if there is one, else any; drawn by hash among equals. None without options
    that have steps.
    """
    usable = [s for s in options if s.steps and s.correct != "unknown"]
    return min(
        usable,
        key=lambda s: (
            s.correct != "right",
            stable_seed(seed, "best of n", key, same_text(s.steps)),
        ),
        default=None,
    )


def first_turns(attempts: Sequence[Solution], seed: int) -> list[TurnExample]:
    """Turn 1 of every question: the best of its attempts."""
    found = []
    for problem_id, group in by_problem(attempts).items():
        target = best_of(group, seed, problem_id)
        if target is not None:
            found.append(_example(1, None, target))
    return found


def next_turns(
    drafts: Sequence[Solution], attempts_of: Mapping[str, Sequence[Solution]], seed: int
) -> list[TurnExample]:
    """Turn 2 after every draft with steps. `attempts_of`: draft id → attempts to choose from."""
    found = []
    for draft in drafts:
        target = best_of(attempts_of.get(draft.id, ()), seed, draft.id)
        if draft.steps and target is not None:
            found.append(_example(2, draft, target))
    return found


def kept_right(drafts: Sequence[Solution]) -> list[RefinementPair]:
    """Right drafts as pairs of GLoRe's refiner that leave them alone: marked as for a global
    refinement, the target is the draft.
    """
    return [
        RefinementPair(d.problem_id, d.id, "right", 0, d.steps, d.steps)
        for d in drafts
        if d.correct == "right" and d.steps
    ]


def subsample(items: Sequence[T], keys: Sequence[str], n: int, seed: int) -> list[T]:
    """The n items whose keys have the smallest hashes, in their order."""
    ranked = sorted(range(len(items)), key=lambda i: (stable_seed(seed, "turns", keys[i]), i))
    kept = set(ranked[:n])
    return [item for i, item in enumerate(items) if i in kept]


def as_targets(
    examples: Sequence[TurnExample],
    questions: Mapping[str, str],
    layout: PromptLayout,
    weighted: bool,
) -> list[tuple[Steps, Steps]]:
    """(prompt segments, target steps) for the trainer. With `weighted`, an example occurs as often
    as its weight says, rounded: equal rows are one row with that weight.
    """
    pairs = []
    for e in examples:
        question = questions[e.problem_id]
        prompt = (
            layout.solve(question) if e.turn == 1 else layout.refine(question, e.draft_steps, None)
        )
        copies = round(math.exp(e.reward / TAU)) if weighted else 1
        pairs += [(prompt, e.target_steps)] * copies
    return pairs


def _example(turn: int, draft: Solution | None, target: Solution) -> TurnExample:
    return TurnExample(
        problem_id=target.problem_id,
        turn=turn,
        draft_steps=draft.steps if draft else (),
        draft_correct=draft.correct if draft else "",
        target_steps=target.steps,
        reward=float(target.correct == "right"),
    )
