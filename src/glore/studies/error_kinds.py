"""What is wrong with a false step, as far as its text alone can tell.

`equation`: an equation that it writes does not hold. `answer`: it is the answer line. `content`:
its equations hold, so it is wrong about the question. Works for any task: of every side of `=`, the
arithmetic at its end (or its beginning) is read, words are left out, and nothing is evaluated as
code.
"""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

from glore.tasks.grading.answers import is_answer_line

__all__ = ["ANSWER", "CONTENT", "EQUATION", "KINDS", "error_kind", "false_equation"]

EQUATION, CONTENT, ANSWER = "equation", "content", "answer"
KINDS = (EQUATION, CONTENT, ANSWER)
MAX_CHARS = 400
"""Of longer steps, the beginning is read."""
MAX_DIGITS = 15

_TOKEN = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+|[-+*/×÷()]")
_FORMULA = re.compile(r"[-+*/×÷().,\d\s$]+")
_SPOKEN = {"×": "*", "÷": "/"}


def error_kind(step: str) -> str:
    """The kind of a step that is known to be false."""
    if false_equation(step):
        return EQUATION
    return ANSWER if is_answer_line(step) else CONTENT


def false_equation(step: str) -> bool:
    """Whether the text has an equation between two formulas of numbers that does not hold. One with
    an unknown (`? + 4 = 9`) or without any formula tells nothing.
    """
    for clause in re.split(r"[;:]|,(?!\d{3}\b)|<<|>>", step[:MAX_CHARS]):
        sides = clause.split("=")
        values = [_side(s, i, len(sides)) for i, s in enumerate(sides)]
        pairs = itertools.pairwise(values)
        if any(a is not None and b is not None and a != b for a, b in pairs):
            return True
    return False


def _side(text: str, position: int, n: int) -> Fraction | None:
    """The value of the formula next to a `=`: of the first side, its end; of the last, its
    beginning; of one in the middle, the whole. None: there is no formula, or an unknown.
    """
    if "?" in text:
        return None
    pieces = [p for p in _FORMULA.findall(text) if any(c.isdigit() for c in p)]
    if not pieces or (0 < position < n - 1 and len(pieces) > 1):
        return None
    return _value(pieces[-1] if position == 0 else pieces[0])


def _value(formula: str) -> Fraction | None:
    tokens = [_SPOKEN.get(t, t.replace(",", "")) for t in _TOKEN.findall(formula)]
    if not tokens or any(len(t) > MAX_DIGITS for t in tokens):
        return None
    try:
        value, rest = _sum(tokens)
    except (ValueError, IndexError, ZeroDivisionError, RecursionError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens)
    while tokens and tokens[0] in "+-":
        sign, (term, rest) = tokens[0], _product(tokens[1:])
        value, tokens = (value + term if sign == "+" else value - term), rest
    return value, tokens


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, tokens = _atom(tokens)
    while tokens and tokens[0] in "*/":
        sign, (factor, rest) = tokens[0], _atom(tokens[1:])
        value, tokens = (value * factor if sign == "*" else value / factor), rest
    return value, tokens


def _atom(tokens: list[str]) -> tuple[Fraction, list[str]]:
    head, rest = tokens[0], tokens[1:]
    if head == "(":
        value, rest = _sum(rest)
        if rest[0] != ")":
            raise ValueError("bracket")
        return value, rest[1:]
    if head == "-":
        value, rest = _atom(rest)
        return -value, rest
    return Fraction(head), rest
