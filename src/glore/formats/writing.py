"""Solutions with labels → a file in a layout, and what was lost on the way.

A label of a kind that the layout does not hold is never changed silently. Soft labels are refused
unless a threshold is given. A neutral label becomes good (or bad), as PRM800K's users do, and is
counted. A solution with a step without a label is left out and counted where the layout needs all
labels; on request it is cut after its last labelled step instead.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from glore.errors import DataError, shown
from glore.formats.labelled import NEUTRAL, Label, LabelledSolution, is_soft
from glore.formats.layout import (
    COUNTS,
    KEPT,
    MISSING_LABELS,
    NEUTRAL_LABELS,
    NO_LABELS,
    PLACEHOLDER,
    SOFT_LABELS,
    Layout,
    UnfitError,
    WriteOptions,
)
from glore.formats.registry import find_layout
from glore.formats.rows import is_columnar, write_rows

__all__ = ["MISSING_AS", "NEUTRAL_AS", "UNLABELLED_STEP", "Written", "write_solutions"]

NEUTRAL_AS: Mapping[str, Label] = {"good": True, "bad": False, "missing": None}
UNLABELLED_STEP = "with a step without a label"
"""Why most solutions that a layout has no place for are left out."""
MISSING_AS = ("leave_out", "cut")
NAMES = {
    "id": "ids",
    "answer": "gold answers",
    "correct": "whether the final answer is right",
    "generator": "names of generators",
    COUNTS: "counts of rollouts",
    KEPT: "which labels balancing kept",
    "fields": "other fields of the source",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What was written, and what of it the layout could not hold."""

    layout: str
    n_solutions: int
    n_steps: int
    left_out: Mapping[str, int]
    """Reason → solutions that were not written."""
    lost: Mapping[str, int]
    """What was lost → solutions that had it."""


def write_solutions(
    path: Path,
    solutions: Iterable[LabelledSolution],
    layout: str,
    *,
    threshold: float | None = None,
    neutral: str = "good",
    missing: str = "leave_out",
    placeholder: str = PLACEHOLDER,
) -> Written:
    """Write solutions to a file, whole or not at all: Parquet, one JSON array (`.json`) or JSON
    lines, by the suffix. An existing file is replaced. Solutions are taken one at a time.

    `threshold`: a soft label above it is good where the layout has hard labels only. `neutral`: a
    key of `NEUTRAL_AS`. `missing`: one of `MISSING_AS`. Raises DataError for soft labels without a
    threshold, for a text that the layout would read as its token, and if nothing could be
    written.
    """
    found = find_layout(layout)
    options = _checked(
        WriteOptions(placeholder, threshold, neutral, missing, is_columnar(Path(path)))
    )
    left_out: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    written = [0, 0]

    def rows() -> Iterator[dict[str, object]]:
        number = 0
        for number, solution in enumerate(solutions, start=1):
            try:
                fitted, losses = _fitted(solution, found, options)
                row = found.write(fitted, options)
            except UnfitError as why:
                left_out[str(why)] += 1
                continue
            except DataError as error:
                raise DataError(f"solution {number}: {error}") from error
            written[0] += 1
            written[1] += len(fitted.steps)
            lost.update(dict.fromkeys(losses, 1))
            yield row
        if not written[0]:
            reasons = "; ".join(f"{n} {why}" for why, n in left_out.items()) or "there are none"
            raise DataError(f"no solution fits the layout {found.name}: {reasons}")

    write_rows(Path(path), rows())
    return Written(found.name, written[0], written[1], dict(left_out), dict(lost))


def _checked(options: WriteOptions) -> WriteOptions:
    if options.threshold is not None and not 0 <= options.threshold < 1:
        raise DataError(f"the threshold must be from 0 to below 1, got {options.threshold}")
    if options.neutral not in NEUTRAL_AS:
        raise DataError(
            f"neutral labels can become {', '.join(NEUTRAL_AS)}, got {shown(options.neutral)}"
        )
    if options.missing not in MISSING_AS:
        raise DataError(
            f"solutions with steps without a label can be {' or '.join(MISSING_AS)}, got "
            f"{shown(options.missing)}"
        )
    if not options.placeholder.strip() or options.placeholder != options.placeholder.strip():
        raise DataError(
            "the placeholder must be a text without blanks around it, got "
            f"{shown(options.placeholder)}"
        )
    return options


def _fitted(
    solution: LabelledSolution, layout: Layout, options: WriteOptions
) -> tuple[LabelledSolution, list[str]]:
    """The solution with labels of kinds that the layout holds, and what was lost. Raises UnfitError
    if it has no place for it, DataError for a soft label without a threshold.
    """
    if not solution.steps:
        raise UnfitError("without steps")
    losses = [NAMES[name] for name in NAMES if name not in layout.holds and _has(solution, name)]
    if solution.layout == layout.name and NAMES["fields"] in losses:
        losses.remove(NAMES["fields"])
    labels = solution.labels
    if labels is None and NO_LABELS not in layout.holds:
        raise UnfitError("without labels")
    if labels is not None:
        labels = tuple(_fitted_label(label, layout, options, losses) for label in labels)
    fitted = dataclasses.replace(solution, labels=labels)
    if labels is not None and None in labels and MISSING_LABELS not in layout.holds:
        fitted = _cut(fitted, options)
        losses.append("steps without a label at the end, cut")
    if reason := layout.loses(fitted):
        losses.append(reason)
    return fitted, losses


def _cut(solution: LabelledSolution, options: WriteOptions) -> LabelledSolution:
    """The solution up to its last label. Raises UnfitError unless all its steps have one then."""
    labels = solution.labels or ()
    n = labels.index(None)
    if options.missing != "cut" or n == 0 or any(label is not None for label in labels[n:]):
        raise UnfitError(UNLABELLED_STEP)
    return dataclasses.replace(
        solution,
        steps=solution.steps[:n],
        labels=labels[:n],
        counts=solution.counts and solution.counts[:n],
        kept=solution.kept and solution.kept[:n],
    )


def _fitted_label(label: Label, layout: Layout, options: WriteOptions, losses: list[str]) -> Label:
    if label == NEUTRAL and NEUTRAL_LABELS not in layout.holds:
        losses.append(f"neutral labels, now {options.neutral}")
        return NEUTRAL_AS[options.neutral]
    if is_soft(label) and SOFT_LABELS not in layout.holds:
        if options.threshold is None:
            raise DataError(
                f"has the soft label {label}, and the layout {layout.name} has hard labels only; "
                "give --threshold 0.5 to make them hard, or choose trl, openrlhf or jsonl"
            )
        losses.append(f"soft labels, now hard at {options.threshold:g}")
        return isinstance(label, float) and label > options.threshold
    return label


def _has(solution: LabelledSolution, name: str) -> bool:
    value = getattr(solution, name)
    return bool(value) if name == "fields" else value is not None
