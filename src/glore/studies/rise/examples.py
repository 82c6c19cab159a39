"""What RISE learns from: a state (question and last attempt), an improved attempt, its reward.

The improved attempt is the best of N of the model itself: a right one if there is one. Its weight
in the loss is exp(reward / τ), the reward being 1 for a right answer and 0 otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
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
    "other_attempts",
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
    """1: the question alone; 2: the question and the attempt before; 3: and one more, …"""
    draft_steps: tuple[str, ...]
    """The attempt before; empty in turn 1."""
    draft_correct: str
    target_steps: tuple[str, ...]
    reward: float
    """1 if the target's answer is right, else 0."""
    earlier: tuple[Steps, ...] = dataclasses.field(default=(), metadata={"newer": True})
    """The attempts before the last one that the state holds, the oldest first."""
    earlier_correct: Steps = dataclasses.field(default=(), metadata={"newer": True})
    """Their verdicts."""

    @property
    def holds_right(self) -> bool:
        """Whether an attempt of the state is right."""
        return "right" in (self.draft_correct, *self.earlier_correct)


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
            found.append(_example(None, target))
    return found


def next_turns(
    drafts: Sequence[Solution],
    attempts_of: Mapping[str, Sequence[Solution]],
    seed: int,
    earlier: Mapping[str, Sequence[Solution]] = MappingProxyType({}),
) -> list[TurnExample]:
    """The turn after every draft with steps. `attempts_of`: draft id → attempts to choose from;
    `earlier`: draft id → the attempts before it that the state holds too.
    """
    found = []
    for draft in drafts:
        target = best_of(attempts_of.get(draft.id, ()), seed, draft.id)
        if draft.steps and target is not None:
            found.append(_example(draft, target, earlier.get(draft.id, ())))
    return found


def other_attempts(
    drafts: Sequence[Solution],
    others: Mapping[str, Sequence[Solution]],
    window: int,
    seed: int,
) -> dict[str, list[Solution]]:
    """Draft id → attempts before it, for states from attempts at one question that did not see each
    other. `others`: draft id → those that may stand there. A state holds 1 … `window` attempts,
    the draft counted, with equal chances by hash as far as there are as many.
    """
    found = {}
    for draft in drafts:
        n = stable_seed(seed, "window", draft.id) % window
        found[draft.id] = [s for s in others.get(draft.id, ()) if s.steps][:n]
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
            layout.solve(question)
            if e.turn == 1
            else layout.refine(question, e.draft_steps, None, e.earlier)
        )
        copies = round(math.exp(e.reward / TAU)) if weighted else 1
        pairs += [(prompt, e.target_steps)] * copies
    return pairs


def _example(
    draft: Solution | None, target: Solution, earlier: Sequence[Solution] = ()
) -> TurnExample:
    return TurnExample(
        problem_id=target.problem_id,
        turn=2 + len(earlier) if draft else 1,
        draft_steps=draft.steps if draft else (),
        draft_correct=draft.correct if draft else "",
        target_steps=target.steps,
        reward=float(target.correct == "right"),
        earlier=tuple(s.steps for s in earlier),
        earlier_correct=tuple(s.correct for s in earlier),
    )
