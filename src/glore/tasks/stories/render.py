"""Render a story as English text."""

from __future__ import annotations

import random
from collections.abc import Sequence

from glore.config import StoriesSettings
from glore.tasks.stories.story import CHOICES, Change, Fact, Story
from glore.tasks.stories.vocabulary import (
    AND_MORE,
    ASK_DIFFERENCE,
    ASK_EVERYONE,
    ASK_ONE,
    ASK_TOTAL,
    CHANGED,
    FEWER,
    GIVEN,
    HALF,
    IDLE,
    ITEMS,
    LESS,
    MORE,
    OPTIONS,
    PAIR,
    SUM,
    TIMES,
    TWICE,
    UNKNOWN,
    VERBS,
)

__all__ = ["listed", "render_story"]


def render_story(
    rng: random.Random, story: Story, settings: StoriesSettings, ask_everyone: bool = False
) -> str:
    """The story as text: facts in the order drawn, with irrelevant sentences between them, or all
    sentences shuffled; the question last.
    """
    sentences = [_render_fact(rng, fact, story.items, settings.turned) for fact in story.facts]
    names = sorted(story.values)
    for _ in range(rng.randint(0, settings.distractors)):
        a, b = rng.sample(names, 2)
        other = rng.choice([i for i in ITEMS if i != story.items])
        sentences.insert(
            rng.randint(0, len(sentences)),
            rng.choice(IDLE).format(a=a, b=b, k=rng.randint(2, settings.max_number), other=other),
        )
    if rng.random() < settings.shuffled:
        rng.shuffle(sentences)
    question = ASK_EVERYONE.format(items=story.items) if ask_everyone else _ask(rng, story)
    return " ".join([*sentences, question])


def _render_fact(rng: random.Random, fact: Fact, items: str, turned: float) -> str:
    a, b, c = (*fact.people, "", "")[:3]
    if fact.kind in ("pair", "sum") and rng.random() < 0.5:
        a, b, c = (b, a, c) if fact.kind == "pair" else (a, c, b)
    text = rng.choice(_wordings(fact, rng.random() < turned)).format(
        a=a, b=b, c=c, k=fact.k, items=items, changes=_changes_text(rng, fact.changes)
    )
    return (
        f"{rng.choice(OPTIONS).format(a=a, items=items, options=listed(fact.options))} {text}"
        if fact.options
        else text
    )


def listed(options: Sequence[int]) -> str:
    """`A 5, B 8 or C 11`."""
    *others, last = (f"{letter} {number}" for letter, number in zip(CHOICES, options, strict=False))
    return f"{', '.join(others)} or {last}"


def _changes_text(rng: random.Random, changes: Sequence[Change]) -> str:
    return " and ".join(
        f"{rng.choice(VERBS[c.sign])} {f'as many as {c.of} has' if c.of else c.k}" for c in changes
    )


def _wordings(fact: Fact, turned: bool) -> Sequence[str]:
    """Wordings with the new person as the subject, or, if `turned`, with the other person, as far
    as there are such wordings.
    """
    first = (fact.people[0] == fact.new) != turned
    if fact.kind == "more":
        if turned:
            return (*MORE, *FEWER)
        return AND_MORE if first else LESS
    if fact.kind == "times" and fact.k == 2:
        return TWICE if first else HALF
    return {
        "given": GIVEN,
        "times": TIMES,
        "pair": PAIR,
        "sum": SUM,
        "changes": CHANGED,
        "unknown": UNKNOWN,
    }[fact.kind]


def _ask(rng: random.Random, story: Story) -> str:
    a, b, kind = (*story.asked, "", "one")[:3] if len(story.asked) == 1 else story.asked
    templates = {"total": ASK_TOTAL, "difference": ASK_DIFFERENCE}.get(kind, ASK_ONE)
    return rng.choice(templates).format(a=a, b=b, items=story.items)
