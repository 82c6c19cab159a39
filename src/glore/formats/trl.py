"""TRL's stepwise supervision: `prompt`, `completions`, `labels` (true and false, or probabilities).

TRL removed the layout in version 1.14 (September 2026). Its schema lives on in
`trl_stepwise.v1.json` beside this file. In TRL a soft label became 0 or 1 (`int(label)`).
"""

from __future__ import annotations

from collections.abc import Iterable

from glore.formats.fields import FieldError, Fields, labels_of, others, text, texts
from glore.formats.labelled import LabelledSolution, is_soft
from glore.formats.layout import SOFT_LABELS, Layout, ReadOptions, WriteOptions

__all__ = ["SCHEMA_FILE", "TRL"]

SCHEMA_FILE = "trl_stepwise.v1.json"
OWN = ("prompt", "completions", "labels")


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    steps = texts(fields, "completions")
    labels = labels_of(fields, "labels", len(steps), {})
    if len({is_soft(label) for label in labels}) > 1:
        raise FieldError("labels", "some are true or false and some are numbers; use one kind")
    yield LabelledSolution(
        text(fields, "prompt"), steps, labels, layout=TRL.name, fields=others(fields, *OWN)
    )


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    labels = list(solution.labels or ())
    if any(map(is_soft, labels)):  # one kind a row, so 1.0 stands for true
        labels = [float(label) if isinstance(label, bool) else label for label in labels]
    own = {"prompt": solution.question, "completions": list(solution.steps), "labels": labels}
    return {**own, **(solution.fields if solution.layout == TRL.name else {})}


TRL = Layout(
    "trl",
    "TRL's stepwise supervision: prompt, completions, labels",
    lambda fields: "prompt" in fields and isinstance(fields.get("completions"), list),
    _read,
    _write,
    frozenset({SOFT_LABELS}),
)
