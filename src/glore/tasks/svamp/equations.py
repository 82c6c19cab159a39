"""Equations of SVAMP (`( 76.0 - 25.0 )`) and MAWPS/ASDiv-A (`- number0 number1`): parsed into trees
and written as steps.

They have only numbers, slots and + - * /. An equation is never evaluated as code.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from glore.errors import DataError, shown
from glore.tasks.grading.grade import answer_line
from glore.tasks.grading.numbers import Number, canonical, parse_number
from glore.tasks.svamp.columns import column_work

__all__ = [
    "LETTERS",
    "Equation",
    "Operation",
    "computed",
    "parse_infix",
    "parse_prefix",
    "value_of",
    "worked_lines",
]

LETTERS = string.ascii_uppercase
MAX_TOKENS = 64
_OPERATORS = ("+", "-", "*", "/")


@dataclass(frozen=True, slots=True)
class Operation:
    """`left operator right`."""

    operator: str
    left: Equation
    right: Equation


Equation = Operation | Fraction | str
"""A tree; a string is a slot such as `number0`."""


def worked_lines(
    tree: Equation,
    slots: Mapping[str, Fraction],
    numbers: Sequence[Fraction] = (),
    letter_of: Mapping[str | Fraction, str] | None = None,
) -> tuple[str, ...]:
    """One line per operation, innermost and leftmost first, then the answer line: `5 + 3 = 8`, `8 *
    2 = 16`, `#### 16`.

    With the `numbers` of the question, in order, these are copied first, each operation is stated
    with their letters (`letter_of` a leaf) before it is computed, and longer numbers are computed
    by columns: `A 15, B 8, C 2: A + B = 15 + 8 (5 + 8 = 13, 1 + 0 + 1 = 2) = 23`. So a small model
    only has to copy in order, choose among letters, and know sums of single digits. Raises
    DataError for a division by zero.
    """
    lines: list[str] = []
    letters = letter_of or {}

    def work(node: Equation) -> tuple[Fraction, str]:
        if not isinstance(node, Operation):
            value = value_of(node, slots)
            return value, letters.get(node, _written(value))
        (left, left_name), (right, right_name) = work(node.left), work(node.right)
        in_letters, in_numbers = (
            f"{left_name} {node.operator} {right_name}",
            f"{_written(left)} {node.operator} {_written(right)}",
        )
        line = in_numbers + computed(node.operator, left, right, columns=bool(numbers))
        lines.append(line if in_letters == in_numbers else f"{in_letters} = {line}")
        result = _apply(node.operator, left, right)
        return result, _written(result)

    answer, name = work(tree)
    if numbers:
        given = ", ".join(
            f"{letter} {_written(number)}" for letter, number in zip(LETTERS, numbers, strict=False)
        )
        first, *others = lines or [f"{name} = {_written(answer)}"]
        lines = [f"{given}: {first}", *others]
    return (*lines, answer_line(_written(answer)))


def computed(operator: str, left: Fraction, right: Fraction, columns: bool) -> str:
    """The text after `15 + 8`: ` = 23`, or ` (5 + 8 = 13, 1 + 0 + 1 = 2) = 23`. Raises DataError
    for a division by zero.
    """
    work = column_work(operator, left, right) if columns else ()
    return (
        f" ({', '.join(work)})" if work else ""
    ) + f" = {_written(_apply(operator, left, right))}"


def value_of(tree: Equation, slots: Mapping[str, Fraction]) -> Fraction:
    """The exact value of a tree. Raises DataError for an unknown slot or a division by zero."""
    if isinstance(tree, Operation):
        return _apply(tree.operator, value_of(tree.left, slots), value_of(tree.right, slots))
    if isinstance(tree, str):
        if tree not in slots:
            raise DataError(f"the equation uses {shown(tree)}, for which there is no number")
        return slots[tree]
    return tree


def parse_infix(text: str) -> Equation:
    """Read a fully bracketed equation. Raises DataError."""
    tokens = _tokens(text.replace("(", " ( ").replace(")", " ) "))

    def read(at: int) -> tuple[Equation, int]:
        if tokens[at : at + 1] != ["("]:
            return _leaf(tokens[at] if at < len(tokens) else "", text), at + 1
        left, at = read(at + 1)
        operator = tokens[at] if at < len(tokens) else ""
        if operator == ")":
            return left, at + 1
        right, at = read(at + 1)
        if operator not in _OPERATORS or tokens[at : at + 1] != [")"]:
            raise DataError(
                f"the equation {shown(text)} is not fully bracketed; write it like ( ( 5 + 3 ) * 2 "
                ")"
            )
        return Operation(operator, left, right), at + 1

    tree, end = read(0)
    if end != len(tokens):
        raise DataError(
            f"the equation {shown(text)} goes on after its end; write it like ( ( 5 + 3 ) * 2 )"
        )
    return tree


def parse_prefix(text: str) -> Equation:
    """Read an equation in prefix form, `- + number0 number1 2.0`. Raises DataError."""
    tokens = _tokens(text)
    stack: list[Equation] = []
    for token in reversed(tokens):
        if token not in _OPERATORS:
            stack.append(_leaf(token, text))
        elif len(stack) < 2:
            raise DataError(f"the equation {shown(text)} lacks a number for {token}")
        else:
            stack.append(Operation(token, stack.pop(), stack.pop()))
    if len(stack) != 1:
        raise DataError(f"the equation {shown(text)} has numbers left over")
    return stack[0]


def _tokens(text: str) -> list[str]:
    tokens = text.split(maxsplit=MAX_TOKENS)
    if not 1 <= len(tokens) <= MAX_TOKENS:
        raise DataError(f"the equation {shown(text)} must have 1 to {MAX_TOKENS} parts")
    return tokens


def _leaf(token: str, text: str) -> Equation:
    if token.startswith("number") and token[6:].isdecimal():
        return token
    number = parse_number(token)
    if number is None or number.percent:
        raise DataError(f"the equation {shown(text)} has {shown(token)} where a number should be")
    return number.value


def _apply(operator: str, left: Fraction, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise DataError("the equation divides by zero")
    return left / right


def _written(value: Fraction) -> str:
    return canonical(Number(value))
