"""Valid solutions of a story, in one of many valid orders."""

from __future__ import annotations

import random

from glore.tasks.stories.story import Story, filled, names_in

__all__ = ["solve", "work_out"]


def solve(rng: random.Random, story: Story) -> list[str]:
    """One valid solution, shortest of a few random ways: the steps and the answer line."""
    return min((_one_way(rng, story) for _ in range(4)), key=len)


def work_out(rng: random.Random, story: Story) -> list[str]:
    """Steps for every person's quantity, in a random valid order."""
    return [line for _, _, line in _derive(rng, story, set(story.values))]


def _derive(rng: random.Random, story: Story, asked: set[str]) -> list[tuple[str, set[str], str]]:
    """Random valid steps until all of `asked` are known: (name, names it needs, step)."""
    known = {f.people[0] for f in story.facts if f.kind == "given"}
    lines: list[tuple[str, set[str], str]] = []
    ways = [way for fact in story.facts for way in fact.ways()]
    while not asked <= known:
        usable = [(name, text) for name, text in ways if name not in known and names_in(text) <= known]
        if not usable:  # can't happen: every person was tied to known ones
            raise AssertionError("a story that can't be solved")
        name, text = rng.choice(usable)
        known.add(name)
        lines.append((name, names_in(text), f"{name}: {text} = {filled(text, story.values)} = {story.values[name]}"))
    return lines


def _one_way(rng: random.Random, story: Story) -> list[str]:
    steps: list[str] = []
    needed = set(story.asked[:2])
    for name, sources, line in reversed(_derive(rng, story, set(needed))):
        if name in needed:
            needed |= sources
            steps.insert(0, line)
    if len(story.asked) == 3:
        a, b, kind = story.asked
        text = f"{a} + {b}" if kind == "total" else f"{a} - {b}"
        steps.append(f"{kind.capitalize()}: {text} = {filled(text, story.values)} = {story.answer}")
    return [*steps, f"#### {story.answer}"]
