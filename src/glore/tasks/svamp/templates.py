"""Templates for `scratch`: wordings with slots for numbers, and the equations that solve them.

They come from the MAWPS/ASDiv-A file that SVAMP's authors trained on (slots `number0 …`, equations
in prefix form) and from SVAMP's *train* questions with their equations. A template whose wording,
numbers masked, equals a dev or test question is left out and counted. So is a train problem whose
equation contradicts its answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from glore.config import Worked
from glore.errors import DataError
from glore.tasks.data.splits import Splits, question_key
from glore.tasks.grading.numbers import Number, canonical, parse_number
from glore.tasks.svamp.equations import (
    LETTERS,
    Equation,
    Operation,
    parse_infix,
    value_of,
    worked_lines,
)

__all__ = [
    "MAX_RESULT",
    "SLOT",
    "Template",
    "Templates",
    "closed_wordings",
    "filled",
    "fits",
    "lettered",
    "solved",
    "usable_templates",
    "wording",
]

MAX_RESULT = 99_999
"""The largest intermediate result."""
SLOT = re.compile(r"number[0-9]+")
"""Stands for a number in a wording and its equation."""
_NUMERAL = re.compile(r"(?<![\w.,])[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?!\w)")

_PLACE = re.compile(f"{SLOT.pattern}|{_NUMERAL.pattern}")


class Template(NamedTuple):
    """A question with slots and the equation that solves it."""

    text: str
    tree: Equation
    slots: Mapping[str, Fraction]
    """The original numbers; if empty, the numbers can't be redrawn."""


class Templates(NamedTuple):
    """All templates, and counts of those left out."""

    given: tuple[Template, ...]
    svamp: tuple[Template, ...]
    closed: frozenset[str]
    """Wordings of dev and test, which no document may have."""
    n_leaks: int
    """Templates whose wording is that of a dev or test question."""
    n_unusable: int
    """Train problems whose equation contradicts the answer or whose results are not all positive
    whole numbers.
    """


def closed_wordings(splits: Splits) -> frozenset[str]:
    """Wordings of dev and test, which nothing to train on may have."""
    return frozenset(
        wording(problem.question) for split in ("dev", "test") for problem in splits.problems[split]
    )


def usable_templates(
    rows: Sequence[Template], splits: Splits, equations: Mapping[str, str]
) -> Templates:
    """Those of the MAWPS/ASDiv-A file (`rows`) and of SVAMP's train split (`equations` by problem
    id) that may be used. Raises DataError for an equation that can't be read.
    """
    closed = closed_wordings(splits)
    train = [
        _svamp_template(p.question, equations[p.id], p.answer) for p in splits.problems["train"]
    ]
    usable = [t for t in train if t is not None and fits(t.tree, t.slots)]
    given = tuple(t for t in rows if wording(t.text) not in closed)
    svamp = tuple(t for t in usable if wording(t.text) not in closed)
    return Templates(
        given,
        svamp,
        closed,
        len(rows) - len(given) + len(usable) - len(svamp),
        len(train) - len(usable),
    )


def filled(template: Template, slots: Mapping[str, Fraction]) -> str:
    """The question with these numbers."""
    return SLOT.sub(
        lambda match: canonical(Number(slots[match[0]])) if match[0] in slots else match[0],
        template.text,
    )


def solved(template: Template, worked: Worked) -> tuple[str, ...] | None:
    """The solution with the original numbers, as `task.worked` says; none for `none`. Raises
    DataError for a division by zero.
    """
    if worked == "none":
        return None
    named = lettered(template.text, template.slots) if worked == "columns" else ()
    return worked_lines(template.tree, template.slots, *named)


def lettered(
    text: str, slots: Mapping[str, Fraction]
) -> tuple[tuple[Fraction, ...], dict[str | Fraction, str]]:
    """The numbers of a wording in order, with slots filled; and the letter of each slot and of each
    other number.
    """
    leaves: list[str | Fraction] = []
    for place in _PLACE.findall(text):
        number = parse_number(place)
        if place in slots:
            leaves.append(place)
        elif number is not None:  # a `number7` without a slot is a word of the text
            leaves.append(number.value)
    letter_of: dict[str | Fraction, str] = {}
    for letter, leaf in zip(LETTERS, leaves, strict=False):
        letter_of.setdefault(leaf, letter)
    return tuple(slots[leaf] if isinstance(leaf, str) else leaf for leaf in leaves), letter_of


def fits(tree: Equation, slots: Mapping[str, Fraction]) -> bool:
    """Whether every intermediate result is a positive whole number up to `MAX_RESULT`."""
    if isinstance(tree, Operation) and not (fits(tree.left, slots) and fits(tree.right, slots)):
        return False
    try:
        value = value_of(tree, slots)
    except DataError:
        return False
    return value.denominator == 1 and 0 < value <= MAX_RESULT


def _svamp_template(question: str, equation: str, answer: str) -> Template | None:
    """A template with slots for the numbers in the wording; without slots if a number of the
    equation is there twice. None if the equation contradicts the answer.
    """
    gold, tree = parse_number(answer), parse_infix(equation)
    if gold is None or value_of(tree, {}) != gold.value:
        return None
    slots: dict[str, Fraction] = {}

    def cut(match: re.Match[str]) -> str:
        number = parse_number(match[0])
        name = f"number{len(slots)}"
        slots[name] = number.value if number else Fraction(0)
        return name

    text = _NUMERAL.sub(cut, question)
    leaves = set(_leaves(tree))
    if any(sum(value == leaf for value in slots.values()) > 1 for leaf in leaves):
        return Template(question, tree, {})
    names = {value: name for name, value in slots.items()}
    return Template(text, _with_slots(tree, names), slots)


def _leaves(tree: Equation) -> Iterator[Fraction]:
    if isinstance(tree, Operation):
        yield from _leaves(tree.left)
        yield from _leaves(tree.right)
    elif isinstance(tree, Fraction):
        yield tree


def _with_slots(tree: Equation, names: Mapping[Fraction, str]) -> Equation:
    if isinstance(tree, Operation):
        return Operation(
            tree.operator, _with_slots(tree.left, names), _with_slots(tree.right, names)
        )
    return names.get(tree, tree) if isinstance(tree, Fraction) else tree


def wording(text: str) -> str:
    """The text without differences in numbers, punctuation, case and spaces."""
    text = _NUMERAL.sub(" # ", SLOT.sub(" # ", question_key(text).replace("'", "")))
    return " ".join(re.findall(r"\w+|#", text))
