"""Paraphrases of the wordings in `templates`, so that a model trained from nothing can't recognise
a problem by its words.

Without them it memorised the given wordings (99 % of their equations right) and learnt few others
(32 % of the test's first steps). Three changes keep the equation: other names and countable things,
consistent through the text; other rare words with a similar ending; and a sentence with an
irrelevant number from another problem. The templates themselves tell which words are names and
things, and which sentences can be added.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from fractions import Fraction

from glore.tasks.svamp.templates import SLOT, Template

__all__ = ["EXTRA", "Wordings"]

EXTRA = "number99"
"""The slot of an irrelevant number."""
_N_FREQUENT = 300
"""The most frequent words are kept, since most of them say what is done with the numbers."""
_MAX_RARE = 15
_MIN_SEEN = 3
_WORD = re.compile(r"[A-Za-z]+")
_THING = re.compile(rf"{SLOT.pattern} ([a-z]+s)\b")
_NAME = re.compile(
    r"\b([A-Z][a-z]+)(?='s| (?:had|has|bought|gave|ate|found|picked|spent|saw|wants|collects"
    r"|went|made|needs|is)\b)"
)
_NO_THING = re.compile(
    "(?:dollar|cent|quarter|dime|nickel|buck|hour|minute|second|day|week|month|year|time|mile"
    "|kilometer|meter|centimeter|yard|acre|pound|lb|ounce|gram|kilogram|ton|gallon|liter|cup"
    "|calorie|degree|point|piece|page|live|group|set|section|pair|row|pack|package|sack|member"
    "|friend|step)s?|inch(?:es)?|penn(?:y|ies)|less|was|ds|precious|glass|cypress"
)
_NO_NAME = re.compile("He|She|It|They|There|What|One|Will|Winter|April|Baker|Arkansas|Skittles")
_CLAUSE_WORDS = range(4, 13)
_LINKED = re.compile(
    r"\b(?:he|she|it|they|them|her|his|their|then|more|each|if|of the|now|left|other|some)\b",
    re.IGNORECASE,
)
"""Words that refer to other sentences."""
_ENDINGS = ("ing", "ed", "ly", "es", "s", "er", "")


class Wordings:
    """The words of these templates, and which may replace which."""

    def __init__(self, templates: Iterable[Template]) -> None:
        things: Counter[str] = Counter()
        names: Counter[str] = Counter()
        words: Counter[str] = Counter()
        self._clauses: list[tuple[str, Fraction]] = []
        for template in templates:
            things.update(set(_THING.findall(template.text)))
            names.update(set(_NAME.findall(template.text)))
            words.update(set(_WORD.findall(template.text)))
            self._clauses.extend(_clauses(template))
        self._things = _seen(things, _NO_THING)
        self._names = _seen(names, _NO_NAME)
        kept = {word for word, _ in words.most_common(_N_FREQUENT)} | {
            *self._names,
            *self._things,
            *map(_singular, self._things),
        }
        self._rare: defaultdict[str, list[str]] = defaultdict(list)
        for word, n in sorted(words.items()):
            if (
                1 < n <= _MAX_RARE
                and len(word) > 2
                and not kept & {word, word.lower()}
                and not _NO_THING.fullmatch(word)
            ):
                self._rare[_kind(word)].append(word)
        self._all_rare = {word for group in self._rare.values() for word in group}

    def reworded(self, rng: random.Random, text: str, rare: float) -> str:
        """The text with other names and things, and with this share of its rare words replaced."""
        words = list(dict.fromkeys(_WORD.findall(text)))
        names = [word for word in words if word in self._names]
        swap = dict(zip(names, rng.sample(tuple(self._names), len(names)), strict=True))
        things = list(dict.fromkeys(word.lower() for word in words if word.lower() in self._things))
        for old, new in zip(things, rng.sample(tuple(self._things), len(things)), strict=True):
            swap |= {old: new, old.capitalize(): new.capitalize()}
            swap.setdefault(_singular(old), _singular(new))
        for word in words:
            if word in self._all_rare and word not in swap and rng.random() < rare:
                swap[word] = rng.choice(self._rare[_kind(word)])
        return _WORD.sub(lambda match: swap.get(match[0], match[0]), text)

    def distracted(self, rng: random.Random, text: str) -> tuple[str, Fraction] | None:
        """The text with an added sentence, whose number (slot `EXTRA`) is irrelevant, and that
        number; none if no template has such a sentence.

        The sentence comes first half of the time, otherwise before a random one.
        """
        if not self._clauses:
            return None
        clause, number = rng.choice(self._clauses)
        sentences = re.split(r"(?<=[.]) ", text)
        at = 0 if rng.random() < 0.5 else rng.randrange(len(sentences))
        return " ".join((*sentences[:at], self.reworded(rng, clause, 0.0), *sentences[at:])), number


def _clauses(template: Template) -> Iterable[tuple[str, Fraction]]:
    """The template's sentences that don't refer to others and have one number, and that number."""
    for sentence in re.split(r"(?<=[.]) ", template.text):
        slots = SLOT.findall(sentence)
        whole = (
            sentence.endswith(".")
            and sentence[:1].isupper()
            and len(sentence.split()) in _CLAUSE_WORDS
        )
        if (
            whole
            and len(slots) == 1
            and slots[0] in template.slots
            and not _LINKED.search(sentence)
        ):
            yield sentence.replace(slots[0], EXTRA), template.slots[slots[0]]


def _seen(counts: Mapping[str, int], but: re.Pattern[str]) -> dict[str, None]:
    """The words seen often enough, sorted."""
    return {
        word: None
        for word, n in sorted(counts.items())
        if n >= _MIN_SEEN and not but.fullmatch(word)
    }


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "oes")) else word[:-1]


def _kind(word: str) -> str:
    """The case of a word's first letter, and its ending. Words that agree in both may replace each
    other.
    """
    ending = next(ending for ending in _ENDINGS if word.endswith(ending))
    return f"{'A' if word[0].isupper() else 'a'}…{ending}"
