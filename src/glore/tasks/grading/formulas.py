"""Answers that are not two plain numbers: words, choices, numerals of a base, ratios, and formulas
for the checker (method 8).

`compare_answers` is symmetric: which of the two is gold doesn't matter. What can't be decided is
`unknown`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from glore.tasks.grading.dressing import (
    MATHS_COMMAND,
    TEXT_COMMAND,
    compact,
    plain_latex,
    unboxed,
    undollared,
)
from glore.tasks.grading.latex import LatexChecker
from glore.tasks.grading.numbers import Number, canonical, compare_numbers, parse_number
from glore.tasks.grading.numerals import Numeral, compare_numerals, names_a_base, parse_numeral
from glore.tasks.grading.units import FUNCTIONS, holds_multiplier, spells_number

__all__ = ["MAX_LATEX_CHARS", "compare_answers", "looks_like_latex", "read_number"]

MAX_LATEX_CHARS = 1_000
"""A longer answer is not compared as LaTeX: verdict `unknown`."""
_LOOKS_LIKE_LATEX = re.compile(r"\\[A-Za-z{}|]|[\^_{}]|^\$.*\$$")
_WORDS = re.compile(r"(?:[^\W\d_]|[\s.,;:!?'’()-])*")
_THOUSANDS = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)[\s:.~]*(.*)|([A-J])\s*[).:]\s*(.*)", re.DOTALL)
_RATIO = re.compile(r"\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+")
_LIST = re.compile(r"\s*[+-]?\d+(?:\.\d+)?(?:\s*,\s*[+-]?\d+(?:\.\d+)?)+\s*\.?")
_DECIMAL = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?")
_DEGREES = re.compile(r"\\circ(?![A-Za-z])|°|\\degree")
"""The parser drops them, so that an angle is taken for a number of radians."""
_POWER_OF_TEN = re.compile(r"10\s*\^")
_ASSIGNED = re.compile(r"\s*([A-Za-z]+)\s*=")
_SAID = re.compile(
    r"\s*(?:so\s+)?(?:the\s+)?(?:correct\s+|final\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?(?![A-Za-z])\s*",
    re.IGNORECASE,
)
_PHI = re.compile(r"\s*(?:\\(?:var)?phi|[φϕΦ])\s*", re.IGNORECASE)
_EMPTY_SET = re.compile(
    r"\\(?:emptyset|varnothing|O)(?![A-Za-z])|[∅Ø]|\\?\{\s*\\?\}|(?:the\s+)?empty\s+set",
    re.IGNORECASE,
)


def looks_like_latex(text: str) -> bool:
    """Does it hold commands, indices, powers or braces?"""
    return _LOOKS_LIKE_LATEX.search(text) is not None


def read_number(text: str) -> Number | None:
    """The number that a plain or dressed text states, where letters may be variables."""
    number = parse_number(text, algebra=True)
    return (
        parse_number(plain_latex(text), algebra=True)
        if number is None and len(text) <= MAX_LATEX_CHARS
        else number
    )


def compare_answers(gold: str, found: str, checker: LatexChecker) -> str:
    """Verdict on two answers, `right`, `wrong` or `unknown`. Symmetric but for percentages: `25`
    says a gold `25%`.
    """
    gold_number, number = read_number(gold), read_number(found)
    if gold_number and number:
        same = compare_numbers(gold_number, number)
        names = {match[1] for text in (gold, found) if (match := _ASSIGNED.match(undollared(text)))}
        return "unknown" if same == "right" and len(names) > 1 else same
    if max(len(gold), len(found)) > MAX_LATEX_CHARS:
        return "unknown"
    one, other = sorted(map(_without_saying, (gold, found)))
    numbers = [n for n in (gold_number, number) if n]
    for rule in (_same_text, _numerals, _choices, _ratios, _words):
        verdict = rule(one, other, checker)
        if verdict:
            return verdict
    return _formulas(one, other, numbers, checker)


def _without_saying(text: str) -> str:
    """`The answer is (C)` as `(C)`."""
    said = _SAID.match(text)
    return (text[said.end() :] if said else "") or text


def _same_text(one: str, other: str, checker: LatexChecker) -> str | None:
    """Equal as text. `5, 100` are two numbers, `5,100` is one."""
    empty = [_empty_set(text) for text in (one, other)]
    if all(empty):
        return "right"
    if any(empty) and any(_PHI.fullmatch(undollared(text)) for text in (one, other)):
        return "unknown"  # the letter is often written for the sign
    if compact(one) != compact(other):
        return None
    return "unknown" if (read_number(one) is None) != (read_number(other) is None) else "right"


def _empty_set(text: str) -> bool:
    return _EMPTY_SET.fullmatch(plain_latex(text).strip().removesuffix(".")) is not None


def _numerals(one: str, other: str, checker: LatexChecker) -> str | None:
    """Where one names its base; a number that names none stands in base ten."""
    if not names_a_base(one) and not names_a_base(other):
        return None
    numeral, other_numeral = (parse_numeral(text) or _in_base_ten(text) for text in (one, other))
    return compare_numerals(numeral, other_numeral) if numeral and other_numeral else "unknown"


def _in_base_ten(text: str) -> Numeral | None:
    number = read_number(text)
    return (
        Numeral(number.value, 10) if number and not number.percent and number.factor == 1 else None
    )


def _choices(one: str, other: str, checker: LatexChecker) -> str | None:
    """`(C) 12` against `C`, `12` or another choice: right where letter or value is the same and
    nothing speaks against it.
    """
    pair = [_choice(text) for text in (one, other)]
    if not any(letter and value for letter, value in pair):
        return None
    (letter, value), (other_letter, other_value) = pair
    verdicts = set()
    if letter and other_letter:
        verdicts.add("right" if letter == other_letter else "wrong")
    if value and other_value:
        verdicts.add(compare_answers(value, other_value, checker))
    return verdicts.pop() if len(verdicts) == 1 else "unknown"


def _choice(text: str) -> tuple[str, str]:
    """Letter and value of an answer to a multiple choice, each empty where it isn't given."""
    plain = plain_latex(text).strip()
    if re.fullmatch(r"\(?[A-J]\)?\.?", plain):
        return plain.strip("().").upper(), ""
    match = _CHOICE.fullmatch(plain)
    value = (match[2] or match[4] or "").strip() if match else ""
    return ((match[1] or match[3]).upper(), value) if match and value else ("", text)


