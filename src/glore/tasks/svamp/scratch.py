"""Text for a small base model trained from nothing, so that the whole method runs on SVAMP without
a download.

The numbers of a template (`svamp_templates`) are redrawn with as many digits each, such that every
result on the way is a positive whole number, and most of its words are changed (`svamp_words`); the
equation becomes steps. Documents, endless and the same for a seed: problems to solve; arithmetic
drills, most of all at first, from small numbers to larger ones; and, since a refiner must be able
to copy, which a model made from nothing can't, drafts to be written again, half of them with an
error marked and corrected.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from glore.errors import DataError
from glore.prompts import refine_segments, solve_segments
from glore.tasks.base_text import drill_pieces, problem_pieces
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.grading.grade import answer_line, find_answer
from glore.tasks.grading.numbers import Number, canonical, parse_number
from glore.tasks.protocol import Document
from glore.tasks.svamp.equations import Equation, Operation, value_of, worked_lines, worked_out
from glore.tasks.svamp.templates import (
    MAX_RESULT,
    Template,
    Templates,
    filled,
    fits,
    lettered,
    wording,
)
from glore.tasks.svamp.words import EXTRA, Wordings

__all__ = ["SvampFromScratch", "redrawn"]

_SVAMP_SHARE = 0.5
_DRILL_SHARES = ((0.15, 0.6), (0.5, 0.2), (1.0, 0.1))
"""Up to which share of training which share of the documents are drills: sums first, and then so
much as keeps them up.
"""
_COPY_SHARE = 0.15
_REWORDED_SHARE = 0.6
_RARE_SHARE = 0.15
_SMALL_SHARE = 0.5
"""Of the problems have numbers of one digit: short solutions, so that more wordings are read in the
same time.
"""
_DISTRACTED_SHARE = 0.25
_DRILLS = 8
"""In a document."""
MAX_DIGITS = 4
_TRIES = 40


@dataclass(slots=True)
class SvampFromScratch(DatasetTask):
    """SVAMP with text to train a base model on."""

    templates: Templates = field(default_factory=lambda: Templates((), (), frozenset(), 0, 0))
    _wordings: Wordings = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._wordings = Wordings((*self.templates.given, *self.templates.svamp))

    def left_out(self) -> dict[str, int]:
        """Counts of what was read and not used, templates included."""
        templates = {
            "templates_like_test": self.templates.n_leaks,
            "templates_unusable": self.templates.n_unusable,
        }
        return {**DatasetTask.left_out(self), **templates}

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """A drill, a problem or a draft to write again; no wording of a dev or test question is
        among them.
        """
        kind, drills = (
            rng.random(),
            next(share for until, share in _DRILL_SHARES if progress <= until),
        )
        if kind < drills:
            return tuple(
                piece for _ in range(_DRILLS) for piece in drill_pieces(*_drill(rng, progress))
            )
        template, slots = self._filled(rng)
        question, tree = filled(template, slots), template.tree
        named = lettered(template.text, slots)
        steps = worked_lines(tree, slots, *named)
        if kind < drills + _COPY_SHARE:
            draft, mark = (
                _spoiled(rng, tree, slots, named, steps) if rng.random() < 0.5 else (steps, None)
            )
            return problem_pieces(refine_segments(question, draft, mark), steps)
        return problem_pieces(solve_segments(question), steps)

    def _filled(self, rng: random.Random) -> tuple[Template, Mapping[str, Fraction]]:
        """A template in other words, and its numbers."""
        while True:
            template = self._template(rng)
            most_digits = 1 if rng.random() < _SMALL_SHARE else MAX_DIGITS
            slots = redrawn(rng, template, most_digits)
            if slots is None:
                continue
            text = template.text
            if (
                template.slots
                and rng.random() < _DISTRACTED_SHARE
                and (more := self._wordings.distracted(rng, text))
            ):
                text, number = more
                slots = {**slots, EXTRA: _same_size(rng, number, most_digits)}
            if rng.random() < _REWORDED_SHARE:
                text = self._wordings.reworded(rng, text, _RARE_SHARE)
            if wording(text) not in self.templates.closed:
                return template._replace(text=text), slots

    def _template(self, rng: random.Random) -> Template:
        pool = self.templates.svamp if rng.random() < _SVAMP_SHARE else self.templates.given
        return rng.choice(pool or self.templates.given)


def redrawn(
    rng: random.Random, template: Template, most_digits: int = MAX_DIGITS
) -> Mapping[str, Fraction] | None:
    """New numbers for a template's slots, of no more digits; the old ones where no draw fits, none
    where they don't fit either.
    """
    for _ in range(_TRIES if template.slots else 0):
        slots = {
            name: _same_size(rng, value, most_digits) for name, value in template.slots.items()
        }
        try:
            _mend(rng, template.tree, slots)
        except DataError:
            continue
        if fits(template.tree, slots) and all(0 < value <= MAX_RESULT for value in slots.values()):
            return slots
    return template.slots if fits(template.tree, template.slots) else None


def _same_size(rng: random.Random, value: Fraction, most_digits: int) -> Fraction:
    n_digits = min(len(str(int(abs(value)))), most_digits)
    return Fraction(
        rng.randint(2, 9) if n_digits == 1 else rng.randint(10 ** (n_digits - 1), 10**n_digits - 1)
    )


def _mend(rng: random.Random, node: Equation, slots: dict[str, Fraction]) -> Fraction:
    """Make differences positive and quotients whole by changing slots that stand in them directly;
    returns the node's value.
    """
    if not isinstance(node, Operation):
        return value_of(node, slots)
    left, right = _mend(rng, node.left, slots), _mend(rng, node.right, slots)
    if (
        node.operator == "/"
        and isinstance(node.left, str)
        and right > 0
        and (left / right).denominator != 1
    ):
        slots[node.left] = right * max(rng.randint(2, 9), round(left / right))
    elif node.operator == "-" and left <= right:
        if isinstance(node.left, str) and isinstance(node.right, str):
            slots[node.left], slots[node.right] = right, left
        elif isinstance(node.left, str):
            slots[node.left] = right + left
    return value_of(node, slots)


def _spoiled(
    rng: random.Random,
    tree: Equation,
    slots: Mapping[str, Fraction],
    named: tuple[Sequence[Fraction], Mapping[str | Fraction, str]],
    steps: Sequence[str],
) -> tuple[Sequence[str], int]:
    """A draft with a misreading or a slip, and the 0-based index of the step to mark (its first
    wrong one, or the first of all).
    """
    draft: Sequence[str] = steps
    for _ in range(6):
        spoiled = _changed(rng, tree, tuple(slots))
        if (
            fits(spoiled, slots)
            and (lines := worked_lines(spoiled, slots, *named))[-1] != steps[-1]
        ):
            draft = lines
            break
    if draft is steps:
        slip = _slipped(rng, steps[-1])
        draft = (
            *steps[:-2],
            *(f"{line.rpartition('= ')[0]}= {slip}" for line in steps[-2:-1]),
            answer_line(slip),
        )
    pairs = zip(draft, steps, strict=False)
    first_wrong = next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(draft), len(steps)) - 1
    )
    return draft, first_wrong if rng.random() < 0.7 else 0


def _slipped(rng: random.Random, last: str) -> str:
    """The answer of an answer line, a little off."""
    number = parse_number(find_answer([last]) or "0")
    return canonical(Number((number.value if number else Fraction(0)) + rng.choice((1, 2, 10))))


def _changed(rng: random.Random, node: Equation, names: Sequence[str]) -> Equation:
    """The tree with one operator or one number read wrongly."""
    if not isinstance(node, Operation):
        return rng.choice(names) if names else node
    part = rng.random()
    if part < 0.4:
        return replace(node, operator=rng.choice("+-*/"))
    if part < 0.5:
        return Operation(node.operator, node.right, node.left)
    if part < 0.75:
        return replace(node, left=_changed(rng, node.left, names))
    return replace(node, right=_changed(rng, node.right, names))


def _drill(rng: random.Random, progress: float) -> tuple[str, str]:
    """What is asked, and all that comes after it."""
    operator = rng.choices("+-*/", (4, 6, 2, 2))[0]
    if operator in "+-":
        shares = (5, 2, 0) if progress < 0.1 else (2, 5, 0) if progress < 0.3 else (2, 5, 2)
        largest = rng.choices((9, 99, 999), shares)[0]
        a, b = rng.randint(1, largest), rng.randint(1, largest if rng.random() < 0.7 else 9)
        if operator == "-":
            a, b = max(a, b) + 1, min(a, b)
    else:
        a, b = rng.randint(2, 9), rng.randint(2, 99 if rng.random() < 0.6 else 12)
        if rng.random() < 0.5:
            a, b = b, a
        a = a * b if operator == "/" else a
    return f"{a} {operator} {b}", worked_out(operator, Fraction(a), Fraction(b), columns=True)
