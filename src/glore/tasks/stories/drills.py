"""What a model made from nothing practises beside stories: arithmetic."""

from __future__ import annotations

import random

from glore.config import StoriesSettings
from glore.tasks.base_text import drill_pieces
from glore.tasks.protocol import Document
from glore.tasks.stories.draw import draw_changes
from glore.tasks.stories.story import chain, equation, states
from glore.tasks.stories.words import NAMES

__all__ = ["drill"]

BACKWARDS = 0.5
"""Share of drills that find a number from what changes would make of it."""


def drill(rng: random.Random, settings: StoriesSettings) -> Document:
    """One line like `12 + 7 = 19`, with sums up to twice the largest number, or like `Ana + 7 = 19, 12 + 7 = 19`."""
    limit = settings.max_number
    if rng.random() < BACKWARDS:
        number = rng.randint(2, limit)
        changes = tuple(draw_changes(rng, rng.randint(*settings.unknown_changes), limit))
        if all(1 <= state <= limit for state in states(number, changes)):
            asked = f"{equation(rng.choice(NAMES), changes)} = {states(number, changes)[-1]},"
            return (asked, False), (f" {', '.join(chain(number, changes))}\n", True)
    sign = rng.choice("++--*/")
    if sign in "+-":
        total = rng.randint(4, 2 * limit)
        a = rng.randint(2, total - 2)
        return drill_pieces(f"{a} + {total - a} = {total}" if sign == "+" else f"{total} - {a} = {total - a}")
    k, a = rng.randint(2, 4), rng.randint(2, max(2, limit // 2))
    return drill_pieces(f"{a} * {k} = {a * k}" if sign == "*" else f"{a * k} / {k} = {a}")
