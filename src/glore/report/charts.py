"""A chart as data, its drawing as SVG, and its numbers as a table. Studies draw all figures so.

Every method has one look in all charts (`looks`). Looks differ in colour (Okabe-Ito), dashes and
marks.

Axes: lines have any number on x (linear or logarithmic) and a share on y. Dots have one row for
each category, and a share on x. Intervals are bands and whiskers.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Literal

from glore.report import axes, svg
from glore.report.looks import looks
from glore.report.views import Cell, TableView, percent
from glore.statistics import Estimate

__all__ = [
    "Chart",
    "DotChart",
    "Dots",
    "Line",
    "LineChart",
    "Point",
    "draw",
    "standalone",
    "table",
]

_STYLE = "chart.css"
MARGIN = 10
"""Around a chart that is a file of its own."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One place on a line."""

    x: float
    y: Estimate


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """The points of one method."""

    name: str
    points: tuple[Point, ...]
    look: str = ""
    """Class of the style sheet; empty: that of its name."""


@dataclasses.dataclass(frozen=True, slots=True)
class LineChart:
    """Shares against a number. Intervals are bands."""

    id: str
    title: str
    caption: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_scale: Literal["linear", "log"] = "linear"
    diagonal: bool = False
    """With the line y = x, as for calibration."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dots:
    """The shares of one category, one for each method."""

    category: str
    values: tuple[tuple[str, Estimate], ...]
    """Name of the method → share."""


@dataclasses.dataclass(frozen=True, slots=True)
class DotChart:
    """Shares of several methods in several categories. Intervals are whiskers."""

    id: str
    title: str
    caption: str
    x_label: str
    rows: tuple[Dots, ...]


Chart = LineChart | DotChart


def draw(chart: Chart) -> str:
    """A chart → inline SVG with classes of the style sheet."""
    return _lines(chart) if isinstance(chart, LineChart) else _dots(chart)


def table(chart: Chart) -> TableView:
    """The numbers of a chart, for its CSV and LaTeX."""
    if isinstance(chart, DotChart):
        rows: list[tuple[Cell, ...]] = [
            (row.category, name, value, value.n) for row in chart.rows for name, value in row.values
        ]
        columns = ("", "method", f"{chart.x_label} [95 %]", "n")
        return TableView(chart.id, chart.title, chart.caption, columns, tuple(rows))
    rows = [
        (line.name, f"{point.x:g}", point.y, point.y.n)
        for line in chart.lines
        for point in line.points
    ]
    columns = ("method", chart.x_label, f"{chart.y_label} [95 %]", "n")
    return TableView(chart.id, chart.title, chart.caption, columns, tuple(rows))


def standalone(chart: Chart) -> str:
    """A chart as an SVG file of its own: with its style and a ground to stand on, light and dark,
    and black on white in print.
    """
    style = files("glore.report").joinpath(_STYLE).read_text(encoding="utf-8")
    head, _, rest = draw(chart).partition(">")
    width, height = (float(n) + 2 * MARGIN for n in re.findall(r"[\d.]+", head)[2:4])
    box = f'viewBox="{-MARGIN} {-MARGIN} {width:g} {height:g}"'
    head = re.sub(r'viewBox="[^"]*"', box, head, count=1)
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="720" ', 1)
    ground = svg.rect(-MARGIN, -MARGIN, width, height, "ground")
    return f"{head}>\n<style>{style}</style>\n{ground}{rest}\n"


def _lines(chart: LineChart) -> str:
    left, right, top, bottom = 46.0, svg.WIDTH - 12, 24.0, 250.0
    points = [p for line in chart.lines for p in line.points if p.y.value is not None]
    if not points:
        return svg.figure(svg.WIDTH, 40, chart.title, svg.text(0, 20, "nothing to draw"))
    x, x_ticks = axes.x_axis(
        [p.x for p in points],
        left,
        right,
        is_log=chart.x_scale == "log",
        whole=chart.diagonal,
    )
    low, high = axes.span([p.y for p in points])
    if chart.diagonal:
        low, high = 0.0, 1.0

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    shapes = [svg.text(0, 12, chart.y_label, "start", "muted")]
    for tick in axes.ticks(low, high):
        shapes += [
            svg.line(left, y(tick), right, y(tick), "grid"),
            svg.text(left - 6, y(tick) + 4, axes.percents(tick), "end", "muted"),
        ]
    shapes += [svg.text(x(t), bottom + 16, f"{t:g}", "middle", "muted") for t in x_ticks]
    shapes.append(svg.axis_label((left + right) / 2, bottom + 34, chart.x_label))
    if chart.diagonal:
        shapes.append(svg.line(x(x_ticks[0]), y(low), x(x_ticks[-1]), y(high), "reference"))
    look_of = looks([line.name for line in chart.lines])
    kinds = [line.look or look_of[line.name] for line in chart.lines]
    for line, kind in zip(chart.lines, kinds, strict=True):
        shapes += _line(line, kind, x, y, chart.x_label)
    legend, height = _legend(
        [(line.name, kind) for line, kind in zip(chart.lines, kinds, strict=True)], bottom + 58
    )
    return svg.figure(svg.WIDTH, height, chart.title, *shapes, *legend)


def _line(
    line: Line,
    kind: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_label: str,
) -> list[str]:
    known = [(p, p.y.value) for p in line.points if p.y.value is not None]
    known.sort(key=lambda pair: pair[0].x)
    upper = [(x(p.x), y(v if p.y.high is None else p.y.high)) for p, v in known]
    lower = [(x(p.x), y(v if p.y.low is None else p.y.low)) for p, v in reversed(known)]
    return [
        *([svg.polygon(upper + lower, f"band {kind}")] if len(known) > 1 else []),
        svg.path([(x(p.x), y(v)) for p, v in known], f"curve {kind}"),
        *(
            svg.circle(
                x(p.x),
                y(v),
                3,
                f"dot {kind}",
                f"{line.name}, {x_label} {p.x:g}: {percent(p.y)} %, n = {p.y.n}",
            )
            for p, v in known
        ),
    ]


def _dots(chart: DotChart) -> str:
    names = list(dict.fromkeys(name for row in chart.rows for name, _ in row.values))
    values = [value for row in chart.rows for _, value in row.values if value.value is not None]
    if not values:
        return svg.figure(svg.WIDTH, 40, chart.title, svg.text(0, 20, "nothing to draw"))
    look_of = looks(names)
    left, right, top, row_height, gap = 176.0, svg.WIDTH - 56, 8.0, 17.0, 12.0
    low, high = axes.span(values)

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    shapes: list[str] = []
    level = top
    for row in chart.rows:
        known = [
            (name, value, value.value) for name, value in row.values if value.value is not None
        ]
        words = svg.wrapped(row.category, int(left / svg.CHAR))
        size = row_height * max(1, len(known), len(words))
        first = level + size / 2 + 4 - 7 * (len(words) - 1)
        shapes += [svg.text(0, first + 14 * i, line) for i, line in enumerate(words)]
        for i, (name, value, share) in enumerate(known):
            place = level + size / 2 + row_height * (i + 0.5 - len(known) / 2)
            tip = f"{row.category}, {name}: {percent(value)} %, n = {value.n}"
            ends = (
                x(share if value.low is None else value.low),
                x(share if value.high is None else value.high),
            )
            shapes += [
                svg.line(ends[0], place, ends[1], place, f"whisker {look_of[name]}"),
                svg.circle(x(share), place, 4, f"dot {look_of[name]}", tip),
                svg.text(svg.WIDTH - 2, place + 4, axes.percents(share, 1), "end", "small"),
            ]
        level += size + gap
    grid = [
        shape
        for tick in axes.ticks(low, high)
        for shape in (
            svg.line(x(tick), top, x(tick), level - gap, "grid"),
            svg.text(x(tick), level + 8, axes.percents(tick), "middle", "muted"),
        )
    ]
    label = svg.axis_label((left + right) / 2, level + 26, chart.x_label)
    legend, height = (
        _legend([(n, look_of[n]) for n in names], level + 50)
        if len(names) > 1
        else ([], level + 34)
    )
    return svg.figure(svg.WIDTH, height, chart.title, *grid, *shapes, label, *legend)


def _legend(entries: Sequence[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """Names beside a piece of their line, in rows that fit; and where they end."""
    shapes: list[str] = []
    place, level = 10.0, top
    for whole, kind in entries:
        (name,) = svg.wrapped(whole, int((svg.WIDTH - 42) / svg.CHAR), most=1)
        width = 44 + svg.CHAR * svg.columns(name)
        if place > 10.0 and place + width > svg.WIDTH:
            place, level = 10.0, level + 18
        shapes += [
            svg.path([(place, level - 4), (place + 26, level - 4)], f"curve {kind}"),
            svg.circle(place + 13, level - 4, 3, f"dot {kind}"),
            svg.text(place + 32, level, name),
        ]
        place += width
    return shapes, level + 10
