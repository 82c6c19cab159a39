"""What a model made from nothing practises beside stories: arithmetic, and looking things up."""

from __future__ import annotations

import random

from glore.tasks.protocol import Document
from glore.tasks.stories.words import FEWER, ITEMS, MORE, NAMES

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
    """A list (read), then the same list in another order (learnt): so a model made from nothing learns to look things up."""
    names = rng.sample(NAMES, 6)
    if rng.random() < 0.3:
        entries = [f"{name} {rng.randint(2, limit)}." for name in names]
    else:
        items = rng.choice(ITEMS)
        wording = (*MORE, *FEWER)
        entries = [
            rng.choice(wording).format(a=a, b=b, k=rng.randint(1, limit), items=items)
            for a, b in zip(names[:4], rng.sample(names, 4), strict=True)
            if a != b
        ]
    return (f"{' '.join(entries)}\n", False), (f"{' '.join(rng.sample(entries, len(entries)))}\n", True)
