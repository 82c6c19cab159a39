"""Exact comparison of two formulas, inside the process of `latex_worker`: math-verify parses, sympy
computes, nothing is rounded.

math-verify by itself compares to six decimals, so all small numbers are equal, and its verdict
depends on which side is gold. Here

- numbers are compared exactly, at any magnitude. A decimal stands for an irrational number if it
  has at least four significant digits, all correctly rounded; it stands for a rational number only
  if it is equal (`decimals`);
- both directions are compared, and the verdict is `unknown` if they differ;
- an inequality and an interval are compared as sets, regardless of the variable's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
from math_verify import grader
from sympy.core.function import AppliedUndef

from glore.tasks.grading.sympy_numbers import (
    UndecidedError,
    equal_numbers,
    exact,
    read_literal,
    stands_for,
)

__all__ = ["compare"]

_MAX_MATCHED = 50
"""Larger sets are compared in the order of sympy."""
Expression = Any
"""sympy has no types."""


def compare(one: Expression, other: Expression, one_text: str = "", other_text: str = "") -> str:
    """`right`, `wrong` or `unknown`. Symmetric. The texts are needed for the number of digits of a
    decimal.
    """
    doubts = _Doubts()
    one, other = _with_imaginary_unit(one), _with_imaginary_unit(other)
    for text, constant in ((one_text, other), (other_text, one)):
        literal = read_literal(text)
        if literal is not None and _is_constant(constant):
            value = exact(constant)
            if not value.is_Rational:
                return stands_for(literal, value)
    with doubts:
        verdict = _compare(one, other)
    return "unknown" if verdict == "wrong" and doubts.any else verdict


def _compare(one: Expression, other: Expression) -> str:
    if grader.is_equation(one) != grader.is_equation(other):
        return (
            _against_equation(one, other)
            if grader.is_equation(one)
            else _against_equation(other, one)
        )
    if _is_inequality(one) or _is_inequality(other):
        return _inequalities(one, other)
    verdict = _both_directions(one, other)
    # `x < -1, x > 1`: both at once, or one of them.
    return (
        "unknown"
        if verdict == "wrong" and (_lists_inequalities(one) or _lists_inequalities(other))
        else verdict
    )


def _both_directions(one: Expression, other: Expression) -> str:
    verdicts = {
        grader.sympy_expr_eq(*pair, 6, 15, allow_set_relation_comp=True)
        for pair in ((one, other), (other, one))
    }
    return "unknown" if len(verdicts) > 1 else "right" if verdicts.pop() else "wrong"


def _against_equation(equation: Expression, other: Expression) -> str:
    """`x = 3` and `3` are right, and so are `3 + 4 = 7` and `7`; `2x + 1 = 7` and `7` are
    undecided.
    """
    left, right = grader.take_first_relation(equation).lhs, grader.take_last_relation(equation).rhs
    if isinstance(right, sympy.Symbol) and _is_constant(left):
        left, right = right, left
    verdict = _compare(right, other)
    if verdict != "right" or _is_name(left):
        return verdict
    return (
        "right"
        if _is_constant(left) and _is_constant(right) and equal_numbers(left, right)
        else "unknown"
    )


def _is_name(left: Expression) -> bool:
    """`x`, `f(x)` (which the parser may read as a product) or `xy`."""
    if isinstance(left, sympy.Symbol | AppliedUndef):
        return True
    return isinstance(left, sympy.Mul) and all(isinstance(part, sympy.Symbol) for part in left.args)


def _lists_inequalities(value: Expression) -> bool:
    return isinstance(value, sympy.FiniteSet) and any(_is_inequality(part) for part in value.args)


def _is_inequality(value: Expression) -> bool:
    return bool(grader.is_relation(value)) and not grader.is_equation(value)


def _inequalities(one: Expression, other: Expression) -> str:
    sets = [_as_set(value) for value in (one, other)]
    if sets[0] is None or sets[1] is None:
        both = _is_inequality(one) and _is_inequality(other)
        return _both_directions(one, other) if both else "unknown"
    if _both_directions(*sets) == "right" or sets[0] == sets[1]:
        renamed = (
            _is_inequality(one) and _is_inequality(other) and one.free_symbols != other.free_symbols
        )
        return "unknown" if renamed else "right"
    return "wrong" if all(_has_only_numbers(s) for s in sets) else "unknown"


def _as_set(value: Expression) -> Expression | None:
    if isinstance(value, sympy.Set):
        return value
    try:
        found = grader.unwrap_fcs(value).as_set() if _is_inequality(value) else None
    except Exception:
        return None
    return found if isinstance(found, sympy.Set) else None


def _has_only_numbers(value: Expression) -> bool:
    if isinstance(value, sympy.Union):
        return all(_has_only_numbers(part) for part in value.args)
    return (
        isinstance(value, sympy.Interval | sympy.FiniteSet) and not value.free_symbols
    ) or value in (sympy.S.EmptySet, sympy.S.Reals)


def _is_constant(value: Expression) -> bool:
    return (
        isinstance(value, sympy.Expr)
        and not value.free_symbols
        and not value.has(sympy.Set, AppliedUndef)
    )


def _with_imaginary_unit(value: Expression) -> Expression:
    """The expression with the imaginary unit for `i`, which the parser makes a symbol."""
    for symbol in getattr(value, "free_symbols", ()):
        if symbol.name == "i":
            value = value.xreplace({symbol: sympy.I})
    return value


class _Doubts:
    """A context in which exact comparison replaces math-verify's. `any` tells whether a comparison
    was undecided.
    """

    def __init__(self) -> None:
        self.any = False

    def __enter__(self) -> None:
        self._replaced = (
            grader.sympy_numeric_eq,
            grader.sympy_symbolic_eq,
            grader.sympy_deep_compare_set_and_tuple,
        )
        grader.sympy_numeric_eq = self._equal_numbers
        grader.sympy_symbolic_eq = self._equal_terms
        grader.sympy_deep_compare_set_and_tuple = self._equal_collections

    def __exit__(self, *_: object) -> None:
        (
            grader.sympy_numeric_eq,
            grader.sympy_symbolic_eq,
            grader.sympy_deep_compare_set_and_tuple,
        ) = self._replaced

    def _equal_numbers(self, one: Expression, other: Expression, *precision: int) -> bool:
        if isinstance(one, sympy.MatrixBase) and isinstance(other, sympy.MatrixBase):
            pairs = (
                zip(one.flat(), other.flat(), strict=True)
                if one.shape == other.shape
                else ((0, 1),)
            )
            return all(
                grader.sympy_expr_eq(sympy.sympify(a), sympy.sympify(b), *precision)
                for a, b in pairs
            )
        if not _is_constant(one) or not _is_constant(other):
            return False
        try:
            return equal_numbers(one, other)
        except UndecidedError:
            self.any = True
            return False

    def _equal_terms(self, one: Expression, other: Expression) -> bool:
        if (
            not isinstance(one, sympy.Expr)
            or not isinstance(other, sympy.Expr)
            or (_is_constant(one) and _is_constant(other))
        ):
            return False
        difference = sympy.simplify(exact(one) - exact(other))
        if difference.is_zero:
            return True
        try:
            self.any |= all(
                abs(difference.subs(point).evalf(30)) < sympy.Float(10) ** -20
                for point in _points(difference)
            )
        except TypeError:
            self.any = True  # no number at any point: a set, a derivative, an index
        return False

    def _equal_collections(self, gold: Expression, found: Expression, *precision: int) -> bool:
        if (
            not (isinstance(gold, sympy.FiniteSet) and isinstance(found, sympy.FiniteSet))
            or len(gold) > _MAX_MATCHED
        ):
            return bool(self._replaced[2](gold, found, *precision))
        left = list(found.args)
        for value in gold.args:
            same = next(
                (
                    n
                    for n, other in enumerate(left)
                    if grader.sympy_expr_eq(value, other, *precision)
                ),
                None,
            )
            if same is None:
                return False
            del left[same]
        return not left


def _points(difference: Expression) -> Sequence[dict[Expression, Expression]]:
    symbols = sorted(difference.free_symbols, key=str)
    return [
        {s: sympy.Rational(7 * n + 3, 5 + 2 * k) for k, s in enumerate(symbols)} for n in (1, 2, 4)
    ]
