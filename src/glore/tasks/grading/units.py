"""Text after a number: units, which don't change it, multipliers (`million`, `k`), which do, and
anything else.

`read_tail` returns the factor of a tail. It returns none if the tail may change the number in an
uncertain way: unknown words of scale (`5 grand`, `5M` without a currency), number words (`3 hours
twenty`), functions, operators.
"""

from __future__ import annotations

import re
from fractions import Fraction

__all__ = ["FUNCTIONS", "holds_multiplier", "read_tail", "spells_number"]


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_POWERS = {
    "hundred": 2,
    "thousand": 3,
    "lakh": 5,
    "lac": 5,
    "million": 6,
    "crore": 7,
    "billion": 9,
    "milliard": 9,
    "trillion": 12,
}
_POWERS |= {"quadrillion": 15, "quintillion": 18}
_PARTS = {
    "tenth": 1,
    "hundredth": 2,
    "thousandth": 3,
    "millionth": 6,
    "billionth": 9,
    "trillionth": 12,
}
_FACTORS = {name: Fraction(10) ** power for name, power in _POWERS.items()} | {
    "dozen": Fraction(12)
}
_FACTORS |= {name: Fraction(1, 10**power) for name, power in _PARTS.items()}
_FACTORS |= {f"{name}s": factor for name, factor in _FACTORS.items()}
_MONEY_POWERS = {
    "k": 3,
    "m": 6,
    "b": 9,
    "t": 12,
    "mn": 6,
    "mln": 6,
    "mil": 6,
    "mio": 6,
    "bn": 9,
    "bil": 9,
    "mrd": 9,
    "tn": 12,
    "trn": 12,
}
"""Abbreviations that are certain only for money: `5M` may be five metres, `5K` five kelvin."""
_SCALES = _words(
    "bn bil mil mils mln mn mio mrd tn trn tril tsd thou thsd mille milles permil permille "
    "permyriad cr lk",
    "score scores myriad myriads kilo mega giga tera peta exa milli micro nano pico hecto deca "
    "deka deci centi",
    "half third quarter fourth fifth halves thirds quarters fourths fifths sixths sevenths "
    "eighths ninths",
    "tausend hundert dutzend douzaine douzaines dizaine dizaines docena docenas centaine "
    "centaines millier milliers mila duizend",
    "binary octal hexadecimal hex mod modulo",
)
"""Words that make a number uncertain, anywhere after it."""
_SCALES_NEXT = _words(
    "tens googol googols grand gross grosses couple arab arabs kharab kharabs base"
)
"""Words that make a number uncertain if they follow directly."""
_SCALE_LETTERS = _words("K M B T G P k b MM")
_LAKHS = _words("L l")
"""`₹5 L`; without a currency it is litres."""
_OR_ELSE = _words("more less fewer above below over under up higher lower greater")
_SCALE_SHAPE = re.compile(r"[a-z]*(?:illi|ilj|mili|mill)(?:on|oen|ard)[a-z]*")
"""`gazillion`, and the million of other languages."""
_NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen",
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety",
)
_ALMOST_NUMBERS = _words(
    "none nothing nil no once twice thrice single pair pairs couple first second sixth seventh "
    "eighth ninth"
)
_BEFORE_A_COUNT = _words(
    "for per of in each every the these those all both other any by with from after over at"
)
FUNCTIONS = _words(
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan",
    "log ln exp pi sqrt abs max min gcd lcm inf infinity factorial squared cubed",
)
"""Words with a mathematical meaning."""
_NOT_UNITS = (
    (FUNCTIONS - {"min", "max", "sec"})
    | _SCALES
    | _words("plus minus negative below point e i j n x y z nan")
)
_MONEY_WORDS = _words(
    "dollar dollars usd eur euro euros gbp pound pounds rupee rupees inr yen cents bucks"
)
_LETTER_UNITS = _words("m g s h L l W V J N A C F")
_SHORT_UNITS = _words(
    "cm mm km dm nm kg mg lb lbs oz ft in yd mi hr hrs min mins sec secs ms ml mL cl dl gal qt pt "
    "pts mph kph kmh fps psi kW kWh cal",
    "kJ Hz kHz MHz GHz KB kB MB GB TB Pa kPa mol deg rad USD EUR GBP INR usd ct cts pm am yr yrs "
    "wk wks mo ppm",
)
_SHORT_WORDS = _words("of in at is to by on so as an it we he no up am pm us my if")

