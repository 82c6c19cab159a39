"""A few SVG shapes as text. Colours come from classes of the page's style sheet, so figures follow
light and dark mode.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

__all__ = [
    "CHAR",
    "WIDTH",
    "axis_label",
    "circle",
    "columns",
    "figure",
    "line",
    "path",
    "polygon",
    "rect",
    "text",
    "ticks",
    "wrapped",
]

WIDTH = 480.0
"""Of every figure."""
CHAR = 6.6
"""Width of a letter in a figure, about."""


def figure(width: float, height: float, label: str, *shapes: str) -> str:
    """A whole drawing. `label`: its description for screen readers."""
    inside = "\n".join(shapes)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">'
        f"\n{inside}\n</svg>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def path(points: Sequence[tuple[float, float]], kind: str) -> str:
    """An open polyline."""
    return f'<polyline points="{_points(points)}" class="{kind}"/>'


def polygon(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A closed area."""
    return f'<polygon points="{_points(points)}" class="{kind}"/>'


def circle(x: float, y: float, r: float, kind: str, title: str = "") -> str:
    """A dot with an optional tooltip."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" class="{kind}">{_title(title)}</circle>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> str:
    """A box with an optional tooltip."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" '
        f'height="{max(0.0, height):.1f}" class="{kind}">{_title(title)}</rect>'
    )


def text(x: float, y: float, content: str, anchor: str = "start", kind: str = "") -> str:
    """A label; `anchor` is start, middle or end."""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {where} class="{kind}">{escape(content)}</text>'


def axis_label(x: float, y: float, content: str) -> str:
    """The name of an axis, centred."""
    return text(x, y, content, "middle", "muted")


def ticks(low: float, high: float) -> list[float]:
    """Marks of an axis from `low` to `high`, at most 0.1 apart."""
    step = 0.1 if high - low > 0.3 else 0.05
    return [low + step * i for i in range(round((high - low) / step) + 1)]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _title(title: str) -> str:
    return f"<title>{escape(title)}</title>" if title else ""


def wrapped(content: str, size: int, most: int = 2) -> list[str]:
    """A text as at most `most` lines of `size` columns; what does not fit is cut."""
    lines = [""]
    for word in content.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if columns(longer) <= size or len(lines) == most or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_cut(line, size) for line in lines]


def columns(content: str) -> int:
    """The columns that a text takes; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in content)


def _cut(content: str, size: int) -> str:
    if columns(content) <= size:
        return content
    while columns(content) > size - 1:
        content = content[:-1]
    return f"{content}…"
