"""Our own layout, one object per solution, in which everything survives.

`question` and `steps` are needed (or `solution`, a text whose non-empty lines are the steps). The
fields of `LabelledSolution` stand under their names where they are known; `source` holds what only
another layout has a place for. A label is true, false, "neutral", a number from 0 to 1, or null. In
Parquet, whose columns have one type, hard labels are the words good, bad and neutral.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from glore.errors import shown
from glore.formats.fields import (
    FieldError,
    Fields,
    labels_of,
    optional_text,
    text,
    texts,
    truth,
)
from glore.formats.labelled import NEUTRAL, Label, LabelledSolution, RolloutCount
from glore.formats.layout import (
    COUNTS,
    KEPT,
    MISSING_LABELS,
    NEUTRAL_LABELS,
    NO_LABELS,
    SOFT_LABELS,
    Layout,
    ReadOptions,
    WriteOptions,
)
from glore.prompts import split_steps

__all__ = ["PLAIN"]

WORDS: dict[str, Label] = {"good": True, "bad": False, NEUTRAL: NEUTRAL}
TEXTS = ("id", "answer", "generator")
OWN = ("question", "steps", "solution", "labels", *TEXTS, "correct", COUNTS, KEPT, "source")


def _read(fields: Fields, options: ReadOptions) -> Iterable[LabelledSolution]:
    if fields.get("steps") is not None:
        steps = texts(fields, "steps")
    else:
        steps = split_steps(text(fields, "solution"))
        if not steps:
            raise FieldError("solution", "has no step")
    n = len(steps)
    layout, own = _source(fields)
    labels = None
    if fields.get("labels") is not None:
        labels = labels_of(fields, "labels", n, WORDS, missing=True)
    kept = None
    if fields.get(KEPT) is not None:
        kept = tuple(label is True for label in labels_of(fields, KEPT, n, {}))
    unknown = {k: v for k, v in fields.items() if k not in OWN and v is not None}
    yield LabelledSolution(
        text(fields, "question"),
        steps,
        labels,
        **{name: optional_text(fields, name) for name in TEXTS},
        correct=truth(fields, "correct"),
        counts=_counts(fields, n),
        kept=kept,
        layout=layout or (PLAIN.name if unknown else None),
        fields=own or unknown,
    )


def _source(fields: Fields) -> tuple[str | None, Fields]:
    """Layout and fields of another layout; in Parquet they are a JSON text."""
    source = fields.get("source")
    if isinstance(source, str):
        try:
            source = json.loads(source)
        except (ValueError, RecursionError) as error:
            raise FieldError("source", f"is no JSON text ({error})") from error
    if source is None:
        return None, {}
    if not isinstance(source, dict) or not isinstance(source.get("fields"), dict):
        raise FieldError("source", f"must be an object with layout and fields, got {shown(source)}")
    return text(source, "layout"), cast(Fields, source["fields"])


def _counts(fields: Fields, n_steps: int) -> tuple[RolloutCount | None, ...] | None:
    found = fields.get(COUNTS)
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != n_steps:
        raise FieldError(COUNTS, f"must be a list of {n_steps} entries, one per step")
    return tuple(_count(f"{COUNTS}[{i}]", item) for i, item in enumerate(found))


def _count(where: str, item: object) -> RolloutCount | None:
    if item is None:
        return None
    match item:
        case [int(right), int(drawn)] if 0 <= right <= drawn:
            return right, drawn
    raise FieldError(where, f"must be [right, drawn] or null, got {shown(item)}")


def _write(solution: LabelledSolution, options: WriteOptions) -> dict[str, object]:
    known: dict[str, object] = {
        "id": solution.id,
        "question": solution.question,
        "steps": list(solution.steps),
        "labels": _labels(solution, options),
        "answer": solution.answer,
        "correct": solution.correct,
        "generator": solution.generator,
        COUNTS: solution.counts and [list(c) if c else None for c in solution.counts],
        KEPT: solution.kept and list(solution.kept),
    }
    row = {k: v for k, v in known.items() if v is not None or options.columnar}
    if solution.layout == PLAIN.name:
        return {**row, **solution.fields}
    if solution.layout is not None and solution.fields:
        source = {"layout": solution.layout, "fields": dict(solution.fields)}
        row["source"] = json.dumps(source, ensure_ascii=False) if options.columnar else source
    return row


def _labels(solution: LabelledSolution, options: WriteOptions) -> list[object] | None:
    """Labels as JSON values. In Parquet they are of one type, so hard ones are words there."""
    if solution.labels is None:
        return None
    names = {True: "good", False: "bad"} if options.columnar else {True: True, False: False}
    return [names[x] if isinstance(x, bool) else x for x in solution.labels]


def _detects(fields: Fields) -> bool:
    has_steps = isinstance(fields.get("steps"), list) or isinstance(fields.get("solution"), str)
    return "question" in fields and has_steps and "process" not in fields


PLAIN = Layout(
    "jsonl",
    "plain: question, steps, labels and all else that is known",
    _detects,
    _read,
    _write,
    frozenset(
        {
            *(SOFT_LABELS, NEUTRAL_LABELS, MISSING_LABELS, NO_LABELS),
            *(*TEXTS, "correct", COUNTS, KEPT, "fields"),
        }
    ),
)
