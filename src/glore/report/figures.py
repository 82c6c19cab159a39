"""An evaluation → its figures as inline SVG: accuracies, fixed and broken, overlap, rerank curves,
calibration, label balance.

Colours are the Okabe-Ito set, which colour-blind readers can distinguish; lines differ in dashes
and marks as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from glore.evaluation import Evaluation
from glore.evaluation.calibration import ANSWERS, STEPS_BY_LABELS, STEPS_BY_TRUTH
from glore.evaluation.headline import accuracy
from glore.evaluation.inputs import ORM, SORM
from glore.evaluation.refinement import GREEDY, PERFECT, PERFECT_BEST_OF, RERANKED
from glore.report import svg
from glore.report.judging_figures import balance_figure, calibration_figure, curves_figure
from glore.report.views import MODEL_NAMES, REFINER_NAMES, WAY_NAMES, percent

__all__ = ["figures"]

WIDTH = svg.WIDTH
_WAY_COLOURS = {RERANKED: "sorm", PERFECT: "pass", PERFECT_BEST_OF: "pass"}
"""Way of Fig. 4 → class of the style sheet; all others: `orm`."""
Figure = tuple[str, str, str]
"""Title, caption, SVG."""


def figures(e: Evaluation) -> list[Figure]:
    """All figures that can be drawn from the evaluation, in the order of reading."""
    out: list[Figure] = []
    if e.figure4:
        caption = (
            "Share of test questions answered right, with 95 % intervals. "
            "The dotted line is the greedy draft."
        )
        out.append(("Accuracy after reranking (Fig. 4)", caption, _accuracies(e)))
    if e.figure3:
        caption = (
            "Drafts that a refiner turns right (fixed) or wrong (broken) "
            "when it refines all of them, without a reranker."
        )
        out.append(("Fixed and broken (Fig. 3)", caption, _fixed_broken(e)))
    if e.overlap is not None:
        out.append(
            (
                "Who fixes which wrong draft",
                "Global refinement, local refinement marked by the SORM, both, or neither.",
                _overlap(e),
            )
        )
    if e.curves:
        caption = (
            "Accuracy when one of K samples is chosen. pass@K: at least one is right. "
            "Bands: 95 % intervals."
        )
        out.append(("Reranking samples", caption, curves_figure(e.curves)))
    for model, what in (
        (ORM, ANSWERS),
        (SORM, STEPS_BY_LABELS),
        (SORM, STEPS_BY_TRUTH),
    ):
        found = next((c for c in e.calibrations if c.model == model and c.what == what), None)
        if found is not None and found.n:
            error = f"{100 * found.expected_error:.1f} points"
            caption = (
                f"Predicted probability against the share that is good, n = {found.n}. "
                f"Expected calibration error: {error}."
            )
            out.append(
                (f"Calibration: {MODEL_NAMES[model]}, {what}", caption, calibration_figure(found))
            )
    if e.balance:
        caption = (
            "Training labels of the SORM at each position of a solution. "
            "Left bar: before balancing. Right bar: after."
        )
        out.append(("Label balance per step", caption, balance_figure(e.balance)))
    return out


def _accuracies(e: Evaluation) -> str:
    left, right, top, row = 214.0, WIDTH - 50, 8.0, 32.0
    height = top + row * len(e.figure4) + 34
    lows = [r.accuracy.low or 0.0 for r in e.figure4]
    highs = [r.accuracy.high or 0.0 for r in e.figure4]
    low, high = math.floor(min(lows) * 20) / 20, math.ceil(max(highs) * 20) / 20
    high = max(high, low + 0.05)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    shapes = [*_x_grid(low, high, x, top, height - 28)]
    greedy = accuracy(e, GREEDY)
    if greedy is not None and greedy.value is not None:
        shapes.append(svg.line(x(greedy.value), top, x(greedy.value), height - 28, "reference"))
    for i, r in enumerate(e.figure4):
        y = top + row * (i + 0.5)
        value, r_low, r_high = (
            r.accuracy.value or 0.0,
            r.accuracy.low or 0.0,
            r.accuracy.high or 0.0,
        )
        kind = _WAY_COLOURS.get(r.way, "orm")
        words = WAY_NAMES[r.way].format(k=e.options.best_of).partition(", ")
        shapes += [
            svg.text(left - 12, y - 2 if words[2] else y + 4, words[0], "end"),
            svg.text(left - 12, y + 11, words[2], "end", "muted small"),
            svg.line(x(r_low), y, x(r_high), y, f"whisker {kind}"),
            svg.circle(
                x(value), y, 5, f"dot {kind}", f"{percent(r.accuracy)} %, n = {r.accuracy.n}"
            ),
            svg.text(WIDTH - 2, y + 4, f"{100 * value:.1f} %", "end"),
        ]
    return svg.figure(WIDTH, height, "Accuracy of each way to answer", *shapes)


def _fixed_broken(e: Evaluation) -> str:
    row, top = 46.0, 22.0
    centre, half = WIDTH / 2 + 35, WIDTH / 2 - 110  # the text on the left stays clear of the bars
    most = max(1, *(max(r.fixed, r.broken) for r in e.figure3))
    height = top + row * len(e.figure3) + 4
    shapes = [
        svg.text(centre - 8, 12, "broken", "end", "muted"),
        svg.text(centre + 8, 12, "fixed", "start", "muted"),
    ]
    for i, r in enumerate(e.figure3):
        y = top + row * i
        broken, fixed = half * r.broken / most, half * r.fixed / most
        unrefined = f" · {r.unrefined} without" if r.unrefined else ""
        shapes += [
            svg.text(0, y + 14, REFINER_NAMES[r.refiner]),
            svg.text(0, y + 28, f"net {r.fixed - r.broken:+d}{unrefined}", "start", "muted small"),
            svg.rect(
                centre - broken,
                y + 2,
                broken,
                24,
                "fill bad",
                f"broken: {r.broken} of {r.broken + r.still_right} right drafts",
            ),
            svg.rect(
                centre,
                y + 2,
                fixed,
                24,
                "fill good",
                f"fixed: {r.fixed} of {r.fixed + r.still_wrong} drafts that are not right",
            ),
            svg.text(centre - broken - 6, y + 18, str(r.broken), "end"),
            svg.text(centre + fixed + 6, y + 18, str(r.fixed)),
        ]
    shapes.append(svg.line(centre, top - 4, centre, height - 8, "axis"))
    return svg.figure(WIDTH, height, "Drafts fixed and broken by each refiner", *shapes)


def _overlap(e: Evaluation) -> str:
    assert e.overlap is not None
    o = e.overlap
    parts = (
        ("only global", o.only_global, "orm"),
        ("both", o.both, "both"),
        ("only local", o.only_local, "sorm"),
        ("neither", o.neither, "none"),
    )
    total = max(1, sum(n for _, n, _ in parts))
    shapes, x = [], 0.0
    for i, (name, n, kind) in enumerate(parts):
        width = WIDTH * n / total
        shapes.append(svg.rect(x, 0, width, 34, f"fill {kind}", f"{name}: {n}"))
        y = 58 + 20 * (i // 2)
        place = WIDTH / 2 * (i % 2)
        shapes.append(svg.rect(place, y - 10, 12, 12, f"fill {kind}"))
        shapes.append(svg.text(place + 18, y, f"{name}: {n} ({100 * n / total:.1f} %)"))
        x += width
    return svg.figure(WIDTH, 86, "Overlap of global and local refinement", *shapes)


def _x_grid(
    low: float, high: float, x: Callable[[float], float], top: float, bottom: float
) -> list[str]:
    shapes = []
    for tick in svg.ticks(low, high):
        shapes += [
            svg.line(x(tick), top, x(tick), bottom, "grid"),
            svg.text(x(tick), bottom + 18, f"{100 * tick:.0f}", "middle", "muted"),
        ]
    return shapes
