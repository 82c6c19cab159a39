"""Read numbers as people write them, strictly and exactly (method 8, grading).

Sizes are bounded before conversion, so every text takes microseconds; nothing is evaluated. A text
that is not clearly *one* number, such as `18 + 4`, `3 hours 20 minutes`, `1,2,3` or `5M`, is not
read at all rather than in part. `5 million` is 5000000, and whether `5` means the same is undecided
(`compare_numbers`).
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from fractions import Fraction

from glore.tasks.grading.units import read_tail

__all__ = ["MAX_DIGITS", "Number", "canonical", "compare_numbers", "parse_number", "same_number"]

MAX_NUMBER_CHARS = 300
"""A longer text is no number."""
MAX_DIGITS = 100
"""Numbers with more digits, or with an exponent beyond ± this, are not read."""
_MAX_PLACES = 99
_MAX_SIZE = 10**100
"""Numbers whose numerator or denominator reaches this are not read, so that every number has a
spelling that can be read.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """An exact number. `25%` is (25, percent), not (1/4)."""

    value: Fraction
    percent: bool = False
    factor: Fraction = dataclasses.field(default=Fraction(1), compare=False)
    """The factor of words of scale after the number, 1000000 in `5 million`."""


def _character_table() -> dict[int, str]:
    table = {ord("０") + d: str(d) for d in range(10)}
    table |= dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufe63\uff0d"), "-")
    table |= dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " ")
    table |= {
        ord("＋"): "+",
        ord("．"): ".",
        ord("，"): ",",
        ord("％"): "%",
        ord("＄"): "$",
        ord("／"): "/",
        0x2044: "/",
    }
    for mark in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞":
        table[ord(mark)] = " " + unicodedata.normalize("NFKC", mark).replace("\u2044", "/")
    return table


# Not NFKC: it would turn 5² into 52 and 1½ into 11/2.
_CHARACTERS = _character_table()
_ANNOTATION = re.compile(r"<<[^<>]*>>")
# At the ends only: within a number they could hide a gap (`1` and `1/2` for `11/2`).
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_LEAD = re.compile(
    r"(?:(?:(?:the )?(?:final )?answer(?: is)?\s*:?|[A-Za-z]{1,20}\s*=|=)\s*)?"
    r"(?:(?:[~≈]|(?:about|approximately)\s)\s*)?",
    re.IGNORECASE,
)
_CURRENCY = r"(?:\\?\$|€|£|¥|₹|US\$|USD|EUR|GBP|INR|Rs\.?)"
_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"


def _ten(name: str) -> str:
    """Pattern of a power of ten: `10^3`, `10^{-9}`, `10⁻⁹`, `10**3`. The exponent is in one of
    three groups.
    """
    groups = rf"\{{\s*(?P<{name}>[+-]?\s*[0-9]+)\s*\}}|\(?(?P<{name}2>[+-]?[0-9]+)\)?"
    return rf"10\s*(?:(?:\^|\*\*)\s*(?:{groups})|(?P<{name}3>[⁺⁻]?[⁰¹²³⁴-⁹]+))(?![0-9.,]*[0-9])"


_TIMES = r"(?:\s*(?:×|\\times(?![a-z])|\\cdot(?![a-z])|·|⋅|∙|\*)\s*|\s+[xX]\s+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>{_CURRENCY}\s*(?P<sign2>[+-]?)\s*)?"
    rf"(?:{_ten('alone')}"
    rf"|(?:(?P<mixed>{_WHOLE})\s+)?(?P<over>{_WHOLE})\s*/\s*(?P<under>{_WHOLE})(?![0-9.,]*[0-9])"
    rf"|(?P<whole>{_WHOLE})?(?P<part>\.[0-9]*)?(?:{_TIMES}{_ten('power')}|[eE](?P<exponent>[+-]?[0-9]+))?)"
)
_RAISED = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_PERCENT = re.compile(r"\s*(?:\\?%|per ?cent(?:age)?\b|pct\b)", re.IGNORECASE)


