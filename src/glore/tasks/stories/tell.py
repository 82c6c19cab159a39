"""Tell a story in English."""

from __future__ import annotations

import random
from collections.abc import Sequence

from glore.config import StoriesSettings
from glore.tasks.stories.story import Fact, Story
from glore.tasks.stories.words import ASK_DIFFERENCE, ASK_EVERYONE, ASK_ONE, ASK_TOTAL, GIVEN, IDLE, ITEMS, MORE, PAIR, SUM, TIMES, TWICE

__all__ = ["tell"]


def tell(rng: random.Random, story: Story, settings: StoriesSettings, ask_everyone: bool = False) -> str:
    """The story as text: facts and irrelevant sentences shuffled, the question last."""
    sentences = [_say(rng, fact, story.items) for fact in story.facts]
    names = sorted(story.values)
    for _ in range(rng.randint(0, settings.distractors)):
        a, b = rng.sample(names, 2)
        other = rng.choice([i for i in ITEMS if i != story.items])
        sentences.insert(
            rng.randint(0, len(sentences)), rng.choice(IDLE).format(a=a, b=b, k=rng.randint(2, settings.max_number), other=other)
        )
    if rng.random() < settings.shuffled:
        rng.shuffle(sentences)
    question = ASK_EVERYONE.format(items=story.items) if ask_everyone else _ask(rng, story)
    return " ".join([*sentences, question])


def _say(rng: random.Random, fact: Fact, items: str) -> str:
    a, b, c = (*fact.people, "", "")[:3]
    if fact.kind == "times" and fact.k == 2:
        templates: Sequence[str] = TWICE
    else:
        templates = {"given": GIVEN, "more": MORE, "times": TIMES, "pair": PAIR, "sum": SUM}[fact.kind]
    if fact.kind in ("pair", "sum") and rng.random() < 0.5:
        a, b, c = (b, a, c) if fact.kind == "pair" else (a, c, b)
    return rng.choice(templates).format(a=a, b=b, c=c, k=fact.k, items=items)


def _ask(rng: random.Random, story: Story) -> str:
    a, b, kind = (*story.asked, "", "one")[:3] if len(story.asked) == 1 else story.asked
    templates = {"total": ASK_TOTAL, "difference": ASK_DIFFERENCE}.get(kind, ASK_ONE)
    return rng.choice(templates).format(a=a, b=b, items=story.items)
