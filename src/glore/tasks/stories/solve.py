"""Valid solutions of a story, in one of many valid orders."""

from __future__ import annotations

import random
from collections.abc import Sequence

from glore.tasks.stories.story import CHECK, Derivation, Story

__all__ = ["derive_all", "n_derived", "solve"]

REORDERED = 0.05
"""Share of steps that don't follow the order of the story."""


def solve(rng: random.Random, story: Story, merge: bool = False) -> list[str]:
    """One valid solution, the shortest of a few random ones: the steps and the answer line, which
    `merge` joins to the last step.
    """
    derivations = _derivations(story)
    steps = min((_one_solution(rng, story, derivations) for _ in range(4)), key=len)
    return [*steps[:-2], f"{steps[-2]} {steps[-1]}"] if merge and len(steps) > 1 else steps


def derive_all(rng: random.Random, story: Story) -> list[str]:
    """Steps that derive every person's quantity, in a random valid order."""
    return [
        line
        for derivation in _derive(rng, _derivations(story), set(story.values))
        for line in derivation.lines
    ]


def n_derived(steps: Sequence[str]) -> int:
    """The number of quantities that a solution derives. Checks and the answer line don't count."""
    return len({step.partition(":")[0] for step in steps if not step.startswith((CHECK, "####"))})


def _derivations(story: Story) -> list[Derivation]:
    """All derivations that the facts allow, in the order of the story."""
    return [derivation for fact in story.facts for derivation in fact.derivations(story.values)]


def _derive(
    rng: random.Random, derivations: Sequence[Derivation], asked: set[str]
) -> list[Derivation]:
    """Random valid derivations until all of `asked` are known."""
    known: set[str] = set()
    taken: list[Derivation] = []
    while not asked <= known:
        usable = [
            derivation
            for derivation in derivations
            if derivation.name not in known and known.issuperset(derivation.needs)
        ]
        if not usable:  # impossible: every person's fact is alone or refers to known people
            raise AssertionError("a story that can't be solved")
        derivation = rng.choice(usable) if rng.random() < REORDERED else usable[0]
        known.add(derivation.name)
        taken.append(derivation)
    return taken


def _one_solution(rng: random.Random, story: Story, derivations: Sequence[Derivation]) -> list[str]:
    steps: list[str] = []
    needed = set(story.asked[:2])
    for derivation in reversed(_derive(rng, derivations, set(needed))):
        if derivation.name in needed:
            needed |= set(derivation.needs)
            steps = [*derivation.lines, *steps]
    if len(story.asked) == 3:
        a, b, kind = story.asked
        if kind == "total":  # in the order in which they are derived
            a, b = sorted((a, b), key=list(story.values).index)
        sign = "+" if kind == "total" else "-"
        steps.append(
            f"{kind.capitalize()}: {a} {story.values[a]} {sign} {b} {story.values[b]} = "
            f"{story.answer}"
        )
    return [*steps, f"#### {story.answer}"]
