"""Other words: the same slots in the same order, one word for one, and nothing that says what is
done is touched.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from glore.tasks.svamp.equations import parse_prefix
from glore.tasks.svamp.templates import SLOT, Template
from glore.tasks.svamp.words import EXTRA, Wordings

NAMES = ("Ann", "Bea", "Cem", "Dan")
THINGS = ("cherries", "boxes", "pens", "cards")
TREE = parse_prefix("- number0 number1")


def template(text: str) -> Template:
    return Template(text, TREE, {name: Fraction(12) for name in SLOT.findall(text)})


@pytest.fixture(scope="module")
def wordings() -> Wordings:
    texts = [
        f"{name} had number0 {thing} in a {place}. She gave number1 dollars away. How many {thing} "
        f"has {name} now?"
        for name in NAMES
        for thing in THINGS
        for place in ("garden", "kitchen")
    ]
    return Wordings(map(template, texts))


def test_names_and_things_change_consistently_and_nothing_else(wordings: Wordings) -> None:
    text = (
        "Ann had number0 cherries and Dan had number1 pens. Which cherry is Ann's? "
        "Cherries cost number2 dollars."
    )
    seen = set()
    for seed in range(40):
        new = wordings.reworded(random.Random(seed), text, rare=0.0)
        match = re.fullmatch(
            r"(\w+) had number0 (\w+) and (\w+) had number1 (\w+)\. "
            r"Which (\w+) is (\w+)'s\? (\w+) cost number2 dollars\.",
            new,
        )
        assert match, new
        ann, cherries, dan, pens, cherry, again, capital = match.groups()
        assert {ann, dan} <= set(NAMES)
        assert {cherries, pens} <= set(THINGS)
        assert ann == again != dan
        assert cherries.capitalize() == capital != pens.capitalize()
        assert (
            cherry
            == {"cherries": "cherry", "boxes": "box", "pens": "pen", "cards": "card"}[cherries]
        )
        seen.add(new)
    assert len(seen) > 20


def test_rare_words_stand_for_each_other_by_ending() -> None:
    texts = [
        f"number0 pens were {a}ed in the {b}."
        for a, b in (("paint", "garden"), ("wash", "kitchen"))
        for _ in range(2)
    ]
    common = [template("number0 pens were in the.") for _ in range(40)]
    wordings = Wordings([*common, *map(template, texts * 2)])
    # Of so few words all are frequent, so none is rare.
    assert wordings.reworded(random.Random(0), texts[0], rare=1.0) == texts[0]
    fillers = [
        template(f"Word{chr(97 + i // 26)}{chr(97 + i % 26)} is here.")
        for i in range(400)
        for _ in range(20)
    ]
    wordings = Wordings([*fillers, *common, *map(template, texts)])
    new = {wordings.reworded(random.Random(seed), texts[0], rare=1.0) for seed in range(20)}
    assert new == {
        f"number0 pens were {a} in the {b}."
        for a in ("painted", "washed")
        for b in ("garden", "kitchen")
    }
    assert wordings.reworded(random.Random(0), texts[0], rare=0.0) == texts[0]


def test_a_distractor_is_a_sentence_of_its_own(wordings: Wordings) -> None:
    for seed in range(20):
        found = wordings.distracted(
            random.Random(seed), "Eva has number0 cups. She lost number1. How many are left?"
        )
        assert found is not None
        text, number = found
        assert number == 12
        extra = [sentence for sentence in re.split(r"(?<=\.) ", text) if EXTRA in sentence]
        assert len(extra) == 1
        assert re.fullmatch(rf"\w+ had {EXTRA} \w+ in a \w+\.", extra[0]), (
            "a sentence with `she` leans on another"
        )
        assert (
            text.replace(f"{extra[0]} ", "")
            == "Eva has number0 cups. She lost number1. How many are left?"
        )
    assert (
        Wordings([template("How many are number0 and number1?")]).distracted(random.Random(0), "x")
        is None
    )
