"""Equations become steps; whatever is not an equation is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest

from glore.errors import DataError
from glore.tasks.equations import equation_steps, parse_infix, parse_prefix, value_of, worked_lines


def test_infix_equations_become_steps() -> None:
    assert equation_steps("( 76.0 - 25.0 )") == ("76 - 25 = 51", "#### 51")
    assert equation_steps("( ( 5.0 + 3.0 ) * ( 6.0 / 4.0 ) )") == ("5 + 3 = 8", "6 / 4 = 1.5", "8 * 1.5 = 12", "#### 12")
    assert equation_steps("9.0") == ("#### 9",)


def test_prefix_equations_fill_their_slots() -> None:
    tree = parse_prefix("- number0 * number1 2.0")
    slots = {"number0": Fraction(20), "number1": Fraction(3)}
    assert value_of(tree, slots) == 14
    assert worked_lines(tree, slots) == ("3 * 2 = 6", "20 - 6 = 14", "#### 14")
    with pytest.raises(DataError, match="uses 'number1', for which there is no number"):
        value_of(tree, {"number0": Fraction(1)})


@pytest.mark.parametrize(
    "text", ["", "( 1", "( 1 + 2", "1 + 2", "( 1 ^ 2 )", "( 1 + 2 ) )", "__import__('os')", "( 1 + x )", "( " * 70, "( " * 9]
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
        equation_steps("( 1.0 / ( 2.0 - 2.0 ) )")
