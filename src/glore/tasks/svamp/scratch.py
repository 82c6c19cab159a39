"""Text for a small base model trained from nothing, so that the whole method runs on SVAMP without
a download.

The numbers of a template (`templates`) are redrawn with the same numbers of digits, so that every
intermediate result is a positive whole number; most of its words are changed (`words`); and the
equation becomes steps. There are three types of documents, unlimited and determined by the seed:
problems to solve; arithmetic drills, mostly at the beginning, from small numbers to larger ones;
and drafts to copy, half of them with an error marked and corrected, since a refiner must copy and a
model trained from nothing can't.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from glore.errors import DataError
from glore.prompts import refine_segments, solve_segments
from glore.tasks.data.dataset import DatasetTask
from glore.tasks.documents import drill_pieces, problem_pieces
from glore.tasks.grading.grade import answer_line, find_answer
from glore.tasks.grading.numbers import Number, canonical, parse_number
from glore.tasks.protocol import Document
from glore.tasks.svamp.equations import Equation, Operation, computed, value_of, worked_lines
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
"""Share of training done → share of drills up to there: sums first, later enough to retain them."""
_COPY_SHARE = 0.15
_REWORDED_SHARE = 0.6
_RARE_SHARE = 0.15
_SMALL_SHARE = 0.5
"""Share of problems with one-digit numbers. Their solutions are short, so more wordings fit into
the same number of tokens.
"""
_DISTRACTED_SHARE = 0.25
_DRILLS = 8
"""Drills in a document."""
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
        """Counts of problems and templates that were read and not used, by reason."""
        templates = {
            "templates_like_test": self.templates.n_leaks,
            "templates_unusable": self.templates.n_unusable,
        }
        return {**DatasetTask.left_out(self), **templates}

    def base_document(self, rng: random.Random, progress: float) -> Document:
        """A drill, a problem or a draft to copy, never with the wording of a dev or test
        question.
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
                _perturbed_draft(rng, tree, slots, named, steps)
                if rng.random() < 0.5
                else (steps, None)
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
    """New numbers for a template's slots, with no more digits; the old numbers if no draw fits;
    none if they don't fit either.
    """
    for _ in range(_TRIES if template.slots else 0):
        slots = {
            name: _same_size(rng, value, most_digits) for name, value in template.slots.items()
        }
        try:
            _adjust(rng, template.tree, slots)
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


def _adjust(rng: random.Random, node: Equation, slots: dict[str, Fraction]) -> Fraction:
    """The node's value, after changing its direct slots so that differences are positive and
    quotients whole.
    """
    if not isinstance(node, Operation):
        return value_of(node, slots)
    left, right = _adjust(rng, node.left, slots), _adjust(rng, node.right, slots)
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


def _perturbed_draft(
    rng: random.Random,
    tree: Equation,
    slots: Mapping[str, Fraction],
    named: tuple[Sequence[Fraction], Mapping[str | Fraction, str]],
    steps: Sequence[str],
) -> tuple[Sequence[str], int]:
    """A draft with a wrong operation or answer, and the 0-based index of the step to mark (the
    first wrong one, or the first of all).
    """
    draft: Sequence[str] = steps
    for _ in range(6):
        perturbed = _perturbed_tree(rng, tree, tuple(slots))
        if (
            fits(perturbed, slots)
            and (lines := worked_lines(perturbed, slots, *named))[-1] != steps[-1]
        ):
            draft = lines
            break
    if draft is steps:
        wrong = _perturbed_answer(rng, steps[-1])
        draft = (
            *steps[:-2],
            *(f"{line.rpartition('= ')[0]}= {wrong}" for line in steps[-2:-1]),
            answer_line(wrong),
        )
    pairs = zip(draft, steps, strict=False)
    first_wrong = next(
        (i for i, (a, b) in enumerate(pairs) if a != b), min(len(draft), len(steps)) - 1
    )
    return draft, first_wrong if rng.random() < 0.7 else 0


def _perturbed_answer(rng: random.Random, last: str) -> str:
    """A number slightly larger than the answer of an answer line."""
    number = parse_number(find_answer([last]) or "0")
    return canonical(Number((number.value if number else Fraction(0)) + rng.choice((1, 2, 10))))


def _perturbed_tree(rng: random.Random, node: Equation, names: Sequence[str]) -> Equation:
    """The tree with one wrong operator or one wrong number."""
    if not isinstance(node, Operation):
        return rng.choice(names) if names else node
    part = rng.random()
    if part < 0.4:
        return replace(node, operator=rng.choice("+-*/"))
    if part < 0.5:
        return Operation(node.operator, node.right, node.left)
    if part < 0.75:
        return replace(node, left=_perturbed_tree(rng, node.left, names))
    return replace(node, right=_perturbed_tree(rng, node.right, names))


def _drill(rng: random.Random, progress: float) -> tuple[str, str]:
    """The question of a drill, and the text after it."""
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
    return f"{a} {operator} {b}", computed(operator, Fraction(a), Fraction(b), columns=True)
