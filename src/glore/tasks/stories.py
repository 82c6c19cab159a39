"""`stories`: the built-in task. Multi-step arithmetic stories about related quantities, and an oracle for every step.

A story is a small graph: people are nodes with a hidden quantity, facts relate them ("Ana has 7 more pens than Tom", either way
round; "twice as many"; "Ana and Tom have 31 pens together"; "as many as Tom and Bo together"), one or two quantities are given. The
sentences are shuffled, some people and sentences do not matter, and redundant facts give more than one way to a quantity. Everything
follows from `stable_seed(seed, split, index)`: unlimited and the same everywhere.

A step is written `Ana: Tom + 7 = 12 + 7 = 19`. The oracle reads any line of that kind: a name (or `Ana and Tom`, `Difference`),
then expressions joined by `=`. The step is true when all expressions have the same value and it is the named quantity's true value,
whatever the way or the order. Expressions are parsed by a small reader of our own, bounded in length; nothing is evaluated as code.
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from glore.config import StoriesSettings
from glore.prompts import refine_segments, solve_segments
from glore.records import Problem
from glore.sampling.protocol import stable_seed
from glore.tasks.base_text import drill_pieces, problem_pieces
from glore.tasks.grading import grade_number_answer
from glore.tasks.protocol import Document, Grade

__all__ = ["Stories"]

NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jan", "Kim", "Leo")
ITEMS = ("pens", "cards", "coins", "books", "shells", "stamps")
MORE = (
    "{a} has {k} more {items} than {b}.",
    "{a} owns {k} more than {b}.",
    "{b} has {k} fewer {items} than {a}.",
    "{b} owns {k} fewer than {a}.",
)
TIMES = ("{a} has {k} times as many {items} as {b}.",)
TWICE = ("{a} has twice as many {items} as {b}.", "{b} has half as many {items} as {a}.")
PAIR = ("{a} and {b} have {k} {items} together.", "Together {a} and {b} own {k}.")
SUM = ("{a} has as many {items} as {b} and {c} together.",)
GIVEN = ("{a} has {k} {items}.", "{a} owns {k} {items}.")
IDLE = ("{a} also has {k} {other}.", "{a} is {k} years old.", "{a} likes {other}.", "{a} lives next to {b}.")
ASK_ONE = ("How many {items} does {a} have?", "How many {items} are owned by {a}?")
ASK_TOTAL = ("How many {items} do {a} and {b} have together?", "What is the total of {a} and {b}?")
ASK_DIFFERENCE = ("How many more {items} does {a} have than {b}?", "How many fewer {items} does {b} have than {a}?")
ASK_EVERYONE = "How many {items} does everyone have?"
MAX_STEP_CHARS = 200
TOKEN = re.compile(r"\s*(\d+|[A-Za-z]+|[-+*/()=])")


@dataclass(frozen=True, slots=True)
class Fact:
    """One relation. `kind`: given (a = k), more (a = b + k), times (a = b * k), pair (a + b = k), sum (a = b + c)."""

    kind: str
    people: tuple[str, ...]
    k: int

    def ways(self) -> tuple[tuple[str, str], ...]:
        """(name, expression) for every quantity that this fact yields from the others."""
        if self.kind == "given":
            return ()
        a, b = self.people[:2]
        if self.kind == "more":
            return (a, f"{b} + {self.k}"), (b, f"{a} - {self.k}")
        if self.kind == "times":
            return (a, f"{b} * {self.k}"), (b, f"{a} / {self.k}")
        if self.kind == "pair":
            return (a, f"{self.k} - {b}"), (b, f"{self.k} - {a}")
        c = self.people[2]
        return (a, f"{b} + {c}"), (b, f"{a} - {c}"), (c, f"{a} - {b}")


@dataclass(frozen=True, slots=True)
class Story:
    """A story with its truth."""

    values: dict[str, int]
    facts: tuple[Fact, ...]
    asked: tuple[str, ...]
    """One name; two names and `total` or `difference`."""
    items: str

    @property
    def answer(self) -> int:
        first = self.values[self.asked[0]]
        if len(self.asked) == 1:
            return first
        second = self.values[self.asked[1]]
        return first + second if self.asked[2] == "total" else first - second


class Stories:
    """The built-in task (`Task`, `OracleTask` and `ScratchTask`)."""

    name = "stories"

    def __init__(self, settings: StoriesSettings, seed: int, merge_answer_line: bool = False) -> None:
        self.settings = settings
        self.seed = seed
        self.merge_answer_line = merge_answer_line

    def problems(self, split: str) -> list[Problem]:
        """Problems of a split; a question of an earlier split (test, dev, train in this order) is never drawn again."""
        seen: set[str] = set()
        out: list[Problem] = []
        for name, n in (("test", self.settings.n_test), ("dev", self.settings.n_dev), ("train", self.settings.n_train)):
            out = []
            index = 0
            while len(out) < n:
                problem = self._problem(name, index, len(out))
                index += 1
                if problem.question not in seen:
                    seen.add(problem.question)
                    out.append(problem)
            if name == split:
                break
        return out

    def _problem(self, split: str, index: int, number: int) -> Problem:
        rng = random.Random(stable_seed(self.seed, "stories", split, index))
        story = draw_story(rng, self.settings, self.settings.steps)
        solution = None
        if split == "train" and rng.random() < self.settings.worked_share:
            solution = tuple(self._merged(solve(rng, story)))
        meta = json.dumps({"values": story.values, "asked": story.asked}, separators=(",", ":"))
        return Problem(f"stories-{split}-{number:05d}", tell(rng, story, self.settings), str(story.answer), solution, split, meta)

    def _merged(self, steps: list[str]) -> list[str]:
        return [*steps[:-2], f"{steps[-2]} {steps[-1]}"] if self.merge_answer_line and len(steps) > 1 else steps

    def grade(self, problem: Problem, steps: Sequence[str]) -> Grade:
        """The number after the last `####` against the story's answer."""
        return grade_number_answer(problem.answer, steps)

    def step_truth(self, problem: Problem, steps: Sequence[str]) -> tuple[bool, ...]:
        """L flags: is this step's statement true? Exact; a line that can't be read is false."""
        facts = json.loads(problem.meta)
        return tuple(_is_true(step, facts["values"], facts["asked"], problem.answer) for step in steps)

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """Drills, lists to recall, stories to work out, solve or copy; short stories first, the recipe's later (a curriculum)."""
        kind = rng.random()
        if kind < 0.25:
            return tuple(piece for _ in range(8) for piece in drill_pieces(_drill(rng, self.settings.max_number)))
        if kind < 0.32:
            return _recall(rng, self.settings.max_number)
        hard = rng.random() < 0.8 * min(1.0, max(0.0, (progress - 0.2) / 0.3))
        settings = self.settings if hard else self.settings.model_copy(update=_EASY | {"people": (2, 2 if progress < 0.2 else 3)})
        while True:
            story = draw_story(rng, settings, (1, self.settings.steps[1] if hard else 2))
            everyone = kind < 0.66
            question = tell(rng, story, settings, ask_everyone=everyone)
            if question not in self._held_out:
                break
        if everyone:
            return problem_pieces(solve_segments(question), work_out(rng, story))
        steps = self._merged(solve(rng, story))
        copying = progress > 0.2 and kind > 0.88
        return problem_pieces(refine_segments(question, steps, None) if copying else solve_segments(question), steps)

    @functools.cached_property
    def _held_out(self) -> frozenset[str]:
        """Questions of dev and test: no base document tells one of them."""
        return frozenset(p.question for split in ("dev", "test") for p in self.problems(split))


