"""Numerals that name their base: `110_2`, `(1A)_{16}`, `110_{\\text{two}}`, `110 base 2`, `0b110`
(method 8, grading).

math-verify drops the base. The same digits in another base are another number. The same number in
another base is another numeral, and a question may ask for one of them, so such a pair is
undecided.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

__all__ = ["Numeral", "compare_numerals", "names_a_base", "parse_numeral"]

MAX_NUMERAL_CHARS = 300
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAMES = {
    name: base
    for base, names in {
        2: "two binary bin",
        3: "three ternary",
        4: "four quaternary",
        5: "five",
        6: "six",
        7: "seven",
        8: "eight octal oct",
        9: "nine",
        10: "ten decimal dec",
        11: "eleven",
        12: "twelve duodecimal",
        16: "sixteen hexadecimal hex",
    }.items()
    for name in names.split()
}
_PREFIXES = {"0b": 2, "0o": 8, "0x": 16}
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_MARKUP = re.compile(
    r"\\(?:text|textbf|mathrm|mathit|mathbf|mbox|textrm|left|right)(?![A-Za-z])"
    r"|\\[,!; ]|\{,\}|[$\s,()~]|\\[()]"
)
_BODY = r"(?P<sign>[+-]?)(?P<whole>[0-9A-Za-z]*)(?:\.(?P<part>[0-9A-Za-z]*))?"
_NUMERAL = re.compile(rf"{_BODY}_(?:base)?(?P<base>[0-9]{{1,2}}|[a-z]{{2,12}})")
_NAMED = re.compile(
    rf"{_BODY.replace(']*)', ']*?)')}(?:in)?base_?(?P<base>[0-9]{{1,2}}|[a-z]{{2,12}})"
)
_INDEXED = re.compile(
    r"[0-9]\s*[})\]]*\s*(?:_|[₀-₉])|[0-9][0-9A-Fa-f]*\s*_\s*\{?\s*(?:1[1-9]|[23][0-9])"
    r"|(?-i:(?<![A-Za-z\\])[A-F]+)\s*_\s*\{?\s*16|(?<![A-Za-z])base(?![A-Za-z])|\b0[box][0-9A-Fa-f]",
    re.IGNORECASE,
)


class Numeral(NamedTuple):
    """A number, and the base in which it is written."""

    value: Fraction
    base: int


def names_a_base(text: str) -> bool:
    """Whether a number in this text may be followed by its base."""
    return _INDEXED.search(text) is not None


def parse_numeral(text: str) -> Numeral | None:
    """The numeral in a text, base 2 to 36; none for plain numbers, for a digit too large for its
    base, and for any other text.
    """
    if len(text) > MAX_NUMERAL_CHARS:
        return None
    bare = re.sub(
        r"([₀-₉]+)", lambda m: f"_{m[1].translate(_SUBSCRIPTS)}", text.strip().removesuffix(".")
    )
    bare = re.sub(r"[{}]", "", _MARKUP.sub("", bare)).replace("\u2212", "-")
    prefix = _PREFIXES.get(bare[:2].lower())
    if prefix is not None:
        return _numeral("", bare[2:], "", prefix)
    match = _NUMERAL.fullmatch(bare) or _NAMED.fullmatch(bare)
    if match is None:
        return None
    name = match["base"].removeprefix("base")
    base = int(name) if name.isdigit() else _NAMES.get(name, 0)
    return _numeral(match["sign"], match["whole"], match["part"] or "", base)


def _numeral(sign: str, whole: str, part: str, base: int) -> Numeral | None:
    digits = (whole + part).lower()
    # Letters alone are a name with an index, such as `A_{12}` or `x_{16}`.
    if (
        not 2 <= base <= 36
        or not any(c.isdigit() for c in digits)
        or any(c not in _DIGITS[:base] for c in digits)
    ):
        return None
    value = Fraction(int(digits, base), base ** len(part))
    return Numeral(-value if sign == "-" else value, base)


def compare_numerals(one: Numeral, other: Numeral) -> str:
    """`right` for the same numeral, `wrong` for another number, `unknown` for the same number in
    another base.
    """
    if one.value != other.value:
        return "wrong"
    return "right" if one.base == other.base else "unknown"
