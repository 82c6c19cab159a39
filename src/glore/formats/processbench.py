"""ProcessBench (Zheng et al. 2024): `id`, `generator`, `problem`, `steps`, `final_answer_correct`,
`label`.

The label is the 0-based index of the first wrong step, or -1 if none is wrong. So the steps after
the first wrong one have no label.
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.errors import shown
from glore.formats.fields import FieldError, Fields, optional_text, others, text, texts, truth
from glore.formats.labelled import Label, LabelledSolution
from glore.formats.layout import MISSING_LABELS, Layout, ReadOptions, UnfitError, WriteOptions

__all__ = ["PROCESSBENCH"]

OWN = ("id", "generator", "problem", "steps", "final_answer_correct", "label")


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    steps = texts(fields, "steps")
    first = fields.get("label")
    if isinstance(first, bool) or not isinstance(first, int) or not -1 <= first < len(steps):
        raise FieldError(
            "label",
            "must be the 0-based index of the first wrong step, or -1 for none, got "
            f"{shown(first)} for {len(steps)} steps",
        )
    labels: tuple[Label, ...] = (True,) * len(steps)
    if first >= 0:
        labels = (*labels[:first], False, *[None] * (len(steps) - first - 1))
    yield LabelledSolution(
        text(fields, "problem"),
        steps,
        labels,
        id=optional_text(fields, "id"),
        generator=optional_text(fields, "generator"),
        correct=truth(fields, "final_answer_correct"),
        layout=PROCESSBENCH.name,
        fields=others(fields, *OWN),
    )


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    labels = solution.labels or ()
    first = labels.index(False) if False in labels else -1
    before = labels[:first] if first >= 0 else labels
    if None in before:
        raise UnfitError("steps without a label before the first wrong one")
    own: dict[str, object] = {
        "id": solution.id,
        "generator": solution.generator,
        "problem": solution.question,
        "steps": list(solution.steps),
        "final_answer_correct": solution.correct,
        "label": first,
    }
    return {**own, **(solution.fields if solution.layout == PROCESSBENCH.name else {})}


def _loses(solution: LabelledSolution) -> str | None:
    labels = solution.labels or ()
    after = labels[labels.index(False) + 1 :] if False in labels else ()
    return "labels after the first wrong step" if any(x is not None for x in after) else None


PROCESSBENCH = Layout(
    "processbench",
    "ProcessBench: problem, steps, label (index of the first wrong step)",
    lambda fields: (
        "problem" in fields
        and isinstance(fields.get("steps"), list)
        and isinstance(fields.get("label"), int)
    ),
    _read,
    _write,
    frozenset({MISSING_LABELS, "id", "generator", "correct"}),
    _loses,
)
