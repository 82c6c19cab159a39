"""What a model made from nothing practises beside stories: arithmetic."""

from __future__ import annotations

import random
import re

from glore.config import StoriesSettings
from glore.prompts import step_text
from glore.tasks.base_text import verdict
from glore.tasks.protocol import Document
from glore.tasks.stories.draw import draw_changes
from glore.tasks.stories.story import equation, states

__all__ = ["drill", "scribbled"]

FARTHEST = 3
"""A number scribbled over differs by at most so much."""
BACKWARDS = 0.6
"""Share of drills that find a number from what changes would make of it."""
JUDGED = 0.4
"""Share of sums that are judged, not done."""


def drill(rng: random.Random, settings: StoriesSettings, finding: bool = True) -> Document:
    """A sum like `12 + 7 = 19` to do or to judge (also as `19 = 12 + 7`), or (`finding`) a number to find: `? + 7 - 2 = 17, ? = 12`."""
    if finding and rng.random() < BACKWARDS:
        asked, found = _backwards(rng, settings)
        return (asked, False), (step_text(found), True)
    asked, found = _forwards(rng, settings.max_number)
    if rng.random() >= JUDGED:
        return (asked, False), (step_text(found), True)
    line = asked + found if rng.random() < 0.5 else f"{found.strip()} = {asked.removesuffix(' =')}"
    read = scribbled(rng, line) if rng.random() < 0.5 else line
    return (step_text(read), False), (verdict(read == line), True)


def scribbled(rng: random.Random, line: str) -> str:
    """The line with another number for one of its numbers."""
    numbers = list(re.finditer(r"\d+", line))
    if not numbers:
        return line
    place = rng.choice(numbers)
    number = int(place.group())
    other = rng.choice([n for n in range(max(0, number - FARTHEST), number + FARTHEST + 1) if n != number])
    return f"{line[: place.start()]}{other}{line[place.end() :]}"


def _backwards(rng: random.Random, settings: StoriesSettings) -> tuple[str, str]:
    limit = settings.max_number
    while True:
        number = rng.randint(2, limit)
        changes = tuple(draw_changes(rng, rng.randint(*settings.unknown_changes), limit))
        if all(1 <= state <= limit for state in states(number, changes)):
            return f"{equation(changes)} = {states(number, changes)[-1]},", f" ? = {number}"


def _forwards(rng: random.Random, limit: int) -> tuple[str, str]:
    sign = rng.choice("+++---*/")
    if sign in "+-":
        total = rng.randint(3, limit)
        a = rng.randint(1, total - 1)
        return (f"{a} + {total - a} =", f" {total}") if sign == "+" else (f"{total} - {a} =", f" {total - a}")
    k = rng.randint(2, 3)
    a = rng.randint(1, limit // k)
    return (f"{a} * {k} =", f" {a * k}") if sign == "*" else (f"{a * k} / {k} =", f" {a}")
