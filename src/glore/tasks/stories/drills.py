"""What a model made from nothing practises beside stories: arithmetic, and looking things up."""

from __future__ import annotations

import random

from glore.tasks.protocol import Document
from glore.tasks.stories.words import NAMES

__all__ = ["drill", "recall"]


def drill(rng: random.Random, limit: int) -> str:
    """One line like `12 + 7 = 19`, with sums up to twice `limit`."""
    sign = rng.choice("++--*/")
    if sign in "+-":
        total = rng.randint(4, 2 * limit)
        a = rng.randint(2, total - 2)
        return f"{a} + {total - a} = {total}" if sign == "+" else f"{total} - {a} = {total - a}"
    k, a = rng.randint(2, 4), rng.randint(2, max(2, limit // 2))
    return f"{a} * {k} = {a * k}" if sign == "*" else f"{a * k} / {k} = {a}"


def recall(rng: random.Random, limit: int) -> Document:
    """A list of quantities (read), then the same list in another order (learnt): so a model made from nothing learns to look things up."""
    entries = [f"{name} {rng.randint(2, limit)}" for name in rng.sample(NAMES, 6)]
    return (f"{', '.join(entries)}.\n", False), (f"{', '.join(rng.sample(entries, len(entries)))}.\n", True)
