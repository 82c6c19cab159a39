"""Column work: every column true, and the whole result in it."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.tasks.svamp.columns import column_work

COLUMN = re.compile(r"(\d+) ([-+*]) (\d)(?: ([-+]) (\d))? = (\d+)")


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ("47 + 38", ("7 + 8 = 15", "4 + 3 + 1 = 8")),
        ("8 + 160", ("8 + 0 = 8", "0 + 6 = 6", "0 + 1 = 1")),
        ("52 - 38", ("12 - 8 = 4", "5 - 3 - 1 = 1")),
        ("100 - 1", ("10 - 1 = 9", "10 - 0 - 1 = 9", "1 - 0 - 1 = 0")),
        ("47 * 8", ("7 * 8 = 56", "4 * 8 + 5 = 37")),
        ("8 * 47", ("8 * 7 = 56", "8 * 4 + 5 = 37")),
        ("4 + 5", ()),
        ("38 - 52", ()),
        ("12 * 12", ()),
        ("84 / 4", ()),
        ("-12 + 5", ()),
        ("1/2 + 30", ()),
    ],
)
def test_examples(asked: str, columns: tuple[str, ...]) -> None:
    left, operator, right = asked.split()
    assert column_work(operator, Fraction(left), Fraction(right)) == columns


@given(st.sampled_from("+-*"), st.integers(0, 10**6), st.integers(0, 10**6), st.booleans())
def test_columns_are_true_and_make_up_the_result(
    operator: str, a: int, b: int, turned: bool
) -> None:
    if operator == "*":
        b %= 10
        a, b = (b, a) if turned else (a, b)
    elif operator == "-":
        a, b = max(a, b), min(a, b)
    columns = column_work(operator, Fraction(a), Fraction(b))
    assert bool(columns) == (max(a, b) >= 10)
    results = []
    for column in columns:
        match = COLUMN.fullmatch(column)
        assert match, column
        x, sign, y, carry_sign, carry, result = match.groups()
        value = {"+": int(x) + int(y), "-": int(x) - int(y), "*": int(x) * int(y)}[sign]
        assert value + (int(f"{carry_sign}{carry}") if carry else 0) == int(result)
        assert sign == operator
        assert value >= 0
        results.append(result)
    if columns:
        whole = results[-1] + "".join(result[-1] for result in reversed(results[:-1]))
        assert int(whole) == {"+": a + b, "-": a - b, "*": a * b}[operator]