_EASY = {"distractors": 0, "extra_relations": 0, "shuffled": 0.2}


def draw_story(rng: random.Random, settings: StoriesSettings, n_steps: tuple[int, int]) -> Story:
    """A story whose shortest found solution has a number of steps (answer line not counted) in the range `n_steps`."""
    while True:
        story = _draw(rng, settings)
        if story and n_steps[0] <= len(solve(rng, story)) - 1 <= n_steps[1]:
            return story


def _draw(rng: random.Random, settings: StoriesSettings) -> Story | None:
    people = rng.sample(NAMES, rng.randint(*settings.people))
    values = {people[0]: rng.randint(2, settings.max_number)}
    facts = [Fact("given", (people[0],), values[people[0]])]
    for person in people[1:]:
        fact = _relate(rng, person, list(values), values, settings.max_number)
        if fact is None:
            return None
        facts.append(fact)
    for _ in range(rng.randint(0, settings.extra_relations)):
        extra = _redundant(rng, values)
        if extra and not any(set(extra.people) == set(f.people) for f in facts):
            facts.append(extra)
    return Story(values, tuple(facts), _question(rng, people, values), rng.choice(ITEMS))


def _relate(rng: random.Random, new: str, known: list[str], values: dict[str, int], limit: int) -> Fact | None:
    """A fact that ties a new person to known ones, and the person's value. None where no value fits."""
    old = rng.choice(known)
    kind = rng.choices(("more", "times", "pair", "sum"), (6, 2, 1, 1))[0]
    if kind == "sum" and len(known) > 1:
        b, c = rng.sample(known, 2)
        values[new] = values[b] + values[c]
        return Fact("sum", (new, b, c), 0) if values[new] <= limit else None
    if kind == "times":
        k = rng.choice((2, 2, 3))
        if rng.random() < 0.5 and values[old] % k == 0:
            values[new] = values[old] // k
            return Fact("times", (old, new), k)
        values[new] = values[old] * k
        return Fact("times", (new, old), k) if values[new] <= limit else None
    values[new] = rng.randint(2, limit)
    if values[new] == values[old]:
        return None
    if kind == "pair":
        return Fact("pair", (new, old), values[new] + values[old])
    high, low = (new, old) if values[new] > values[old] else (old, new)
    return Fact("more", (high, low), values[high] - values[low])


