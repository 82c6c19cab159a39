"""Axes of charts: where a number lies, and which marks an axis has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from glore.statistics import Estimate

__all__ = ["percents", "span", "ticks", "x_axis"]


def x_axis(
    values: Sequence[float], left: float, right: float, *, is_log: bool = False, whole: bool = False
) -> tuple[Callable[[float], float], list[float]]:
    """Where a number lies between `left` and `right`, and the marks of the axis, whose labels do
    not overlap. `whole`: the axis goes from 0 to 1, as for calibration.
    """
    found = [0.0, 1.0] if whole else sorted(set(values))
    is_log = is_log and found[0] > 0
    place = math.log if is_log else float
    low, high = place(found[0]), place(found[-1])

    def x(value: float) -> float:
        share = (place(value) - low) / (high - low) if high > low else 0.5
        return left + share * (right - left)

    kept: list[float] = []
    for mark in _x_marks(found, is_log, own=not whole):
        if not kept or x(mark) - x(kept[-1]) > 8 + 3.3 * len(f"{kept[-1]:g}{mark:g}"):
            kept.append(mark)
    return x, kept


def _x_marks(found: Sequence[float], is_log: bool, own: bool) -> list[float]:
    """The numbers themselves (`own`) if they are few and short, else round ones between them."""
    low, high = found[0], found[-1]
    if own and len(found) <= 8 and all(len(f"{v:g}") <= 4 for v in found):
        return list(found)
    if is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1,), (1, 3), (1, 2, 5)):
            marks = [f * 10.0**e for e in powers for f in factors if low <= f * 10.0**e <= high]
            if len(marks) > 2:
                return marks
    elif high > low:
        step = _round_step((high - low) / 6)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]
    return [low, high]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))


def span(values: Sequence[Estimate]) -> tuple[float, float]:
    """Ends of an axis that shows all values and intervals, at round shares."""
    ends = [e for v in values for e in (v.low, v.value, v.high) if e is not None]
    step = 0.1 if max(ends) - min(ends) > 0.3 else 0.05
    low = math.floor(min(ends) / step + 1e-9) * step
    return low, max(math.ceil(max(ends) / step - 1e-9) * step, low + step)


def ticks(low: float, high: float) -> list[float]:
    """Marks of an axis of shares; as `svg.ticks`, and further apart on a long one."""
    length = high - low
    step = (
        0.05
        if length <= 0.3
        else 0.1
        if length <= 1.0 + 1e-9
        else max(0.25, _round_step(length / 8))
    )
    return [low + step * i for i in range(int((high - low) / step + 1e-6) + 1)]


def percents(share: float, digits: int = 0) -> str:
    return (
        f"{100 * share + 0.0:.{digits}f}".replace("-0", "0", 1)
        if abs(share) < 5e-4
        else f"{100 * share:.{digits}f}".replace("-", "−")
    )
