"""Draw a story: people and values first, then facts that are true of them, then a question."""

from __future__ import annotations

import random

from glore.config import StoriesSettings
from glore.errors import ConfigError
from glore.tasks.stories.solve import solve
from glore.tasks.stories.story import Fact, Story
from glore.tasks.stories.words import ITEMS, NAMES

__all__ = ["draw_story"]

CHAINED = 0.7
"""Share of people who are related to the one told just before, not to any earlier one."""
MAX_DRAWS = 20_000
"""Draws until settings count as impossible: two seconds or so, far more than the usual settings need."""


def draw_story(rng: random.Random, settings: StoriesSettings, n_steps: tuple[int, int]) -> Story:
    """A story whose shortest found solution has a number of steps (answer line not counted) in the range `n_steps`.

    Raises ConfigError where `MAX_DRAWS` draws held none.
    """
    for _ in range(MAX_DRAWS):
        story = _drawn(rng, settings)
        if story and n_steps[0] <= len(solve(rng, story)) - 1 <= n_steps[1]:
            return story
    raise ConfigError(
        f"task.stories: {MAX_DRAWS} drawn stories held none with {n_steps[0]} to {n_steps[1]} steps for people={list(settings.people)}, "
        f"max_number={settings.max_number}; widen steps or people, or raise max_number"
    )


def _drawn(rng: random.Random, settings: StoriesSettings) -> Story | None:
    people = rng.sample(NAMES, rng.randint(*settings.people))
    values = {people[0]: rng.randint(2, settings.max_number)}
    facts = [Fact("given", (people[0],), values[people[0]], people[0])]
    for person in people[1:]:
        fact = _relate(rng, person, list(values), values, settings.max_number)
        if fact is None:
            return None
        facts.append(fact)
    for _ in range(rng.randint(0, settings.extra_relations)):
        extra = _redundant(rng, values)
        if extra and not any(set(extra.people) == set(f.people) for f in facts):
            facts.append(extra)
    return Story(values, tuple(facts), _question(rng, people, values), rng.choice(ITEMS))


def _relate(rng: random.Random, new: str, known: list[str], values: dict[str, int], limit: int) -> Fact | None:
    """A fact that ties a new person to known ones, and the person's value. None where no value fits."""
    old = known[-1] if rng.random() < CHAINED else rng.choice(known)
    kind = rng.choices(("more", "times", "pair", "sum"), (6, 2, 1, 1))[0]
    if kind == "sum" and len(known) > 1:
        b, c = rng.sample(known, 2)
        values[new] = values[b] + values[c]
        return Fact("sum", (new, b, c), 0, new) if values[new] <= limit else None
    if kind == "times":
        if rng.random() < 0.5 and values[old] % 2 == 0:
            values[new] = values[old] // 2
            return Fact("times", (old, new), 2, new)
        k = rng.choice((2, 2, 3))
        values[new] = values[old] * k
        return Fact("times", (new, old), k, new) if values[new] <= limit else None
    values[new] = rng.randint(2, limit)
    if values[new] == values[old]:
        return None
    if kind == "pair":
        return Fact("pair", (new, old), values[new] + values[old], new)
    high, low = (new, old) if values[new] > values[old] else (old, new)
    return Fact("more", (high, low), values[high] - values[low], new)


def _redundant(rng: random.Random, values: dict[str, int]) -> Fact | None:
    a, b = rng.sample(sorted(values), 2)
    if values[a] == values[b]:
        return None
    if rng.random() < 0.3:
        return Fact("pair", (a, b), values[a] + values[b], a)
    return Fact("more", (a, b) if values[a] > values[b] else (b, a), abs(values[a] - values[b]), a)


def _question(rng: random.Random, people: list[str], values: dict[str, int]) -> tuple[str, ...]:
    first, second = rng.sample(people[1:], 1)[0], rng.choice(people)
    kind = rng.random()
    if kind < 0.6 or first == second or values[first] == values[second]:
        return (first,)
    if kind < 0.85:
        return (first, second, "total")
    return (first, second, "difference") if values[first] > values[second] else (second, first, "difference")
