"""Numbers as people write them, read strictly and exactly (method 8, grading).

Sizes are bounded before anything is converted, so no text can cost more than microseconds; nothing is evaluated. What
is not plainly *one* number, such as `18 + 4`, `3 hours 20 minutes`, `1,2,3` or `5 million`, is not read at all rather
than read by halves.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

__all__ = ["MAX_DIGITS", "Number", "canonical", "parse_number", "same_number"]

MAX_NUMBER_CHARS = 300
"""A longer text is not read as a number."""
MAX_DIGITS = 100
"""A number with more digits, or an exponent beyond ± this, is not read."""
_MAX_PLACES = 60
_MAX_SIZE = 10**_MAX_PLACES
"""Nor is one whose numerator or denominator reaches this, so that every number that is read has a spelling that can be read."""


class Number(NamedTuple):
    """An exact number. `25%` is (25, percent), not (1/4)."""

    value: Fraction
    percent: bool = False


def _character_table() -> dict[int, str]:
    table = {ord("０") + d: str(d) for d in range(10)}
    table |= dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\u2014\u2015\ufe63\uff0d"), "-")
    table |= dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " ")
    table |= {ord("＋"): "+", ord("．"): ".", ord("，"): ",", ord("％"): "%", ord("＄"): "$", ord("／"): "/", 0x2044: "/"}
    for mark in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞":
        table[ord(mark)] = " " + unicodedata.normalize("NFKC", mark).replace("\u2044", "/")
    return table


# Not NFKC: it would turn 5² into 52 and 1½ into 11/2.
_CHARACTERS = _character_table()
_ANNOTATION = re.compile(r"<<[^<>]*>>")
# At the ends only: within a number they could hide a gap (`1` and `1/2` for `11/2`).
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_LEAD = re.compile(
    r"(?:(?:(?:the )?(?:final )?answer(?: is)?\s*:?|[A-Za-z]{1,20}\s*=|=)\s*)?(?:(?:[~≈]|(?:about|approximately)\s)\s*)?", re.IGNORECASE
)
_CURRENCY = r"(?:\\?\$|€|£|¥|₹|US\$|USD|EUR|GBP|Rs\.?)"
_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:{_CURRENCY}\s*(?P<sign2>[+-]?)\s*)?"
    rf"(?:(?:(?P<mixed>{_WHOLE})\s+)?(?P<over>{_WHOLE})\s*/\s*(?P<under>{_WHOLE})(?![0-9.,]*[0-9])"
    rf"|(?P<whole>{_WHOLE})?(?P<part>\.[0-9]*)?(?:[eE](?P<exponent>[+-]?[0-9]+))?)"
)
_PERCENT = re.compile(r"\s*(?:\\?%|per ?cent(?:age)?\b)", re.IGNORECASE)
_TAIL = re.compile(r"(?:[A-Za-z]+(?:\^?[23]|[²³])(?![0-9])|[A-Za-z .,;:!?'\"()/°$€£¢¥-])*")
_WORD = re.compile(r"[A-Za-z]+")
_NOT_UNITS = frozenset(
    word
    for words in (
        "hundred thousand million billion trillion hundreds thousands millions billions trillions bn k dozen dozens score",
        "half third quarter fourth fifth tenth hundredth halves thirds quarters fourths fifths tenths hundredths",
        "plus minus point pi sqrt e i j n x y z nan inf infinity",
    )
    for word in words.split()
)


def parse_number(text: str) -> Number | None:
    """The one number that `text` states, with units or words after it; none where it states none, several, or a sum.

    Reads `1,234`, `$12.50`, `-$5`, `−5`, `72.`, `.5`, `1/2`, `1 1/2`, `½`, `1e3`, `25%`, `18 apples`, `x = 5`, full-width digits,
    `~20`, `about 20`, `72…`.
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
    return Number(value, percent is not None) if _is_unit(tail) else None


def _value(match: re.Match[str]) -> Fraction | None:
    """The matched number, none where it is empty, too long or divided by zero."""
    part = match.groupdict()
    if part["sign"] and part["sign2"]:
        return None
    digits = [(part[name] or "").replace(",", "") for name in ("mixed", "over", "under", "whole", "part", "exponent")]
    if max(map(len, digits)) > MAX_DIGITS:
        return None
    mixed, over, under, whole, decimals, exponent = digits
    if over:
        bottom = int(under)
        if bottom == 0 or (mixed and int(over) >= bottom):
            return None
        value = Fraction(int(over), bottom) + int(mixed or 0)
    else:
        decimals = decimals[1:]
        if not whole + decimals or len(exponent) > 4 or abs(int(exponent or 0)) > MAX_DIGITS:
            return None
        value = Fraction(int(whole + decimals), 10 ** len(decimals)) * Fraction(10) ** int(exponent or 0)
    if max(value.numerator, value.denominator) >= _MAX_SIZE:
        return None
    return -value if "-" in (part["sign"], part["sign2"]) else value


def _is_unit(tail: str) -> bool:
    """Can this follow a number without changing it? Words and units can; digits, operators, `million` or `half` can't."""
    if not _TAIL.fullmatch(tail) or re.match(r"!|:\S|\s*-\s*$", tail):
        return False
    return not any(word.lower() in _NOT_UNITS for word in _WORD.findall(tail))


def canonical(number: Number) -> str:
    """One spelling per number: `18`, `-0.5`, else `1/3` in lowest terms where the decimals don't end; `%` is kept."""
    value, percent = number
    top, bottom = abs(value.numerator), value.denominator
    places = _decimal_places(bottom)
    if places is None:
        text = f"{top}/{bottom}"
    else:
        digits = str(top * 10**places // bottom).rjust(places + 1, "0")
        text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return ("-" if value < 0 else "") + text + ("%" if percent else "")


def _decimal_places(bottom: int) -> int | None:
    """Decimals needed for a fraction in lowest terms with this denominator, none where they never end or are too many."""
    powers = []
    for prime in (2, 5):
        count = 0
        while bottom % prime == 0:
            bottom //= prime
            count += 1
        powers.append(count)
    return max(powers) if bottom == 1 and max(powers) <= _MAX_PLACES else None


def same_number(gold: Number, found: Number) -> bool:
    """Exact equality. A percentage equals only itself, unless the *gold* is one: then 25%, 25 and 0.25 all say it."""
    if gold.percent == found.percent:
        return gold.value == found.value
    return gold.percent and found.value in (gold.value, gold.value / 100)
