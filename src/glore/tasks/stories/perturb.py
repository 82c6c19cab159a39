"""Perturbed stories: one fact is misread, and everything derived from it changes."""

from __future__ import annotations

import random
from dataclasses import replace

from glore.tasks.stories.story import Fact, Story, states

__all__ = ["perturbed_story"]

FARTHEST = 5
"""Largest error of a misread number."""
FOUND = 0.6
"""Share of errors in an unknown number."""


def perturbed_story(rng: random.Random, story: Story) -> Story | None:
    """The story with one misread fact and all numbers derived from it. Its solutions are wrong
    drafts of the true story. None if some number would not be a positive whole one.
    """
    found = [fact for fact in story.facts if fact.kind == "unknown"]
    read = [fact for fact in story.facts if fact.kind not in ("given", "sum")]
    victim = rng.choice((found if rng.random() < FOUND else read) or read or [story.facts[0]])
    off = rng.choice((-1, 1)) * rng.randint(1, FARTHEST)
    facts: list[Fact] = []
    values: dict[str, int] = {}
    for fact in story.facts:
        if fact.new in values:
            continue  # a redundant fact: no longer true
        value: int | None
        if fact.kind == "unknown":
            # A reference to a misread number changes the number found, as in consistent reasoning.
            changes = tuple(replace(c, k=values[c.of]) if c.of else c for c in fact.changes)
            moved = states(0, fact.changes)[-1] - states(0, changes)[-1]
            value = story.values[fact.new]
            if fact.options:  # another of the offered numbers
                value = (
                    rng.choice([n for n in fact.options if n != value])
                    if fact is victim or moved
                    else value
                )
            else:
                value += moved + (off if fact is victim else 0)
            perturbed = replace(fact, changes=changes)
        else:
            perturbed = _perturbed_fact(rng, fact, off) if fact is victim else fact
            value = _value(perturbed, values)
        if (
            value is None
            or value < 1
            or any(
                state < 0
                for state in states(
                    perturbed.k if perturbed.kind == "changes" else value, perturbed.changes
                )
            )
        ):
            return None
        values[fact.new] = value
        facts.append(perturbed)
    wrong = Story(values, tuple(facts), story.asked, story.items)
    return wrong if wrong.answer > 0 else None


def _perturbed_fact(rng: random.Random, fact: Fact, off: int) -> Fact:
    if not fact.changes:
        return replace(fact, k=max(1, fact.k + off))
    at = rng.randrange(len(fact.changes))
    change = fact.changes[at]
    return replace(
        fact,
        changes=(
            *fact.changes[:at],
            replace(change, k=max(1, change.k + off)),
            *fact.changes[at + 1 :],
        ),
    )


def _value(fact: Fact, values: dict[str, int]) -> int | None:
    """The new person's number from the fact and the others' numbers."""
    if fact.kind == "given":
        return fact.k
    if fact.kind == "changes":
        return states(fact.k, fact.changes)[-1]
    others = [values[name] for name in fact.people if name != fact.new]
    first = fact.new == fact.people[0]
    if fact.kind == "more":
        return others[0] + fact.k if first else others[0] - fact.k
    if fact.kind == "times":
        if first:
            return others[0] * fact.k
        return others[0] // fact.k if others[0] % fact.k == 0 else None
    return fact.k - others[0] if fact.kind == "pair" else sum(others)