def parse_number(text: str, algebra: bool = False) -> Number | None:
    """The one number that `text` states, perhaps followed by units or words; none if it states
    none, several, or a sum.

    Reads `1,234`, `$12.50`, `-$5`, `−5`, `72.`, `.5`, `1/2`, `1 1/2`, `½`, `1e3`, `3 × 10^-9`,
    `25%`, `18 apples`, `x = 5`, `5 million`, `$5M`, full-width digits, `~20`, `about 20`, `72…`.
    `algebra`: letters may be variables, so `5t` is no number.
    """
    if len(text) > MAX_NUMBER_CHARS:
        return None
    text = _ANNOTATION.sub("", text.translate(_CHARACTERS)).strip().strip(_INVISIBLE).strip()
    if text.startswith("**") and text.endswith("**"):
        text = text.strip("*").strip()
    lead = _LEAD.match(text)
    match = _NUMBER.match(text, lead.end() if lead else 0)
    if match is None:
        return None
    value = _value(match)
    if value is None:
        return None
    percent = _PERCENT.match(text, match.end())
    tail = text[percent.end() if percent else match.end() :]
    if match["part"] is None:
        tail = tail.removesuffix("…")  # after decimals it would mean more of them
    elif tail.startswith(".."):
        return None
    factor = read_tail(tail, money=match["money"] is not None, algebra=algebra)
    if factor is None or (percent and factor != 1):
        return None
    value *= factor
    return Number(value, percent is not None, factor) if _has_spelling(value) else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The matched number; none if it is empty, too long or divided by zero."""
    part = match.groupdict()
    if part["sign"] and part["sign2"]:
        return None
    digits = [
        (part[name] or "").replace(",", "") for name in ("mixed", "over", "under", "whole", "part")
    ]
    raised = next((part[name] for name in ("exponent", *_POWER_GROUPS) if part[name]), "")
    exponent = raised.translate(_RAISED).replace(" ", "")
    if (
        max(map(len, digits)) > MAX_DIGITS
        or len(exponent) > 4
        or abs(int(exponent or 0)) > MAX_DIGITS
    ):
        return None
    mixed, over, under, whole, decimals = digits
    if over:
        bottom = int(under)
        if bottom == 0 or (mixed and int(over) >= bottom):
            return None
        value = Fraction(int(over), bottom) + int(mixed or 0)
    elif any(part[name] for name in _ALONE_GROUPS):
        value = Fraction(10) ** int(exponent)
    else:
        decimals = decimals[1:]
        if not whole + decimals:
            return None
        value = Fraction(int(whole + decimals), 10 ** len(decimals)) * Fraction(10) ** int(
            exponent or 0
        )
    if not _has_spelling(value):
        return None
    return -value if "-" in (part["sign"], part["sign2"]) else value


_ALONE_GROUPS = ("alone", "alone2", "alone3")
_POWER_GROUPS = (*_ALONE_GROUPS, "power", "power2", "power3")


def _has_spelling(value: Fraction) -> bool:
    return max(abs(value.numerator), value.denominator) < _MAX_SIZE


def canonical(number: Number) -> str:
    """The one spelling of a number: `18`, `-0.5`; `1/3` in lowest terms if the decimals don't end.
    `%` is kept.
    """
    value = number.value
    top, bottom = abs(value.numerator), value.denominator
    places = _decimal_places(bottom)
    if places is None:
        text = f"{top}/{bottom}"
    else:
        digits = str(top * 10**places // bottom).rjust(places + 1, "0")
        text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return ("-" if value < 0 else "") + text + ("%" if number.percent else "")


def _decimal_places(bottom: int) -> int | None:
    """Decimals needed for a fraction in lowest terms with this denominator; none if they never end
    or are too many.
    """
    powers = []
    for prime in (2, 5):
        count = 0
        while bottom % prime == 0:
            bottom //= prime
            count += 1
        powers.append(count)
    return max(powers) if bottom == 1 and max(powers) <= _MAX_PLACES else None


def same_number(gold: Number, found: Number) -> bool:
    """Whether two numbers are exactly equal. A percentage equals only itself, unless the *gold* is
    one: a gold 25% equals 25%, 25 and 0.25.
    """
    if gold.percent == found.percent:
        return gold.value == found.value
    return gold.percent and found.value in (gold.value, gold.value / 100)


def compare_numbers(gold: Number, found: Number) -> str:
    """`right` or `wrong`; `unknown` for `5 million` and `5`, since the question may ask for
    millions.
    """
    if same_number(gold, found):
        return "right"
    pairs = ((gold, _bare(found)), (_bare(gold), found))
    return "unknown" if any(same_number(*pair) for pair in pairs) else "wrong"


def _bare(number: Number) -> Number:
    return Number(number.value / number.factor, number.percent)
