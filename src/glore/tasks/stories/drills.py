"""Drills for a model trained from nothing: arithmetic, looking up, finding and checking numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from glore.config import StoriesSettings
from glore.prompts import refine_segments, step_text
from glore.tasks.documents import problem_pieces, verdict
from glore.tasks.protocol import Document
from glore.tasks.stories.generate import draw_options, draw_unknown
from glore.tasks.stories.render import listed
from glore.tasks.stories.story import (
    CHECK,
    Change,
    equation,
    found,
    states,
    with_letter,
    with_number,
)
from glore.tasks.stories.vocabulary import NAMES

__all__ = ["corrected", "drill", "lookup", "perturbed_line"]

FARTHEST = 3
"""Largest change of a perturbed number."""
BACKWARDS = 0.6
"""Share of drills with an unknown number, given the result of changes to it."""
TRIED = 0.625
"""Share of those that give the number and check it."""
COMPARED = 0.4
"""Share of drills that compare two numbers, among those without unknown numbers."""
QUERIES = 6
"""Lookups in one list."""
JUDGED = 0.25
"""Share of sums to judge, not to compute."""


def drill(rng: random.Random, settings: StoriesSettings, finding: bool = True) -> Document:
    """A sum like `12 + 7 = 19` to compute or to judge; two numbers to compare; or (`finding`) a
    number to find, `Ana: ? + 7 - 2 = 17` and `Check: Ana 12`, or to check.
    """
    if finding and rng.random() < BACKWARDS:
        return _tried(rng, settings) if rng.random() < TRIED else _found(rng, settings)
    if not finding and rng.random() < COMPARED:
        return _compared(rng, settings)
    asked, result = _sum_drill(rng, settings.max_number)
    if rng.random() >= JUDGED:
        return (asked, False), (step_text(result), True)
    line = asked + result
    read = perturbed_line(rng, line) if rng.random() < 0.5 else line
    return (step_text(read), False), (verdict(read == line), True)


def perturbed_line(rng: random.Random, line: str) -> str:
    """The line with one of its numbers changed."""
    numbers = list(re.finditer(r"\d+", line))
    if not numbers:
        return line
    place = rng.choice(numbers)
    number = int(place.group())
    other = rng.choice(
        [n for n in range(max(0, number - FARTHEST), number + FARTHEST + 1) if n != number]
    )
    return f"{line[: place.start()]}{other}{line[place.end() :]}"


def _compared(rng: random.Random, settings: StoriesSettings) -> Document:
    number = rng.randint(1, settings.max_number)
    other = _same_or_nearby(rng, number)
    before = ""
    if rng.random() < 0.5:
        asked, result = _sum_drill(rng, settings.max_number)
        before, number = f"{asked}{result}, ", int(result)
        other = _same_or_nearby(rng, number)
    return (step_text(f"{CHECK}: {before}{number} = {other}"), False), (
        verdict(number == other),
        True,
    )


def _same_or_nearby(rng: random.Random, number: int) -> int:
    return number if rng.random() < 0.5 else max(1, _nearby(rng, number))


def _nearby(rng: random.Random, number: int) -> int:
    return number + rng.choice((-1, 1)) * rng.randint(1, FARTHEST)


def _found(rng: random.Random, settings: StoriesSettings) -> Document:
    number, changes, result, options = _unknown_drill(rng, settings)
    name = rng.choice(NAMES)
    asked = f"{_offered(name, options)}{name}: {equation(changes)} = {result}\n{CHECK}: {name}"
    return (asked, False), (step_text(with_number("", number, options)), True)


def lookup(rng: random.Random, settings: StoriesSettings) -> Document:
    """Which number is B? One list, and lookups of several letters. With two lists in a document the
    model learns this much later.
    """
    name = rng.choice(NAMES)
    options = rng.sample(range(1, settings.max_number + 1), max(2, rng.randint(*settings.options)))
    pieces = [(_offered(name, options), False)]
    for number in rng.choices(options, k=QUERIES):
        who = with_letter(name, number, options)
        asked = f"{CHECK}: {who}" if rng.random() < 0.5 else who.split()[1]
        pieces += [(asked, False), (step_text(f" {number}"), True)]
    return tuple(pieces)


def corrected(rng: random.Random, settings: StoriesSettings) -> Document:
    """A number that fails its check (no loss), and another of those offered (loss), as a
    refinement: what fails is replaced.
    """
    number, changes, result, options = _unknown_drill(rng, settings)
    name = rng.choice(NAMES)
    draft, (line, check) = (
        found(name, n, changes, result, options).lines
        for n in (_another(rng, number, changes, options), number)
    )
    read = problem_pieces(refine_segments(_offer(name, options), draft, rng.choice((0, 1))), ())
    tried, other = f"{CHECK}: {name}", with_number("", number, options)
    return (
        *read,
        (step_text(line) + tried, False),
        (other, True),
        (step_text(check.removeprefix(tried + other)), False),
    )


def _offer(name: str, options: Sequence[int]) -> str:
    return f"{name} has {listed(options)}." if options else f"How many does {name} have?"


def _offered(name: str, options: Sequence[int]) -> str:
    """The line before a drill that offers numbers; empty if there are none."""
    return step_text(_offer(name, options)) if options else ""


def _another(
    rng: random.Random, number: int, changes: tuple[Change, ...], options: Sequence[int]
) -> int:
    """Another number of those offered, or a nearby one."""
    near = [max(0, -min(states(0, changes)), _nearby(rng, number))]
    return rng.choice([n for n in options if n != number] or near)


def _tried(rng: random.Random, settings: StoriesSettings) -> Document:
    """A number, half the time a wrong one, and its check. The number (if it has a letter) and the
    results are learnt as they are, and so is the verdict.
    """
    number, changes, result, options = _unknown_drill(rng, settings)
    if rng.random() < 0.5:
        number = _another(rng, number, changes, options)
    name = rng.choice(NAMES)
    line, check = found(name, number, changes, result, options).lines
    tried = f"{CHECK}: {(with_letter if options else with_number)(name, number, options)}"
    return (
        (_offered(name, options) + step_text(line) + tried, False),
        (step_text(check.removeprefix(tried)), True),
        (verdict(states(number, changes)[-1] == result), True),
    )


def _unknown_drill(
    rng: random.Random, settings: StoriesSettings
) -> tuple[int, tuple[Change, ...], int, tuple[int, ...]]:
    """A number, changes, their result, and numbers to choose from. Intermediate results are 1 to
    `max_number`.
    """
    limit = settings.max_number
    while True:
        number = rng.randint(2, limit)
        changes = tuple(
            replace(change, of="")
            for change in draw_unknown(rng, settings, {"": rng.randint(1, limit)})
        )
        passed = states(number, changes)
        options = draw_options(rng, settings, number, changes)
        if options is not None and all(1 <= state <= limit for state in passed):
            return number, changes, passed[-1], options


def _sum_drill(rng: random.Random, limit: int) -> tuple[str, str]:
    sign = rng.choice("+++---*/")
    if sign in "+-":
        total = rng.randint(3, limit)
        a = rng.randint(1, total - 1)
        return (
            (f"{a} + {total - a} =", f" {total}")
            if sign == "+"
            else (f"{total} - {a} =", f" {total - a}")
        )
    k = rng.randint(2, 3)
    a = rng.randint(1, limit // k)
    return (f"{a} * {k} =", f" {a * k}") if sign == "*" else (f"{a * k} / {k} =", f" {a}")