_TAIL = re.compile(r"(?:[A-Za-z]+(?:\^?\{?[23]\}?|[²³])(?![0-9])|[A-Za-z .,;:!?'\"()/°$€£₹¢¥-])*")
_WORD = re.compile(r"[A-Za-z]+")
_NEXT_WORD = re.compile(r"[\s-]*([A-Za-z]+)\.?(?![A-Za-z])")
_ASIDE = re.compile(r"\([A-Za-z ,-]*\)")


def read_tail(tail: str, money: bool = False, algebra: bool = False) -> Fraction | None:
    """The factor by which the text after a number multiplies it, 1 for units and prose; none if it
    is uncertain.

    `money`: a currency sign is before the number. `algebra`: letters may be variables, so `5t`, `5
    ab` or `5/a` are uncertain.
    """
    factor, rest = _leading_factor(tail, money)
    if not _TAIL.fullmatch(rest) or re.match(r"!|:\S|\s*-\s*$", rest):
        return None
    next_word = _WORD.search(rest)
    if next_word and (
        next_word[0].lower() in _SCALES_NEXT
        or next_word[0] in _SCALE_LETTERS | (_LAKHS if money else frozenset())
    ):
        return None
    if any(_changes(word) for word in _WORD.findall(rest)) or _counts_more(
        _ASIDE.sub(" ", rest), behind_scale=factor != 1
    ):
        return None
    if algebra and not _is_surely_a_unit(rest, attached=factor == 1):
        return None
    return factor


def holds_multiplier(text: str, letters: bool = False) -> frozenset[str]:
    """The words of scale in a text, such as `million`. Two texts that differ in them can't be
    compared by the rest. `letters`: also `M`, `k` and the like.
    """
    words = _WORD.findall(text)
    return frozenset(
        word.lower().removesuffix("s")
        for word in words
        if _is_scale(word) or (letters and word in _SCALE_LETTERS)
    )


def spells_number(text: str) -> bool:
    """Whether words may mean a number, such as `five dozen`, `a half` or `none`."""
    return any(
        word in _NUMBER_WORDS | _ALMOST_NUMBERS or _is_scale(word)
        for word in map(str.lower, _WORD.findall(text))
    )


def _leading_factor(tail: str, money: bool) -> tuple[Fraction, str]:
    """The factor of the words of scale directly after the number, and the rest of the text."""
    factor, at = Fraction(1), 0
    while match := _NEXT_WORD.match(tail, at):
        word = match[1].lower()
        if word in _FACTORS and (factor == 1 or (factor > 1) == (_FACTORS[word] > 1)):
            factor *= _FACTORS[word]
        elif factor == 1 and word in _MONEY_POWERS and (money or _is_money(tail, match.end())):
            factor *= 10 ** _MONEY_POWERS[word]
        else:
            break
        at = match.end()
    return factor, tail[at:]


def _is_money(tail: str, at: int) -> bool:
    after = _NEXT_WORD.match(tail, at)
    return after is not None and after[1].lower() in _MONEY_WORDS


def _is_scale(word: str) -> bool:
    lower = word.lower()
    return lower in _FACTORS or lower in _SCALES or _SCALE_SHAPE.fullmatch(lower) is not None


def _changes(word: str) -> bool:
    return word.lower() in _NOT_UNITS or _is_scale(word)


def _counts_more(rest: str, behind_scale: bool) -> bool:
    """Whether words add to the number (`3 hours twenty`, `5 hundred twenty`, `5 and a six`, `5 or
    more`). They don't in `18 for two people`.
    """
    words = [word.lower() for word in _WORD.findall(rest)]
    for i, word in enumerate(words):
        if word in _NUMBER_WORDS and (words[i - 1] == "and" if i else behind_scale):
            return True
        if word in _NUMBER_WORDS and i == 1 and len(words) <= 3 and words[0] not in _BEFORE_A_COUNT:
            return True
        if (
            word == "or"
            and i + 1 < len(words)
            and (words[i + 1] in _OR_ELSE or words[i + 1] in _NUMBER_WORDS)
        ):
            return True
    return False


def _is_surely_a_unit(rest: str, attached: bool) -> bool:
    for match in _WORD.finditer(rest):
        word, before = match[0], rest[: match.start()]
        touches = attached and not before
        if word in _SHORT_UNITS or len(word) > 3 or before.endswith("°"):
            continue
        if touches or "-" in before[-2:] or before.endswith("("):
            return False
        if (
            len(word) == 1
            and word not in _LETTER_UNITS
            and not (word == "a" and before[-1:] == " " and rest[match.end() :].strip())
        ):
            return False
        if len(word) == 2 and word.lower() not in _SHORT_WORDS:
            return False
    return True
