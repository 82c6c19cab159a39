"""What the study `processbench` measures: the first wrong step found, by threshold, and F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glore.formats.labelled import Label
from glore.solution_files.judging import Agreement, FirstErrors
from glore.studies.measured import Measured, number, share
from glore.studies.processbench.judged import TRAINING, Judged

__all__ = ["OVERALL", "TABLE", "best_threshold", "measured"]

TABLE, OVERALL = "processbench", "processbench-average"
GRID = tuple(round(0.01 * i, 2) for i in range(1, 100))


def measured(name: str, judged: Sequence[Judged], calibrate: str, default: float) -> list[Measured]:
    """The numbers of a model, `name`, on every file. `calibrate`: the threshold is chosen on the
    files whose names have this in them; there is none: `default`.
    """
    files = list(dict.fromkeys(j.file for j in judged))
    chosen = [j for j in judged if calibrate.lower() in j.file.lower()]
    t = best_threshold(chosen, default)
    n_chosen = len(chosen) if len({j.error is None for j in chosen}) > 1 else 0
    found, f1s = [], []
    for file in files:
        mine = [j for j in judged if j.file == file]
        row = (name, file)
        by_t = _first_errors(mine, t)
        f1s.append(by_t.f1.value)
        n_error = sum(j.error is not None for j in mine)
        found += [
            number(TABLE, row, "T", t),
            number(TABLE, row, "solutions that chose T", n_chosen, total=True),
            share(TABLE, row, "error accuracy", by_t.wrong),
            share(TABLE, row, "correct accuracy", by_t.right),
            share(TABLE, row, "F1", by_t.f1),
            share(TABLE, row, "F1 at 0.5", _first_errors(mine, 0.5).f1),
            number(TABLE, row, "with an error", n_error, total=True),
            number(TABLE, row, "without", len(mine) - n_error, total=True),
            number(TABLE, row, "too long", sum(j.p is None for j in mine), total=True),
        ]
    known = [f for f in f1s if f is not None]
    held_out = [f for file, f in zip(files, f1s, strict=True) if f is not None and file != TRAINING]
    mean = float(np.mean(held_out or known)) if known else None
    found.append(number(OVERALL, name, "average F1, %", None if mean is None else 100 * mean))
    return found


def best_threshold(judged: Sequence[Judged], default: float = 0.5) -> float:
    """The threshold with the best F1; of several, the one in their middle. `default`: where there
    are no solutions with an error, or none without.
    """
    scores = [(t, f1) for t in GRID if (f1 := _f1(judged, t)) is not None]
    if not scores:
        return default
    best = max(f1 for _, f1 in scores)
    among = [t for t, f1 in scores if f1 == best]
    return among[len(among) // 2]


def _f1(judged: Sequence[Judged], t: float) -> float | None:
    """F1 without an interval."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    for j in judged:
        hits[j.error is None].append(_called(j, t) == j.error)
    if not hits[True] or not hits[False]:
        return None
    right, wrong = (sum(h) / len(h) for h in (hits[True], hits[False]))
    return 2 * right * wrong / (right + wrong) if right + wrong else 0.0


def _called(judged: Judged, t: float) -> int | None:
    """The first step called wrong; -1 without scores, which is never right."""
    if judged.p is None:
        return -1
    return next((i for i, p in enumerate(judged.p) if p <= t), None)


def _first_errors(judged: Sequence[Judged], t: float) -> FirstErrors:
    """The numbers with intervals. A solution without scores is judged wrong."""
    found = Agreement(t, keeps=True)
    for j in judged:
        error = j.error
        known: tuple[Label, ...] = (True,) * (j.n_steps if error is None else error)
        rest: tuple[Label, ...] = (
            () if error is None else (False, *[None] * (j.n_steps - error - 1))
        )
        # Without scores, what misses the label for sure.
        p = j.p if j.p is not None else ((0.0,) if error is None else (1.0,)) * j.n_steps
        found.add(j.question, (*known, *rest), None, p)
    return found.first_errors()