def _ratios(one: str, other: str, checker: LatexChecker) -> str | None:
    """`1:9`. Another spelling of the same ratio may be what was not asked for, and times of day
    look alike.
    """
    if ":" not in one and ":" not in other:
        return None
    pair = [_parts(text) for text in (one, other)]
    if not pair[0] or not pair[1] or len(pair[0]) != len(pair[1]):
        return "unknown"
    scaled = [[part / sum(parts) for part in parts] if sum(parts) else parts for parts in pair]
    return "unknown" if scaled[0] == scaled[1] else "wrong"


def _parts(text: str) -> Sequence[Fraction]:
    plain = compact(text)
    return [Fraction(part) for part in plain.split(":")] if _RATIO.fullmatch(plain) else []


def _words(one: str, other: str, checker: LatexChecker) -> str | None:
    """Answers in words ("Evelyn", "(C)"): the checker would read the letters as symbols."""
    are_words = [
        TEXT_COMMAND.fullmatch(text.strip()) is not None or _is_words(text) for text in (one, other)
    ]
    if not any(are_words):
        return None
    letters, other_letters = _letters(one), _letters(other)
    if letters == other_letters:
        return "right"
    bags = [
        sorted(filter(str.isalnum, MATHS_COMMAND.sub("", text)))
        for text in (letters, other_letters)
    ]
    if bags[0] == bags[1]:
        return "unknown"  # `abc` and `bca`: a product, perhaps
    if any(re.fullmatch(r"\W*[^\W\d_]\W*", text) for text in (letters, other_letters)):
        return "unknown"  # a choice by its letter, a name by its initial
    numbers = [read_number(text) is not None for text in (one, other)]
    if any(numbers) and any(spells_number(text) or text.count(" ") > 3 for text in (one, other)):
        return "unknown"
    plain = [
        is_number or _WORDS.fullmatch(plain_latex(text)) is not None
        for is_number, text in zip(numbers, (one, other), strict=True)
    ]
    return "wrong" if all(plain) else "unknown"


