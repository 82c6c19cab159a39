"""Valid solutions of a story, in one of many valid orders."""

from __future__ import annotations

import random
from collections.abc import Sequence

from glore.tasks.stories.story import CHECK, Derivation, Story

__all__ = ["derive_all", "n_derived", "solve"]

REORDERED = 0.05
"""Share of steps that don't follow the order in which the story is told."""


def solve(rng: random.Random, story: Story) -> list[str]:
    """One valid solution, shortest of a few random ways: the steps and the answer line."""
    ways = _derivations(story)
    return min((_one_solution(rng, story, ways) for _ in range(4)), key=len)


def derive_all(rng: random.Random, story: Story) -> list[str]:
    """Steps for every person's quantity, in a random valid order."""
    return [
        line for way in _derive(rng, _derivations(story), set(story.values)) for line in way.lines
    ]


def n_derived(steps: Sequence[str]) -> int:
    """How many quantities a solution works out (checks and the answer line are not counted)."""
    return len({step.partition(":")[0] for step in steps if not step.startswith((CHECK, "####"))})


def _derivations(story: Story) -> list[Derivation]:
    """Everything that the facts say about any quantity, in the order told."""
    return [way for fact in story.facts for way in fact.derivations(story.values)]


def _derive(rng: random.Random, ways: Sequence[Derivation], asked: set[str]) -> list[Derivation]:
    """Random valid steps until all of `asked` are known."""
    known: set[str] = set()
    taken: list[Derivation] = []
    while not asked <= known:
        usable = [way for way in ways if way.name not in known and known.issuperset(way.needs)]
        if not usable:  # can't happen: every person is told alone or tied to known ones
            raise AssertionError("a story that can't be solved")
        way = rng.choice(usable) if rng.random() < REORDERED else usable[0]
        known.add(way.name)
        taken.append(way)
    return taken


def _one_solution(rng: random.Random, story: Story, ways: Sequence[Derivation]) -> list[str]:
    steps: list[str] = []
    needed = set(story.asked[:2])
    for way in reversed(_derive(rng, ways, set(needed))):
        if way.name in needed:
            needed |= set(way.needs)
            steps = [*way.lines, *steps]
    if len(story.asked) == 3:
        a, b, kind = story.asked
        if kind == "total":  # in the order in which they are worked out
            a, b = sorted((a, b), key=list(story.values).index)
        sign = "+" if kind == "total" else "-"
        steps.append(
            f"{kind.capitalize()}: {a} {story.values[a]} {sign} {b} {story.values[b]} = "
            f"{story.answer}"
        )
    return [*steps, f"#### {story.answer}"]
