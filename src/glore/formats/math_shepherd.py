"""Math-Shepherd (Wang et al. 2023): `input`, `label`, `task`.

`input` is question and solution, each step ended by `ки`; `label` is the same text with `+` or `-`
in place of each `ки`. So a text with `ки` in it can't be written in this layout.
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.errors import shown
from glore.formats.fields import FieldError, Fields, others, text
from glore.formats.joined import (
    QUESTION,
    SIGNS,
    join_question,
    refuse_token,
    split_question,
)
from glore.formats.labelled import LabelledSolution
from glore.formats.layout import PLACEHOLDER, Layout, ReadOptions, WriteOptions
from glore.formats.tagged import join_steps, split_tagged

__all__ = ["MATH_SHEPHERD"]

OWN = ("input", "label", QUESTION)


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    given = text(fields, "input")
    first, *later = split_tagged(given, PLACEHOLDER, "input")
    labels = _signs(given, text(fields, "label"))
    question, step, separator = split_question(first, fields)
    yield LabelledSolution(
        question,
        (step, *later),
        labels,
        layout=MATH_SHEPHERD.name,
        fields={**others(fields, *OWN), **separator},
    )


def _signs(given: str, label: str) -> tuple[bool, ...]:
    """The sign at each `ки` of the input. Raises FieldError where the texts differ otherwise."""
    signs: list[bool] = []
    at = 0
    *pieces, rest = given.split(PLACEHOLDER)
    for i, piece in enumerate(pieces):
        sign = label[at + len(piece) : at + len(piece) + 1]
        if not label.startswith(piece, at) or sign not in SIGNS.values() or not sign:
            raise FieldError(
                "label",
                f"differs from input before the end of step {i + 1}; it must be the same text with "
                f"+ or - in place of each {PLACEHOLDER}, got {shown(label[at : at + 60])}",
            )
        signs.append(sign == SIGNS[True])
        at += len(piece) + 1
    if label[at:].strip() != rest.strip():
        raise FieldError("label", f"goes on after the last step: {shown(label[at : at + 60])}")
    return tuple(signs)


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    refuse_token(PLACEHOLDER, solution, MATH_SHEPHERD.name)
    first = join_question(solution, solution.steps[0], MATH_SHEPHERD.name)
    steps = (first, *solution.steps[1:])
    signs = [SIGNS[bool(label)] for label in solution.labels or ()]
    own: dict[str, object] = {
        "input": join_steps(steps, [PLACEHOLDER] * len(steps)),
        "label": join_steps(steps, signs),
        QUESTION: solution.question,
    }
    same = solution.layout == MATH_SHEPHERD.name
    return {**own, **(others(solution.fields, "separator") if same else {})}


MATH_SHEPHERD = Layout(
    "math_shepherd",
    "Math-Shepherd: input with ки after each step, label with + or -",
    lambda fields: isinstance(fields.get("input"), str) and isinstance(fields.get("label"), str),
    _read,
    _write,
)