def _formulas(one: str, other: str, numbers: Sequence[Number], checker: LatexChecker) -> str:
    """What is left: at most one is a plain number."""
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
        # Several numbers, a sum, a range: the checker would take the last number for the answer.
        return "unknown"
    if (
        ("%" in one) != ("%" in other)
        or _scales(one) != _scales(other)
        or any(n.factor != 1 for n in numbers)
    ):
        # The checker holds 25 = 25% and 0.25 = 25%, and drops what it takes for units.
        return "unknown"
    if any(
        _THOUSANDS.search(text) and (read_number(text) is None or _holds_comma(texts, text))
        for text in texts
    ):
        # `3,500` is a number, but within brackets or a list it may be two.
        return "unknown"
    verdict = checker.check(*map(_spelled, texts))
    if verdict == "right" and (_mixes_cases(f"{one} {other}") or _loses_order(one, other)):
        return "unknown"
    if verdict == "wrong" and (
        _holds_words(one) or _holds_words(other) or _DEGREES.search(one + other)
    ):
        return "unknown"
    return verdict


def _spelled(text: str) -> str:
    """As the checker reads it. A decimal keeps its digits, since they tell how exact it is meant."""
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
    """Words of scale, and in text within mathematics also their abbreviations."""
    return holds_multiplier(text) | holds_multiplier(
        " ".join(TEXT_COMMAND.findall(text)), letters=True
    )


def _list_against(listed: str, number: Number) -> str:
    """Several numbers aren't one, unless they may be a number with a gap (`3, 500`) or the same one
    again.
    """
    parts = [parse_number(part) for part in plain_latex(listed).split(",")]
    same = number.value.denominator == 1 and sorted(filter(str.isdigit, listed)) == sorted(
        filter(str.isdigit, canonical(number))
    )
    return "unknown" if same or len({part.value for part in parts if part}) < 2 else "wrong"


def _holds_comma(texts: Sequence[str], but: str) -> bool:
    return any("," in text for text in texts if text is not but)


def _is_words(text: str) -> bool:
    """Nothing but letters and punctuation, with at least one word that isn't a function: `Evelyn`,
    not `p - q`, `(C)` or `sin x`.
    """
    plain = plain_latex(text)
    return _WORDS.fullmatch(plain) is not None and any(
        word not in FUNCTIONS for word in re.findall(r"[^\W\d_]{3,}", plain)
    )


def _holds_words(text: str) -> bool:
    """Is there a word among the mathematics, whose letters the checker takes for symbols? Three
    letters may be a product.
    """
    words = re.findall(r"[^\W\d_]+", MATHS_COMMAND.sub(" ", TEXT_COMMAND.sub(" ", text)))
    return _is_words(text) or any(len(word) > 3 or word in FUNCTIONS for word in words)


def _mixes_cases(text: str) -> bool:
    """`R - r`: the checker makes one symbol of the two."""
    letters = set(MATHS_COMMAND.sub("", TEXT_COMMAND.sub("", text)))
    return any(letter.isupper() and letter.lower() in letters for letter in letters)


def _loses_order(one: str, other: str) -> bool:
    """One says which value is which (`(3, 4)`; `x = 3, y = 4`), the other lists them (`4, 3`): the
    checker doesn't mind.
    """
    return "," in one and "," in other and _is_list(one) != _is_list(other)


def _is_list(text: str) -> bool:
    return (
        not re.search(r"[(\[][^()\[\]]*,", text)
        and len(set(re.findall(r"([A-Za-z])\s*=", text))) < 2
    )


def _letters(text: str) -> str:
    """For comparing answers in words: nor do case and brackets around them."""
    return re.sub(r"\((.*)\)", r"\1", compact(text)).casefold()
