"""OpenRLHF's process rewards: `input` with a placeholder after each step, and a list of labels,
`+` and `-` or numbers, under `label` (or `value`, as in its example).

OpenRLHF removed the layout in March 2026. The placeholder can be chosen (`--placeholder`), since it
must be one token of the model's vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.formats.fields import FieldError, Fields, labels_of, others, text
from glore.formats.joined import (
    QUESTION,
    SIGNS,
    join_question,
    refuse_token,
    split_question,
)
from glore.formats.labelled import Label, LabelledSolution, is_soft
from glore.formats.layout import SOFT_LABELS, Layout, ReadOptions, WriteOptions
from glore.formats.tagged import join_steps, split_tagged

__all__ = ["OPENRLHF"]

NAMES = ("label", "value", "labels")
"""Fields that may hold the labels; the first is OpenRLHF's default."""
WORDS: dict[str, Label] = {"+": True, "-": False}


def _label_field(fields: Fields) -> str | None:
    return next((name for name in NAMES if isinstance(fields.get(name), list)), None)


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    first, *later = split_tagged(text(fields, "input"), options.placeholder, "input")
    name = _label_field(fields)
    if name is None:
        raise FieldError("label", "is missing; it must be a list with one label per placeholder")
    labels = labels_of(fields, name, 1 + len(later), WORDS)
    if len({is_soft(label) for label in labels}) > 1:
        raise FieldError(name, "some are signs and some are numbers; use one kind")
    question, step, separator = split_question(first, fields)
    kept = {**others(fields, "input", name, QUESTION), **separator}
    if name != NAMES[0]:
        kept["label_field"] = name
    yield LabelledSolution(question, (step, *later), labels, layout=OPENRLHF.name, fields=kept)


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    refuse_token(options.placeholder, solution, OPENRLHF.name)
    kept = solution.fields if solution.layout == OPENRLHF.name else {}
    first = join_question(solution, solution.steps[0], OPENRLHF.name)
    steps = (first, *solution.steps[1:])
    labels = list(solution.labels or ())
    soft = any(map(is_soft, labels))
    own: dict[str, object] = {
        "input": join_steps(steps, [options.placeholder] * len(steps)),
        str(kept.get("label_field", NAMES[0])): [
            float(x or 0.0) if soft and not isinstance(x, str) else SIGNS[bool(x)] for x in labels
        ],
        QUESTION: solution.question,
    }
    return {**own, **others(kept, "separator", "label_field")}


OPENRLHF = Layout(
    "openrlhf",
    "OpenRLHF: input with a placeholder after each step, label as a list of +, - or numbers",
    lambda fields: isinstance(fields.get("input"), str) and _label_field(fields) is not None,
    _read,
    _write,
    frozenset({SOFT_LABELS}),
)
