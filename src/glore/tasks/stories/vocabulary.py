"""Names, things and wordings of the stories. The first person in the wording of a relation is its
subject.
"""

from __future__ import annotations

__all__ = [
    "AND_MORE",
    "ASK_DIFFERENCE",
    "ASK_EVERYONE",
    "ASK_ONE",
    "ASK_TOTAL",
    "CHANGED",
    "FEWER",
    "GIVEN",
    "HALF",
    "IDLE",
    "ITEMS",
    "LESS",
    "MORE",
    "NAMES",
    "OPTIONS",
    "PAIR",
    "SUM",
    "TIMES",
    "TWICE",
    "UNKNOWN",
    "VERBS",
]

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jan", "Kim", "Leo")
ITEMS = ("pens", "cards", "coins", "books", "shells", "stamps")
AND_MORE = ("{a} has as many {items} as {b} and {k} more.", "{a} owns what {b} owns plus {k}.")
LESS = ("{b} has as many {items} as {a} but {k} less.", "{b} owns what {a} owns minus {k}.")
MORE = ("{a} has {k} more {items} than {b}.", "{a} owns {k} more than {b}.")
FEWER = ("{b} has {k} fewer {items} than {a}.", "{b} owns {k} fewer than {a}.")
TIMES = ("{a} has {k} times as many {items} as {b}.",)
TWICE = ("{a} has twice as many {items} as {b}.",)
HALF = ("{b} has half as many {items} as {a}.",)
PAIR = ("{a} and {b} have {k} {items} together.", "Together {a} and {b} own {k}.")
SUM = ("{a} has as many {items} as {b} and {c} together.",)
GIVEN = ("{a} has {k} {items}.", "{a} owns {k} {items}.")
CHANGED = ("{a} had {k} {items}, then {changes}.", "{a} began with {k} and {changes}.")
UNKNOWN = (
    "If {a} {changes}, that would make {k} {items}.",
    "Had {a} {changes}, there would be {k}.",
)
OPTIONS = ("{a} has {options} {items}.", "{a} owns either {options} {items}.")
VERBS = {"+": ("won", "bought", "found"), "-": ("lost", "sold", "used")}
IDLE = (
    "{a} also has {k} {other}.",
    "{a} is {k} years old.",
    "{a} likes {other}.",
    "{a} lives next to {b}.",
)
ASK_ONE = ("How many {items} does {a} have?", "How many {items} are owned by {a}?")
ASK_TOTAL = ("How many {items} do {a} and {b} have together?", "What is the total of {a} and {b}?")
ASK_DIFFERENCE = (
    "How many more {items} does {a} have than {b}?",
    "How many fewer {items} does {b} have than {a}?",
)
ASK_EVERYONE = "How many {items} does everyone have?"
