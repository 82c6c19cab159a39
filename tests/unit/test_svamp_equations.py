"""Equations become steps; whatever is not an equation is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from glore.errors import DataError
from glore.tasks.svamp.equations import parse_infix, parse_prefix, value_of, worked_lines


def test_infix_equations_become_steps() -> None:
    assert worked_lines(parse_infix("( 76.0 - 25.0 )"), {}) == ("76 - 25 = 51", "#### 51")
    assert worked_lines(parse_infix("( ( 5.0 + 3.0 ) * ( 6.0 / 4.0 ) )"), {}) == (
        "5 + 3 = 8",
        "6 / 4 = 1.5",
        "8 * 1.5 = 12",
        "#### 12",
    )
    assert worked_lines(parse_infix("9.0"), {}) == ("#### 9",)


def test_with_letters_the_numbers_are_copied_and_what_is_done_is_said_first() -> None:
    numbers, letters = (
        [Fraction(n) for n in (5, 3, 7)],
        {Fraction(5): "A", Fraction(3): "B", Fraction(7): "C"},
    )
    assert worked_lines(parse_infix("( ( 5.0 + 3.0 ) * 2.0 )"), {}, numbers, letters) == (
        "A 5, B 3, C 7: A + B = 5 + 3 = 8",
        "8 * 2 = 16",
        "#### 16",
    )
    slots = {"number0": Fraction(4), "number1": Fraction(4)}
    lines = worked_lines(
        parse_prefix("- number1 / number0 2.0"),
        slots,
        [Fraction(4)] * 2,
        {"number0": "A", "number1": "B"},
    )
    assert lines == ("A 4, B 4: A / 2 = 4 / 2 = 2", "B - 2 = 4 - 2 = 2", "#### 2")
    slots = {"number0": Fraction(47), "number1": Fraction(8)}
    lines = worked_lines(
        parse_prefix("/ + number0 number1 5"),
        slots,
        tuple(slots.values()),
        {"number0": "A", "number1": "B"},
    )
    assert lines == (
        "A 47, B 8: A + B = 47 + 8 (7 + 8 = 15, 4 + 0 + 1 = 5) = 55",
        "55 / 5 = 11",
        "#### 11",
    )
    assert worked_lines(parse_infix("7.0"), {}, numbers, letters) == (
        "A 5, B 3, C 7: C = 7",
        "#### 7",
    )


def test_prefix_equations_fill_their_slots() -> None:
    tree = parse_prefix("- number0 * number1 2.0")
    slots = {"number0": Fraction(20), "number1": Fraction(3)}
    assert value_of(tree, slots) == 14
    assert worked_lines(tree, slots) == ("3 * 2 = 6", "20 - 6 = 14", "#### 14")
    with pytest.raises(DataError, match="uses 'number1', for which there is no number"):
        value_of(tree, {"number0": Fraction(1)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "( 1",
        "( 1 + 2",
        "1 + 2",
        "( 1 ^ 2 )",
        "( 1 + 2 ) )",
        "__import__('os')",
        "( 1 + x )",
        "( " * 70,
        "( " * 9,
    ],
)
def test_malformed_infix(text: str) -> None:
    with pytest.raises(DataError, match="the equation"):
        parse_infix(text)


@pytest.mark.parametrize("text", ["", "+", "+ 1", "1 2", "+ 1 2 3", "+ 1 x", "- " * 70])
def test_malformed_prefix(text: str) -> None:
    with pytest.raises(DataError, match="the equation"):
        parse_prefix(text)


def test_division_by_zero() -> None:
    with pytest.raises(DataError, match="divides by zero"):
        worked_lines(parse_infix("( 1.0 / ( 2.0 - 2.0 ) )"), {})
