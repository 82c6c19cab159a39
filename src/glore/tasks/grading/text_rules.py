"""Rules for answers that are text and not formulas: words, choices, numerals of a base, ratios
(method 8).

Each rule takes two answers and returns `right`, `wrong`, `unknown`, or none if it doesn't apply.
All rules are symmetric.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from glore.tasks.grading.latex_markup import (
    MATHS_COMMAND,
    TEXT_COMMAND,
    compact,
    plain_latex,
    undollared,
)
from glore.tasks.grading.number_bases import Numeral, compare_numerals, names_a_base, parse_numeral
from glore.tasks.grading.numbers import Number, parse_number
from glore.tasks.grading.units import FUNCTIONS, spells_number

__all__ = ["MAX_LATEX_CHARS", "TEXT_RULES", "is_words", "looks_like_latex", "read_number"]

MAX_LATEX_CHARS = 1_000
"""A longer answer is not compared as LaTeX: verdict `unknown`."""
_LOOKS_LIKE_LATEX = re.compile(r"\\[A-Za-z{}|]|[\^_{}]|^\$.*\$$")
_WORDS = re.compile(r"(?:[^\W\d_]|[\s.,;:!?'’()-])*")
_CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)[\s:.~]*(.*)|([A-J])\s*[).:]\s*(.*)", re.DOTALL)
_RATIO = re.compile(r"\d+(?:\.\d+)?(?::\d+(?:\.\d+)?)+")
_PHI = re.compile(r"\s*(?:\\(?:var)?phi|[φϕΦ])\s*", re.IGNORECASE)
_EMPTY_SET = re.compile(
    r"\\(?:emptyset|varnothing|O)(?![A-Za-z])|[∅Ø]|\\?\{\s*\\?\}|(?:the\s+)?empty\s+set",
    re.IGNORECASE,
)

Compare = Callable[[str, str], str]
"""Two answers → verdict."""


def looks_like_latex(text: str) -> bool:
    """Whether a text has commands, indices, powers or braces."""
    return _LOOKS_LIKE_LATEX.search(text) is not None


def read_number(text: str) -> Number | None:
    """The number that a text states, with or without LaTeX markup; letters may be variables."""
    number = parse_number(text, algebra=True)
    return (
        parse_number(plain_latex(text), algebra=True)
        if number is None and len(text) <= MAX_LATEX_CHARS
        else number
    )


def _same_text(one: str, other: str, compare: Compare) -> str | None:
    """Answers that are equal as text. `5, 100` are two numbers, `5,100` is one."""
    empty = [_empty_set(text) for text in (one, other)]
    if all(empty):
        return "right"
    if any(empty) and any(_PHI.fullmatch(undollared(text)) for text in (one, other)):
        return "unknown"  # the letter is often used as the sign
    if compact(one) != compact(other):
        return None
    return "unknown" if (read_number(one) is None) != (read_number(other) is None) else "right"


def _empty_set(text: str) -> bool:
    return _EMPTY_SET.fullmatch(plain_latex(text).strip().removesuffix(".")) is not None


def _numerals(one: str, other: str, compare: Compare) -> str | None:
    """Numerals, one of which names its base. A number without a base is in base ten."""
    if not names_a_base(one) and not names_a_base(other):
        return None
    numeral, other_numeral = (parse_numeral(text) or _in_base_ten(text) for text in (one, other))
    return compare_numerals(numeral, other_numeral) if numeral and other_numeral else "unknown"


def _in_base_ten(text: str) -> Numeral | None:
    number = read_number(text)
    return (
        Numeral(number.value, 10) if number and not number.percent and number.factor == 1 else None
    )


def _choices(one: str, other: str, compare: Compare) -> str | None:
    """`(C) 12` and `C`, `12` or another choice: right if letter or value are the same and the other
    doesn't differ.
    """
    pair = [_choice(text) for text in (one, other)]
    if not any(letter and value for letter, value in pair):
        return None
    (letter, value), (other_letter, other_value) = pair
    verdicts = set()
    if letter and other_letter:
        verdicts.add("right" if letter == other_letter else "wrong")
    if value and other_value:
        verdicts.add(compare(value, other_value))
    return verdicts.pop() if len(verdicts) == 1 else "unknown"


def _choice(text: str) -> tuple[str, str]:
    """Letter and value of an answer to a multiple choice; empty if not given."""
    plain = plain_latex(text).strip()
    if re.fullmatch(r"\(?[A-J]\)?\.?", plain):
        return plain.strip("().").upper(), ""
    match = _CHOICE.fullmatch(plain)
    value = (match[2] or match[4] or "").strip() if match else ""
    return ((match[1] or match[3]).upper(), value) if match and value else ("", text)


def _ratios(one: str, other: str, compare: Compare) -> str | None:
    """`1:9`. The same ratio in other numbers is undecided: the question may ask for one of them,
    and times of day look alike.
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


def _words(one: str, other: str, compare: Compare) -> str | None:
    """Answers in words ("Evelyn", "(C)"), whose letters the checker would read as symbols."""
    are_words = [
        TEXT_COMMAND.fullmatch(text.strip()) is not None or is_words(text) for text in (one, other)
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


def is_words(text: str) -> bool:
    """Whether a text has only letters and punctuation, with at least one word that isn't a
    function: `Evelyn`, not `p - q`, `(C)` or `sin x`.
    """
    plain = plain_latex(text)
    return _WORDS.fullmatch(plain) is not None and any(
        word not in FUNCTIONS for word in re.findall(r"[^\W\d_]{3,}", plain)
    )


def _letters(text: str) -> str:
    """The text for comparing words: as `compact`, without case and enclosing brackets."""
    return re.sub(r"\((.*)\)", r"\1", compact(text)).casefold()


TEXT_RULES = (_same_text, _numerals, _choices, _ratios, _words)
"""In the order in which they apply."""
