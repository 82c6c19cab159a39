"""Arithmetic by columns, as taught at school. A small model learns it in minutes, while sums of
two-digit numbers in one step take hours.

Each column is a fact about single digits, and the carry is in the text.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import zip_longest

__all__ = ["column_work"]


def column_work(operator: str, left: Fraction, right: Fraction) -> tuple[str, ...]:
    """The columns of a sum, a difference or a product by one digit, the last column first: 47 + 38
    → `7 + 8 = 15`, `4 + 3 + 1 = 8`; 52 - 38 → `12 - 8 = 4`, `5 - 3 - 1 = 1`.

    Empty for two single digits, which need no columns, and for unsupported operations: divisions,
    products of longer numbers, results below 0, fractions.
    """
    if not all(n.denominator == 1 and n >= 0 for n in (left, right)):
        return ()
    first, second = ([int(digit) for digit in reversed(str(n))] for n in (left, right))
    if len(first) == len(second) == 1:
        return ()
    if operator == "+":
        return _added(first, second)
    if operator == "-" and left >= right:
        return _subtracted(first, second)
    if operator == "*" and min(len(first), len(second)) == 1:
        return _multiplied(first, second)
    return ()


def _added(first: list[int], second: list[int]) -> tuple[str, ...]:
    columns, carry = [], 0
    for a, b in zip_longest(first, second, fillvalue=0):
        total = a + b + carry
        columns.append(f"{a} + {b}{f' + {carry}' if carry else ''} = {total}")
        carry = total // 10
    return tuple(columns)


def _subtracted(first: list[int], second: list[int]) -> tuple[str, ...]:
    columns, borrowed = [], 0
    for a, b in zip_longest(first, second, fillvalue=0):
        top = a + 10 if a < b + borrowed else a
        columns.append(f"{top} - {b}{' - 1' if borrowed else ''} = {top - b - borrowed}")
        borrowed = int(top > a)
    return tuple(columns)


def _multiplied(first: list[int], second: list[int]) -> tuple[str, ...]:
    """The columns of the longer number. The single digit stays on its side."""
    columns, carry = [], 0
    for digit in max(first, second, key=len):
        a, b = (digit, second[0]) if len(second) == 1 else (first[0], digit)
        total = a * b + carry
        columns.append(f"{a} * {b}{f' + {carry}' if carry else ''} = {total}")
        carry = total // 10
    return tuple(columns)
