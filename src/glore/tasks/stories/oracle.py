"""Whether a step is true: a small parser, bounded and exact. Nothing is evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

from glore.tasks.stories.story import CHECK, CHOICES

__all__ = ["is_true"]

MAX_STEP_CHARS = 200
"""Longer lines are false, so expressions can't be huge or deeply nested."""
TOKEN = re.compile(r"\s*(\d+|[A-Za-z]+|[-+*/()=?])")


def is_true(step: str, values: dict[str, int], asked: Sequence[str], answer: str) -> bool:
    """Whether everything that a line states is true, given `Story.readings`. A merged answer line
    (`… #### 19`) must be true in both halves.

    A line is `label: clause, clause`. In each clause all sides of `=` are equal, `?` is the number
    of the label, and a number after a name is that person's. The value of the last clause is the
    true number of the label, unless the label is `Check` or the clause is an equation for `?`.
    """
    if len(step) > MAX_STEP_CHARS:
        return False
    body, mark, final = step.partition("####")
    if mark:
        if _value(final, {}) != Fraction(answer):
            return False
        if not body.strip():
            return True
    label, colon, rest = body.partition(":")
    checks = label.strip() == CHECK
    target = None if checks else _true_value(label.strip(), values, asked)
    if (
        not colon
        or not any(c.isdigit() for c in rest)
        or (checks and "=" not in rest)
        or (target is None and not checks)
    ):
        return False
    known: dict[str, int | Fraction] = dict(values) if target is None else {**values, "?": target}
    last: Fraction | None = None
    for clause in rest.split(","):
        sides = [_value(side, known) for side in clause.split("=")]
        last = sides[0]
        if last is None or any(side != last for side in sides):
            return False
    return checks or last == target or ("?" in clause and "=" in clause)


def _true_value(label: str, values: dict[str, int], asked: Sequence[str]) -> Fraction | None:
    """The true value of a step's label; none if the label names nothing."""
    if len(asked) == 3 and label == asked[2].capitalize():
        first, second = values[asked[0]], values[asked[1]]
        return Fraction(first + second if asked[2] == "total" else first - second)
    names = label.split(" and ")
    if len(set(names)) != len(names) or not all(name in values for name in names):
        return None
    return Fraction(sum(values[name] for name in names))


def _value(text: str, values: Mapping[str, int | Fraction]) -> Fraction | None:
    """The value of an expression of numbers, known names, + - * / and brackets; none for other
    text.
    """
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None or len(match.group(1)) > 12:
            return None
        tokens.append(match.group(1))
        position = match.end()
    try:
        value, rest = _sum(tokens, values)
    except (ValueError, IndexError, KeyError, ZeroDivisionError, RecursionError):
        return None
    return value if not rest else None


def _sum(tokens: list[str], values: Mapping[str, int | Fraction]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens, values)
    while tokens and tokens[0] in "+-":
        sign, (term, rest) = tokens[0], _product(tokens[1:], values)
        value, tokens = (value + term if sign == "+" else value - term), rest
    return value, tokens


def _product(tokens: list[str], values: Mapping[str, int | Fraction]) -> tuple[Fraction, list[str]]:
    value, tokens = _atom(tokens, values)
    while tokens and tokens[0] in "*/":
        sign, (factor, rest) = tokens[0], _atom(tokens[1:], values)
        value, tokens = (value * factor if sign == "*" else value / factor), rest
    return value, tokens


def _atom(tokens: list[str], values: Mapping[str, int | Fraction]) -> tuple[Fraction, list[str]]:
    head = tokens[0]
    if head == "(":
        value, rest = _sum(tokens[1:], values)
        if rest[0] != ")":
            raise ValueError("bracket")
        return value, rest[1:]
    if head == "-":
        value, rest = _atom(tokens[1:], values)
        return -value, rest
    if head.isdigit():
        return Fraction(int(head)), tokens[1:]
    rest = tokens[1:]
    if rest and rest[0] in CHOICES:
        head, rest = f"{head} {rest[0]}", rest[1:]
    value = Fraction(values[head])
    # `Ana 12` states that Ana's number is 12, and `Ana B 12` also that it is number B of those
    # offered.
    if rest and rest[0].isdigit():
        if int(rest[0]) != value:
            raise ValueError("not that person's number")
        rest = rest[1:]
    return value, rest