def _redundant(rng: random.Random, values: dict[str, int]) -> Fact | None:
    a, b = rng.sample(sorted(values), 2)
    if values[a] == values[b]:
        return None
    if rng.random() < 0.3:
        return Fact("pair", (a, b), values[a] + values[b])
    return Fact("more", (a, b) if values[a] > values[b] else (b, a), abs(values[a] - values[b]))


def _question(rng: random.Random, people: list[str], values: dict[str, int]) -> tuple[str, ...]:
    first, second = rng.sample(people[1:], 1)[0], rng.choice(people)
    kind = rng.random()
    if kind < 0.6 or first == second or values[first] == values[second]:
        return (first,)
    if kind < 0.85:
        return (first, second, "total")
    return (first, second, "difference") if values[first] > values[second] else (second, first, "difference")


def solve(rng: random.Random, story: Story) -> list[str]:
    """One valid solution, shortest of a few random ways: the steps and the answer line."""
    return min((_one_way(rng, story) for _ in range(4)), key=len)


def work_out(rng: random.Random, story: Story) -> list[str]:
    """Steps for every person's quantity, in a random valid order."""
    return [line for _, _, line in _derive(rng, story, set(story.values))]


def _derive(rng: random.Random, story: Story, asked: set[str]) -> list[tuple[str, set[str], str]]:
    """Random valid steps until all of `asked` are known: (name, names it needs, step)."""
    known = {f.people[0] for f in story.facts if f.kind == "given"}
    lines: list[tuple[str, set[str], str]] = []
    ways = [way for fact in story.facts for way in fact.ways()]
    while not asked <= known:
        usable = [(name, text) for name, text in ways if name not in known and _names(text) <= known]
        if not usable:  # can't happen: every person was tied to known ones
            raise AssertionError("a story that can't be solved")
        name, text = rng.choice(usable)
        known.add(name)
        lines.append((name, _names(text), f"{name}: {text} = {_filled(text, story.values)} = {story.values[name]}"))
    return lines


def _one_way(rng: random.Random, story: Story) -> list[str]:
    steps: list[str] = []
    needed = set(story.asked[:2])
    for name, sources, line in reversed(_derive(rng, story, set(needed))):
        if name in needed:
            needed |= sources
            steps.insert(0, line)
    if len(story.asked) == 3:
        a, b, kind = story.asked
        text, label = (f"{a} + {b}", f"{a} and {b}") if kind == "total" else (f"{a} - {b}", "Difference")
        steps.append(f"{label}: {text} = {_filled(text, story.values)} = {story.answer}")
    return [*steps, f"#### {story.answer}"]


def _names(text: str) -> set[str]:
    return set(re.findall(r"[A-Z][a-z]+", text))


def _filled(text: str, values: dict[str, int]) -> str:
    return re.sub(r"[A-Z][a-z]+", lambda m: str(values[m.group()]), text)


def tell(rng: random.Random, story: Story, settings: StoriesSettings, ask_everyone: bool = False) -> str:
    """The story as text: facts and irrelevant sentences shuffled, the question last."""
    sentences = [_say(rng, fact, story.items) for fact in story.facts]
    names = sorted(story.values)
    for _ in range(rng.randint(0, settings.distractors)):
        a, b = rng.sample(names, 2)
        other = rng.choice([i for i in ITEMS if i != story.items])
        sentences.insert(rng.randint(0, len(sentences)), rng.choice(IDLE).format(a=a, b=b, k=rng.randint(2, settings.max_number), other=other))
    if rng.random() < settings.shuffled:
        rng.shuffle(sentences)
    question = ASK_EVERYONE.format(items=story.items) if ask_everyone else _ask(rng, story)
    return " ".join([*sentences, question])


