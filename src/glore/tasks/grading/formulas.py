"""Compare two answers: as numbers, by the rules for texts (`text_rules`), or as formulas by the
LaTeX checker (method 8).

`compare_answers` is symmetric except for percentages. An undecided comparison is `unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.latex_markup import (
    MATHS_COMMAND,
    TEXT_COMMAND,
    plain_latex,
    unboxed,
    undollared,
)
from glore.tasks.grading.numbers import Number, canonical, compare_numbers, parse_number
from glore.tasks.grading.text_rules import (
    MAX_LATEX_CHARS,
    TEXT_RULES,
    is_words,
    looks_like_latex,
    read_number,
)
from glore.tasks.grading.units import FUNCTIONS, holds_multiplier

__all__ = ["compare_answers"]

_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_LIST = re.compile(r"\s*[+-]?\d+(?:\.\d+)?(?:\s*,\s*[+-]?\d+(?:\.\d+)?)+\s*\.?")
_DECIMAL = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?")
_DEGREES = re.compile(r"\\circ(?![A-Za-z])|°|\\degree")
"""The parser drops degree signs, so an angle would become a number of radians."""
_POWER_OF_TEN = re.compile(r"10\s*\^")
_ASSIGNED = re.compile(r"\s*([A-Za-z]+)\s*=")
_LEAD = re.compile(
    r"\s*(?:so\s+)?(?:the\s+)?(?:correct\s+|final\s+)?(?:answer|option|choice)"
    r"(?:\s+is)?\s*:?(?![A-Za-z])\s*",
    re.IGNORECASE,
)


def compare_answers(gold: str, found: str, checker: LatexChecker) -> str:
    """The verdict on two answers, `right`, `wrong` or `unknown`. Symmetric except for percentages:
    `25` equals a gold `25%`.
    """
    gold_number, number = read_number(gold), read_number(found)
    if gold_number and number:
        same = compare_numbers(gold_number, number)
        names = {match[1] for text in (gold, found) if (match := _ASSIGNED.match(undollared(text)))}
        return "unknown" if same == "right" and len(names) > 1 else same
    if max(len(gold), len(found)) > MAX_LATEX_CHARS:
        return "unknown"
    one, other = sorted(map(_without_lead, (gold, found)))
    numbers = [n for n in (gold_number, number) if n]
    for rule in TEXT_RULES:
        verdict = rule(one, other, lambda one, other: compare_answers(one, other, checker))
        if verdict:
            return verdict
    return _formulas(one, other, numbers, checker)


def _without_lead(text: str) -> str:
    """`The answer is (C)` as `(C)`."""
    lead = _LEAD.match(text)
    return (text[lead.end() :] if lead else "") or text


def _formulas(one: str, other: str, numbers: Sequence[Number], checker: LatexChecker) -> str:
    """The verdict on two other answers, of which at most one is a plain number."""
    texts = (one, other)
    if numbers and (
        listed := [
            text
            for text in texts
            if read_number(text) is None and _LIST.fullmatch(plain_latex(text))
        ]
    ):
        return _list_against(listed[0], numbers[0])
    if numbers and not all(
        read_number(text) or looks_like_latex(plain_latex(text)) for text in texts
    ):
        # Several numbers, a sum, a range: the checker would read the last number as the answer.
        return "unknown"
    if (
        ("%" in one) != ("%" in other)
        or _scales(one) != _scales(other)
        or any(n.factor != 1 for n in numbers)
    ):
        # For the checker 25 = 25% and 0.25 = 25%, and it drops words that look like units.
        return "unknown"
    if any(
        _THOUSANDS.search(text) and (read_number(text) is None or _has_comma(texts, text))
        for text in texts
    ):
        # `3,500` is a number, but in brackets or in a list it may be two.
        return "unknown"
    verdict = checker.check(*map(_for_checker, texts))
    if verdict == "right" and (_mixes_cases(f"{one} {other}") or _loses_order(one, other)):
        return "unknown"
    if verdict == "wrong" and (
        _has_words(one) or _has_words(other) or _DEGREES.search(one + other)
    ):
        return "unknown"
    return verdict


def _for_checker(text: str) -> str:
    """The spelling for the checker. A decimal keeps its digits, which tell how exact it is."""
    plain = plain_latex(text)
    decimal = _DECIMAL.fullmatch(plain)
    if decimal:
        return rf"{decimal[1]}\times10^{{{decimal[2]}}}" if decimal[2] else plain
    number = read_number(text)
    return (
        canonical(number)
        if number and not number.percent and not _POWER_OF_TEN.search(plain)
        else unboxed(undollared(text))
    )


def _scales(text: str) -> frozenset[str]:
    """Words of scale, and in text inside mathematics also their abbreviations."""
    return holds_multiplier(text) | holds_multiplier(
        " ".join(TEXT_COMMAND.findall(text)), letters=True
    )


def _list_against(listed: str, number: Number) -> str:
    """The verdict on a list and a number: `wrong`, unless the list may be a number with a gap (`3,
    500`) or repeat one number.
    """
    parts = [parse_number(part) for part in plain_latex(listed).split(",")]
    same = number.value.denominator == 1 and sorted(filter(str.isdigit, listed)) == sorted(
        filter(str.isdigit, canonical(number))
    )
    return "unknown" if same or len({part.value for part in parts if part}) < 2 else "wrong"


def _has_comma(texts: Sequence[str], but: str) -> bool:
    return any("," in text for text in texts if text is not but)


def _has_words(text: str) -> bool:
    """Whether there is a word in the mathematics, whose letters the checker reads as symbols. Three
    letters may be a product.
    """
    words = re.findall(r"[^\W\d_]+", MATHS_COMMAND.sub(" ", TEXT_COMMAND.sub(" ", text)))
    return is_words(text) or any(len(word) > 3 or word in FUNCTIONS for word in words)


def _mixes_cases(text: str) -> bool:
    """Whether a letter is there in both cases, as in `R - r`: the checker makes one symbol of the
    two.
    """
    letters = set(MATHS_COMMAND.sub("", TEXT_COMMAND.sub("", text)))
    return any(letter.isupper() and letter.lower() in letters for letter in letters)


def _loses_order(one: str, other: str) -> bool:
    """Whether one answer assigns its values (`(3, 4)`; `x = 3, y = 4`) and the other lists them
    (`4, 3`), which the checker doesn't distinguish.
    """
    return "," in one and "," in other and _is_list(one) != _is_list(other)


def _is_list(text: str) -> bool:
    return (
        not re.search(r"[(\[][^()\[\]]*,", text)
        and len(set(re.findall(r"([A-Za-z])\s*=", text))) < 2
    )
