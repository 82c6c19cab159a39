"""openr (Wang et al. 2024): `question`, `process`, `label`.

`process` is the solution in one text, with a step tag after each step: a space and five newlines
(MATH-APS and later data), or ` ки` and a newline (its first data). `label` is a list of `+` and
`-`; the first data has 1 and 0 under `labels`. Both are read; the later form is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.errors import shown
from glore.formats.fields import FieldError, Fields, labels_of, others, text
from glore.formats.joined import SIGNS, refuse_token
from glore.formats.labelled import Label, LabelledSolution, is_soft
from glore.formats.layout import PLACEHOLDER, Layout, ReadOptions, WriteOptions
from glore.formats.tagged import split_tagged

__all__ = ["OPENR"]

NEWLINES = "\n" * 5
TAG = f" {NEWLINES}"
NAMES = ("label", "labels")
WORDS: dict[str, Label] = {"+": True, "-": False}


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    name = next((n for n in NAMES if isinstance(fields.get(n), list)), None)
    if name is None:
        raise FieldError("label", "is missing; it must be a list with one label per step")
    steps = _steps(text(fields, "process"))
    labels = labels_of(fields, name, len(steps), WORDS)
    if any(map(is_soft, labels)):
        raise FieldError(name, f"must be +, -, 1 or 0, got {shown(fields[name])}")
    yield LabelledSolution(
        text(fields, "question"),
        tuple(steps),
        labels,
        layout=OPENR.name,
        fields=others(fields, "question", "process", name),
    )


def _steps(process: str) -> list[str]:
    for tag in (TAG, NEWLINES):
        *steps, rest = process.split(tag)
        if steps and not rest:
            return steps
    if PLACEHOLDER not in process:
        raise FieldError("process", f"has no step tag at its end (five newlines, or {PLACEHOLDER})")
    return split_tagged(process, PLACEHOLDER, "process")


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    refuse_token(NEWLINES, solution, OPENR.name)
    same = solution.layout == OPENR.name
    return {
        "question": solution.question,
        "process": "".join(step + TAG for step in solution.steps),
        "label": [SIGNS[bool(label)] for label in solution.labels or ()],
        **(solution.fields if same else {}),
    }


OPENR = Layout(
    "openr",
    "openr: question, process with a tag after each step, label as a list of + and -",
    lambda fields: "question" in fields and isinstance(fields.get("process"), str),
    _read,
    _write,
)