def _say(rng: random.Random, fact: Fact, items: str) -> str:
    a, b, c = (*fact.people, "", "")[:3]
    if fact.kind == "times" and fact.k == 2:
        templates: Sequence[str] = TWICE
    else:
        templates = {"given": GIVEN, "more": MORE, "times": TIMES, "pair": PAIR, "sum": SUM}[fact.kind]
    if fact.kind in ("pair", "sum") and rng.random() < 0.5:
        a, b, c = (b, a, c) if fact.kind == "pair" else (a, c, b)
    return rng.choice(templates).format(a=a, b=b, c=c, k=fact.k, items=items)


def _ask(rng: random.Random, story: Story) -> str:
    a, b, kind = (*story.asked, "", "one")[:3] if len(story.asked) == 1 else story.asked
    templates = {"total": ASK_TOTAL, "difference": ASK_DIFFERENCE}.get(kind, ASK_ONE)
    return rng.choice(templates).format(a=a, b=b, items=story.items)


def _drill(rng: random.Random, limit: int) -> str:
    sign = rng.choice("++--*/")
    if sign in "+-":
        total = rng.randint(4, 2 * limit)
        a = rng.randint(2, total - 2)
        return f"{a} + {total - a} = {total}" if sign == "+" else f"{total} - {a} = {total - a}"
    k, a = rng.randint(2, 4), rng.randint(2, max(2, limit // 2))
    return f"{a} * {k} = {a * k}" if sign == "*" else f"{a * k} / {k} = {a}"


def _recall(rng: random.Random, limit: int) -> Document:
    """A list of quantities (read), then the same list in another order (learnt): so a model made from nothing learns to look things up."""
    entries = [f"{name} {rng.randint(2, limit)}" for name in rng.sample(NAMES, 6)]
    return (f"{', '.join(entries)}.\n", False), (f"{', '.join(rng.sample(entries, len(entries)))}.\n", True)


def _is_true(step: str, values: dict[str, int], asked: Sequence[str], answer: str) -> bool:
    """Truth of one line; merged answer lines (`… #### 19`) must be true in both halves."""
    if len(step) > MAX_STEP_CHARS:
        return False
    body, mark, final = step.partition("####")
    if mark:
        if _value(final, {}) != Fraction(answer):
            return False
        if not body.strip():
            return True
    label, colon, rest = body.partition(":")
    target = _target(label.strip(), values, asked)
    if not colon or target is None or "=" not in rest:
        return False
    return all(_value(part, values) == target for part in rest.split("="))


def _target(label: str, values: dict[str, int], asked: Sequence[str]) -> Fraction | None:
    """The true value of what a step names."""
    if label == "Difference" and len(asked) == 3 and asked[2] == "difference":
        return Fraction(values[asked[0]] - values[asked[1]])
    names = label.split(" and ")
    if len(set(names)) != len(names) or not all(name in values for name in names):
        return None
    return Fraction(sum(values[name] for name in names))


def _value(text: str, values: dict[str, int]) -> Fraction | None:
    """Value of an expression of numbers, known names, + - * / and brackets. None where it is not one."""
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None or len(match.group(1)) > 12:
            return None
        tokens.append(match.group(1))
        position = match.end()
    try:
        value, rest = _sum(tokens, values)
    except (ValueError, IndexError, KeyError, ZeroDivisionError, RecursionError):
        return None
    return value if not rest else None


def _sum(tokens: list[str], values: dict[str, int]) -> tuple[Fraction, list[str]]:
    value, tokens = _product(tokens, values)
    while tokens and tokens[0] in "+-":
        sign, (term, rest) = tokens[0], _product(tokens[1:], values)
        value, tokens = (value + term if sign == "+" else value - term), rest
    return value, tokens


def _product(tokens: list[str], values: dict[str, int]) -> tuple[Fraction, list[str]]:
    value, tokens = _atom(tokens, values)
    while tokens and tokens[0] in "*/":
        sign, (factor, rest) = tokens[0], _atom(tokens[1:], values)
        value, tokens = (value * factor if sign == "*" else value / factor), rest
    return value, tokens


def _atom(tokens: list[str], values: dict[str, int]) -> tuple[Fraction, list[str]]:
    head = tokens[0]
    if head == "(":
        value, rest = _sum(tokens[1:], values)
        if rest[0] != ")":
            raise ValueError("bracket")
        return value, rest[1:]
    if head == "-":
        value, rest = _atom(tokens[1:], values)
        return -value, rest
    return (Fraction(int(head)) if head.isdigit() else Fraction(values[head])), tokens[1:]
