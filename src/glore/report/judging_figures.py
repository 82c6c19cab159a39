"""Figures about the reward models as inline SVG: rerank curves, calibration, label balance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from glore.evaluation.calibration import Calibration
from glore.evaluation.label_agreement import StepBalance
from glore.evaluation.rerank_curves import CurvePoint
from glore.report import svg
from glore.report.views import MODEL_NAMES, percent

__all__ = ["balance_figure", "calibration_figure", "curves_figure"]

WIDTH = svg.WIDTH


def curves_figure(points: Sequence[CurvePoint]) -> str:
    """Accuracy against K, one curve per way to choose."""
    left, right, top, bottom = 40.0, WIDTH - 12, 12.0, 226.0
    ways = list(dict.fromkeys(p.way for p in points))
    ks = sorted({p.k for p in points})
    lows, highs = [p.accuracy.low or 0.0 for p in points], [p.accuracy.high or 0.0 for p in points]
    low, high = math.floor(min(lows) * 10) / 10, math.ceil(max(highs) * 10) / 10
    high = max(high, low + 0.1)

    def x(k: int) -> float:
        return left + (math.log(k) / math.log(ks[-1]) if ks[-1] > 1 else 0.5) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    shapes = []
    for tick in svg.ticks(low, high):
        shapes += [
            svg.line(left, y(tick), right, y(tick), "grid"),
            svg.text(left - 6, y(tick) + 4, f"{100 * tick:.0f}", "end", "muted"),
        ]
    shapes += [svg.text(x(k), bottom + 16, str(k), "middle", "muted") for k in ks]
    shapes.append(svg.axis_label((left + right) / 2, bottom + 32, "K samples"))
    for way in ways:
        mine = sorted((p for p in points if p.way == way), key=lambda p: p.k)
        upper = [(x(p.k), y(p.accuracy.high or 0.0)) for p in mine]
        lower = [(x(p.k), y(p.accuracy.low or 0.0)) for p in reversed(mine)]
        shapes.append(svg.polygon(upper + lower, f"band {way}"))
        shapes.append(
            svg.path([(x(p.k), y(p.accuracy.value or 0.0)) for p in mine], f"curve {way}")
        )
        shapes += [
            svg.circle(
                x(p.k),
                y(p.accuracy.value or 0.0),
                3,
                f"dot {way}",
                f"{MODEL_NAMES[way]}, K = {p.k}: {percent(p.accuracy)} %",
            )
            for p in mine
        ]
    for i, way in enumerate(ways):
        place, level = 20 + (i % 3) * 155.0, bottom + 56 + 18 * (i // 3)
        shapes += [
            svg.path([(place, level - 4), (place + 26, level - 4)], f"curve {way}"),
            svg.text(place + 32, level, MODEL_NAMES[way]),
        ]
    return svg.figure(WIDTH, bottom + 80, "Accuracy against the number of samples", *shapes)


def calibration_figure(c: Calibration) -> str:
    """Predicted probability against the share that is good, with the bins' sizes below."""
    left, top, side, bar = 44.0, 8.0, 220.0, 40.0
    width = WIDTH - left - 14
    most = max(1, *(b.n for b in c.bins))

    def x(value: float) -> float:
        return left + value * width

    def y(value: float) -> float:
        return top + side - value * side

    shapes = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        shapes += [
            svg.line(left, y(tick), left + width, y(tick), "grid"),
            svg.text(left - 6, y(tick) + 4, f"{tick:g}", "end", "muted"),
        ]
        shapes.append(svg.text(x(tick), top + side + bar + 28, f"{tick:g}", "middle", "muted"))
    shapes.append(svg.line(x(0), y(0), x(1), y(1), "reference"))
    filled = [
        (b, b.mean_p, b.share_good)
        for b in c.bins
        if b.mean_p is not None and b.share_good is not None
    ]
    shapes.append(svg.path([(x(p), y(g)) for _, p, g in filled], f"curve {c.model}"))
    for b, p, good in filled:
        tip = f"predicted {p:.2f}, good {good:.2f}, n = {b.n}"
        shapes.append(
            svg.circle(x(p), y(good), 3 + 5 * math.sqrt(b.n / most), f"dot {c.model}", tip)
        )
    for b in c.bins:
        size = bar * b.n / most
        shapes.append(
            svg.rect(
                x(b.low) + 1,
                top + side + 12 + bar - size,
                width / len(c.bins) - 2,
                size,
                "fill none",
                f"n = {b.n}",
            )
        )
    shapes.append(
        svg.axis_label(
            left + width / 2, top + side + bar + 44, "predicted probability (bars: how often)"
        )
    )
    shapes.append(svg.text(left + 6, top + 12, "share that is good", "start", "muted"))
    return svg.figure(
        WIDTH, top + side + bar + 50, f"Calibration of {MODEL_NAMES[c.model]}", *shapes
    )


def balance_figure(balance: Sequence[StepBalance]) -> str:
    """Labels at each position of a solution, before and after balancing."""
    left, top, side = 44.0, 12.0, 180.0
    most = max(1, *(b.n_positive + b.n_negative for b in balance))
    slot = (WIDTH - left - 8) / len(balance)
    bar = min(26.0, slot * 0.38)
    shapes = []
    for i in range(5):
        level = top + side - side * i / 4
        shapes += [
            svg.line(left, level, WIDTH, level, "grid"),
            svg.text(left - 6, level + 4, f"{most * i / 4:,.0f}", "end", "muted"),
        ]
    every = math.ceil(len(balance) / 16)
    for i, b in enumerate(balance):
        centre = left + slot * (i + 0.5)
        for start, good, bad, when in (
            (centre - bar - 1, b.n_positive, b.n_negative, "before"),
            (centre + 1, b.n_kept_positive, b.n_kept_negative, "after"),
        ):
            good_size, bad_size = side * good / most, side * bad / most
            shapes.append(
                svg.rect(
                    start,
                    top + side - good_size,
                    bar,
                    good_size,
                    "fill good",
                    f"step {b.step + 1}, {when}: {good} good",
                )
            )
            shapes.append(
                svg.rect(
                    start,
                    top + side - good_size - bad_size,
                    bar,
                    bad_size,
                    "fill bad",
                    f"step {b.step + 1}, {when}: {bad} bad",
                )
            )
        if i % every == 0:
            shapes.append(svg.text(centre, top + side + 16, str(b.step + 1), "middle", "muted"))
    shapes.append(svg.axis_label((left + WIDTH) / 2, top + side + 32, "step"))
    level = top + side + 52
    for place, kind, name in ((left, "good", "good"), (left + 80, "bad", "bad")):
        shapes += [
            svg.rect(place, level - 10, 12, 12, f"fill {kind}"),
            svg.text(place + 18, level, name),
        ]
    return svg.figure(WIDTH, level + 6, "Positive and negative labels per step", *shapes)
