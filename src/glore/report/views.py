"""A table as text cells, numbers as text, and Markdown: what terminal, page and pooled results
share.
"""

from __future__ import annotations

import dataclasses

from glore.statistics import Difference, Estimate

__all__ = [
    "MODEL_NAMES",
    "REFINER_NAMES",
    "WAY_NAMES",
    "TableView",
    "percent",
    "points",
    "to_markdown",
]

MODEL_NAMES = {
    "orm": "ORM",
    "balanced_orm": "Balanced ORM",
    "sorm": "SORM",
    "majority": "majority",
    "pass": "pass@K",
}
REFINER_NAMES = {"global": "global", "local_orm": "local + ORM", "local_sorm": "local + SORM"}
WAY_NAMES = {
    "greedy": "greedy draft",
    "best_of": "best of {k} samples, by ORM",
    "reranked": "draft + global + local, by ORM",
    "perfect": "the same three, perfect reranker",
    "perfect_best_of": "best of {k} samples, perfect reranker",
}


@dataclasses.dataclass(frozen=True, slots=True)
class TableView:
    """One table as text. The first column names the row."""

    id: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    headline: frozenset[int] = frozenset()
    """Rows that carry the message."""


def percent(estimate: Estimate | None) -> str:
    """`54.2 [50.1, 58.2]` in percent, or `–`."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(difference: Difference | None) -> str:
    """`+8.1 [4.2, 12.0]` in percentage points, or `–`."""
    if (
        difference is None
        or difference.value is None
        or difference.low is None
        or difference.high is None
    ):
        return "–"
    interval = f"[{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"{100 * difference.value:+.1f} {interval}".replace("-", "−")


def to_markdown(view: TableView) -> str:
    """The table as Markdown with its title and note."""
    lines = [f"### {view.title}", "", view.note, ""] if view.note else [f"### {view.title}", ""]
    lines.append("| " + " | ".join(view.columns) + " |")
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(view.columns) - 1)) + "|")
    for i, row in enumerate(view.rows):
        cells = [c.replace("|", "\\|") for c in row]
        lines.append(
            "| " + " | ".join(f"**{c}**" if i in view.headline and c else c for c in cells) + " |"
        )
    return "\n".join(lines) + "\n"
