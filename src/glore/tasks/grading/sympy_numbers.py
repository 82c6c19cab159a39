"""Exact comparison of sympy numbers, at any magnitude and without rounding (see
`latex_compare`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

import sympy

__all__ = ["Literal", "UndecidedError", "equal_numbers", "exact", "read_literal", "stands_for"]

MIN_DIGITS = 4
"""Significant digits that a decimal needs to stand for an irrational number."""
_FLOAT_DIGITS = 15
"""Digits that are certain in floating point. A decimal that differs only beyond them is
undecided.
"""
_FIRST_DIGITS, _SURE_DIGITS = 60, 300
"""Decimals computed to distinguish two numbers, at first and at most. Short formulas that agree in
all of them are equal.
"""
_LITERAL = re.compile(
    r"([+-]?)\s*([0-9]*)(\.[0-9]*)?(?:\s*(?:\\times|\\cdot|\*|×|·)\s*10\s*\^\s*(?:\{\s*([+-]?\s*[0-9]{1,3})\s*\}|([0-9])))?"
)
Expression = Any
"""sympy has no types."""


class UndecidedError(Exception):
    """Neither equality nor difference could be shown."""


class Literal(NamedTuple):
    """A decimal as written."""

    value: Fraction
    quantum: Fraction
    """The place of the last digit that counts."""
    n_digits: int
    """Significant ones."""


def read_literal(text: str) -> Literal | None:
    """A decimal, perhaps times a power of ten. Final zeros of a whole number don't count as
    digits.
    """
    match = _LITERAL.fullmatch(text.strip().removesuffix("."))
    if match is None or not re.search("[0-9]", (match[2] or "") + (match[3] or "")):
        return None
    whole, part = match[2], (match[3] or "")[1:]
    exponent = int((match[4] or match[5] or "0").replace(" ", "")) - len(part)
    digits = (whole + part).lstrip("0")
    if match[3] is None:
        exponent += len(digits) - len(digits.rstrip("0"))
        digits = digits.rstrip("0")
    value = int(digits or 0) * Fraction(10) ** exponent
    return Literal(-value if match[1] == "-" else value, Fraction(10) ** exponent, len(digits))


def exact(value: Expression) -> Expression:
    """The expression with fractions for its decimals, evaluated as far as that is exact."""
    floats = {number: sympy.Rational(str(number)) for number in value.atoms(sympy.Float)}
    return value.xreplace(floats).doit()


def equal_numbers(one: Expression, other: Expression) -> bool:
    """Whether two constants are the same number, or one is a decimal that stands for the other.
    Raises UndecidedError.
    """
    values = exact(one), exact(other)
    if any(value.has(sympy.nan, sympy.zoo) for value in values):
        raise UndecidedError
    if all(value.is_Rational for value in values) or any(
        value.is_finite is False for value in values
    ):
        return bool(values[0] == values[1])
    if _same_value(*values):
        return True
    return any(_decimal_stands_for(*pair) for pair in ((one, values[1]), (other, values[0])))


def _decimal_stands_for(decimal: Expression, value: Expression) -> bool:
    """Complex numbers part by part. Raises UndecidedError."""
    if value.is_Rational:
        return False
    if not value.is_real:
        parts = list(
            zip(
                sympy.expand(decimal.doit()).as_real_imag(),
                sympy.expand(value).as_real_imag(),
                strict=True,
            )
        )
        return all(
            exact(part) == of or (of.is_real and _decimal_stands_for(part, of))
            for part, of in parts
        )
    literal = _tree_literal(decimal)
    verdict = "wrong" if literal is None else stands_for(literal, value)
    if verdict == "unknown":
        raise UndecidedError
    return verdict == "right"


def stands_for(literal: Literal, value: Expression) -> str:
    """The verdict on a decimal given for an irrational number."""
    found = _decimals(value, literal.n_digits + _FIRST_DIGITS)
    if not found.is_real or literal.n_digits < MIN_DIGITS:
        return "wrong"
    error = abs(found - _rational(literal.value))
    if error <= _rational(literal.quantum / 2):
        return "right"
    surplus = literal.n_digits - _FLOAT_DIGITS
    return (
        "unknown"
        if surplus > 0 and error <= _rational(literal.quantum * 10**surplus / 2)
        else "wrong"
    )


def _same_value(one: Expression, other: Expression) -> bool:
    """Raises UndecidedError if a difference can't be distinguished from zero."""
    if not _agree(one, other, _FIRST_DIGITS):
        return False
    difference = sympy.expand(one - other)
    if difference.is_Rational:
        return bool(difference == 0)
    return _agree(one, other, _SURE_DIGITS)


def _agree(one: Expression, other: Expression, digits: int) -> bool:
    first, second = _decimals(one, digits), _decimals(other, digits)
    vague = [not number.is_zero and _precision(number) < digits for number in (first, second)]
    if any(vague):
        # A difference of zero has no certain digit at any precision.
        if sympy.simplify(one - other) == 0:
            return True
        if all(vague) or min(abs(first), abs(second)) == 0:
            raise UndecidedError
        return False
    return bool(
        abs(first - second)
        <= sympy.Float(10, digits) ** (10 - digits) * max(abs(first), abs(second))
    )


def _decimals(value: Expression, digits: int) -> Expression:
    found = value.evalf(digits, maxn=4 * digits)
    if (
        not found.is_number
        or found.has(sympy.Symbol)
        or not all(part.is_Number for part in found.as_real_imag())
    ):
        raise UndecidedError
    return found


def _precision(number: Expression) -> int:
    return min((part._prec * 3 // 10 + 1 for part in number.atoms(sympy.Float)), default=10**6)


def _rational(value: Fraction) -> Expression:
    return sympy.Rational(value.numerator, value.denominator)


def _tree_literal(value: Expression) -> Literal | None:
    """A decimal inside a formula. Its final zeros are lost."""
    if isinstance(value, sympy.Integer):
        return read_literal(str(value))
    if isinstance(value, sympy.Float):
        number = Fraction(str(value))
        places = 0
        while (number * 10**places).denominator > 1:
            places += 1
        digits = str(abs(int(number * 10**places)))
        return Literal(number, Fraction(1, 10**places), len(digits))
    if isinstance(value, sympy.Mul):
        powers = [
            p
            for p in value.args
            if isinstance(p, sympy.Pow) and p.base == 10 and isinstance(p.exp, sympy.Integer)
        ]
        numbers = [n for n in value.args if isinstance(n, sympy.Float | sympy.Integer) and n != -1]
        sign = (-1) ** value.args.count(sympy.Integer(-1))
        inner = _tree_literal(numbers[0]) if len(numbers) == 1 else None
        if (
            inner
            and len(powers) + 1 + value.args.count(sympy.Integer(-1)) == len(value.args)
            and all(abs(p.exp) < 1000 for p in powers)
        ):
            factor = Fraction(10) ** sum(int(p.exp) for p in powers)
            return Literal(sign * inner.value * factor, inner.quantum * factor, inner.n_digits)
    return None
