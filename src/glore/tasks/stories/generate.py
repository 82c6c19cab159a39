"""Draw a random story: first people and values, then facts that are true of them, then a
question.
"""

from __future__ import annotations

import random

from glore.config import StoriesSettings
from glore.errors import ConfigError, DataError
from glore.tasks.stories.solve import n_derived, solve
from glore.tasks.stories.story import Change, Fact, Story, states
from glore.tasks.stories.vocabulary import ITEMS, NAMES

__all__ = ["draw_options", "draw_story", "draw_unknown", "too_few_questions"]

CHAINED = 0.7
"""Share of related people whose fact refers to the previous person, not to any earlier one."""
APART = 0.3
"""Share of later people whose fact refers to nobody else."""
PLAIN = 0.25
"""Share of those facts that simply state the number."""
TIED = 0.8
"""Share of later people with an unknown number whose changes refer to another's number."""
TOTALS = 0.7
"""Share of totals in questions about two people; the others ask for a difference."""
FARTHEST = 6
"""Largest distance of offered numbers from the unknown one."""
MAX_DRAWS = 20_000
"""Draws until settings count as impossible: about two seconds, far more than usual settings
need.
"""


def draw_story(rng: random.Random, settings: StoriesSettings, n_steps: tuple[int, int]) -> Story:
    """A story whose shortest found solution derives a number of quantities in the range `n_steps`,
    among them every unknown number (`all_needed`: every person's number).

    Raises ConfigError if `MAX_DRAWS` draws have none.
    """
    for _ in range(MAX_DRAWS):
        story = _drawn(rng, settings)
        if story is None:
            continue
        steps = solve(rng, story)
        derived = {step.partition(":")[0] for step in steps}
        must = (
            story.values
            if settings.all_needed
            else [fact.new for fact in story.facts if fact.kind == "unknown"]
        )
        if n_steps[0] <= n_derived(steps) <= n_steps[1] and derived.issuperset(must):
            return story
    raise ConfigError(
        f"task.stories: none of {MAX_DRAWS} drawn stories has {n_steps[0]} to {n_steps[1]} "
        f"steps for people={list(settings.people)}, max_number={settings.max_number}; widen steps "
        "or people, or raise max_number"
    )


def too_few_questions(settings: StoriesSettings, what: str) -> DataError:
    """The error for settings that don't yield enough questions; `what` begins the message."""
    return DataError(
        f"task.stories: {what} with people={list(settings.people)}, steps={list(settings.steps)}, "
        f"max_number={settings.max_number}, distractors={settings.distractors}; lower n_test, "
        "n_dev or n_train, or raise one of the others"
    )


def _drawn(rng: random.Random, settings: StoriesSettings) -> Story | None:
    people = rng.sample(NAMES, rng.randint(*settings.people))
    values: dict[str, int] = {}
    facts: list[Fact] = []
    unknown = set(rng.sample(people[1:], min(len(people) - 1, rng.randint(*settings.unknown))))
    for person in people:
        if person in unknown or not values or rng.random() < APART:
            fact = _fact_alone(rng, person, person in unknown, values, settings)
        else:
            fact = _relate(rng, person, list(values), values, settings.max_number)
        if fact is None:
            return None
        facts.append(fact)
    for _ in range(rng.randint(0, settings.extra_relations)):
        extra = _redundant(rng, values, settings.max_number)
        if extra and not any(set(extra.people) == set(f.people) for f in facts):
            facts.append(extra)
    return Story(values, tuple(facts), _question(rng, people, values, settings), rng.choice(ITEMS))


def _fact_alone(
    rng: random.Random,
    person: str,
    unknown: bool,
    values: dict[str, int],
    settings: StoriesSettings,
) -> Fact | None:
    """A fact about one person: a number, a number with its changes, or (`unknown`) the result of
    changes to an unknown number.
    """
    limit = settings.max_number
    number = rng.randint(2, limit)
    if not unknown and rng.random() < PLAIN:
        values[person] = number
        return Fact("given", (person,), number, person)
    if unknown:
        changes = draw_unknown(
            rng, settings, {name: value for name, value in values.items() if rng.random() < TIED}
        )
    else:
        changes = draw_changes(rng, rng.randint(*settings.changes), limit // 2)
    passed = states(number, tuple(changes))
    if min(passed) < 1 or max(passed) > limit:
        return None
    if not unknown:
        values[person] = passed[-1]
        return Fact("changes", (person,), number, person, tuple(changes))
    options = draw_options(rng, settings, number, tuple(changes))
    if options is None:
        return None
    values[person] = number
    return Fact("unknown", (person,), passed[-1], person, tuple(changes), options)


def draw_options(
    rng: random.Random, settings: StoriesSettings, number: int, changes: tuple[Change, ...]
) -> tuple[int, ...] | None:
    """Numbers to choose `number` from, in any order (but see `told_second`). All can be tried: no
    intermediate result is below 0 or above `max_number`.

    Empty if the settings offer none, None if there are too few numbers nearby.
    """
    n = rng.randint(*settings.options)
    if n < 2:
        return ()
    moved = states(0, changes)
    lowest, highest = (
        max(1, number - FARTHEST, -min(moved)),
        min(number + FARTHEST, settings.max_number - max(moved)),
    )
    near = [other for other in range(lowest, highest + 1) if other != number]
    if len(near) < n - 1:
        return None
    others = rng.sample(near, n - 1)
    if settings.told_second and rng.random() < settings.told_second:
        return (others[0], number, *others[1:])
    return tuple(rng.sample([number, *others], n))


def draw_changes(rng: random.Random, n: int, largest: int) -> list[Change]:
    """`n` changes. The caller checks their results."""
    return [Change(rng.choice("+-"), rng.randint(1, largest)) for _ in range(n)]


def draw_unknown(
    rng: random.Random, settings: StoriesSettings, values: dict[str, int]
) -> list[Change]:
    """Changes of an unknown number: one by another person's number if there is one, the others
    small.
    """
    changes = draw_changes(rng, rng.randint(*settings.unknown_changes), settings.max_number // 4)
    if values:
        other = rng.choice(list(values))
        changes[rng.randrange(len(changes))] = Change(rng.choice("+-"), values[other], other)
    return changes


def _relate(
    rng: random.Random, new: str, known: list[str], values: dict[str, int], limit: int
) -> Fact | None:
    """A fact that relates a new person to known ones, whose value is added to `values`; none if no
    value fits.
    """
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
        return (
            Fact("pair", (new, old), values[new] + values[old], new)
            if values[new] + values[old] <= limit
            else None
        )
    high, low = (new, old) if values[new] > values[old] else (old, new)
    return Fact("more", (high, low), values[high] - values[low], new)


def _redundant(rng: random.Random, values: dict[str, int], limit: int) -> Fact | None:
    a, b = rng.sample(sorted(values), 2)
    if values[a] == values[b]:
        return None
    if rng.random() < 0.3 and values[a] + values[b] <= limit:
        return Fact("pair", (a, b), values[a] + values[b], a)
    return Fact("more", (a, b) if values[a] > values[b] else (b, a), abs(values[a] - values[b]), a)


def _question(
    rng: random.Random, people: list[str], values: dict[str, int], settings: StoriesSettings
) -> tuple[str, ...]:
    first, second = rng.choice(people[1:]), rng.choice(people)
    if rng.random() >= settings.pairs or first == second or values[first] == values[second]:
        return (first,)
    if rng.random() < TOTALS and values[first] + values[second] <= settings.max_number:
        return (first, second, "total")
    return (
        (first, second, "difference")
        if values[first] > values[second]
        else (second, first, "difference")
    )
