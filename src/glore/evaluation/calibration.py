"""Calibration: do the reward models' probabilities agree with the share of good cases?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glore.evaluation.inputs import EvaluationInputs, Index
from glore.evaluation.reward_models import ALL_STEPS, final_cases, step_cases

__all__ = [
    "ANSWERS",
    "STEPS_BY_LABELS",
    "STEPS_BY_TRUTH",
    "Calibration",
    "CalibrationBin",
    "calibrations",
]

N_BINS = 10

ANSWERS = "final answers of drafts"
STEPS_BY_LABELS, STEPS_BY_TRUTH = "steps against labels", "steps against truth"
"""What a calibration is about."""


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Cases whose probability falls into [low, high)."""

    low: float
    high: float
    n: int
    mean_p: float | None
    share_good: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of one model's probabilities."""

    model: str
    what: str
    """ANSWERS, STEPS_BY_LABELS or STEPS_BY_TRUTH."""
    bins: tuple[CalibrationBin, ...]
    n: int
    expected_error: float
    """Mean |share good − mean probability| over the bins, weighted by n."""


def calibrations(inputs: EvaluationInputs, index: Index) -> tuple[Calibration, ...]:
    """Calibration of every model on final answers, on steps against the labels, and on steps
    against the truth.
    """
    out = []
    for what, cases in (
        (ANSWERS, final_cases(index)),
        (STEPS_BY_LABELS, step_cases(index, inputs.draft_labels, ALL_STEPS)),
        (STEPS_BY_TRUTH, step_cases(index, inputs.draft_truth, ALL_STEPS)),
    ):
        out += [_calibration(model, what, p, cases.good) for model, p in cases.p.items() if p]
    return tuple(out)


def _calibration(model: str, what: str, p: Sequence[float], good: Sequence[bool]) -> Calibration:
    p_U, good_U = np.asarray(p, dtype=np.float64), np.asarray(good, dtype=np.float64)
    row_U = np.minimum((p_U * N_BINS).astype(int), N_BINS - 1)
    bins, error = [], 0.0
    for i in range(N_BINS):
        inside = row_U == i
        n = int(inside.sum())
        mean_p, share = (
            (float(p_U[inside].mean()), float(good_U[inside].mean())) if n else (None, None)
        )
        bins.append(CalibrationBin(i / N_BINS, (i + 1) / N_BINS, n, mean_p, share))
        error += n * abs(mean_p - share) if mean_p is not None and share is not None else 0.0
    return Calibration(model, what, tuple(bins), len(p_U), error / max(1, len(p_U)))
