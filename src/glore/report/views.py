"""A table of cells, cells as text, Markdown. The terminal, the page, the table files and pooled
results share them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from glore.decisions import GLOBAL, LOCAL_ORM, LOCAL_SORM
from glore.evaluation.inputs import BALANCED_ORM, ORM, SORM
from glore.evaluation.refinement import BEST_OF, GREEDY, PERFECT, PERFECT_BEST_OF, RERANKED
from glore.evaluation.rerank_curves import MAJORITY, PASS
from glore.statistics import Difference, Estimate

__all__ = [
    "MODEL_NAMES",
    "REFINER_NAMES",
    "WAY_NAMES",
    "Cell",
    "Columns",
    "TableView",
    "cell_text",
    "percent",
    "points",
    "table_of",
    "to_markdown",
]

R = TypeVar("R")
Cell = str | int | Estimate | Difference | None
"""What a table holds: text, a count, a share or a difference with its interval, or nothing."""
Columns = tuple[tuple[str, Callable[[R], Cell]], ...]
"""Name of each column → its cell in the row of a record."""

MODEL_NAMES = {
    ORM: "ORM",
    BALANCED_ORM: "Balanced ORM",
    SORM: "SORM",
    MAJORITY: "majority",
    PASS: "pass@K",
}
REFINER_NAMES = {GLOBAL: "global", LOCAL_ORM: "local + ORM", LOCAL_SORM: "local + SORM"}
WAY_NAMES = {
    GREEDY: "greedy draft",
    BEST_OF: "best of {k} samples, by ORM",
    RERANKED: "draft + global + local, by ORM",
    PERFECT: "the same three, perfect reranker",
    PERFECT_BEST_OF: "best of {k} samples, perfect reranker",
}


@dataclasses.dataclass(frozen=True, slots=True)
class TableView:
    """One table. The first column names the row."""

    id: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    headline: frozenset[int] = frozenset()
    """Indices of the rows that are shown in bold."""

    @property
    def text_rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows as they are shown."""
        return tuple(tuple(map(cell_text, row)) for row in self.rows)


def table_of(
    id: str,
    title: str,
    note: str,
    columns: Columns[R],
    rows: Sequence[R],
    is_headline: Callable[[R], bool] = lambda row: False,
) -> TableView:
    """Records → a table with a column for every (name, cell) of `columns`."""
    return TableView(
        id,
        title,
        note,
        tuple(name for name, _ in columns),
        tuple(tuple(cell(row) for _, cell in columns) for row in rows),
        frozenset(i for i, row in enumerate(rows) if is_headline(row)),
    )


def cell_text(cell: Cell) -> str:
    """A cell as it is shown: shares in percent, differences in points."""
    match cell:
        case Estimate():
            return percent(cell)
        case Difference():
            return points(cell)
        case None:
            return "–"
    return str(cell)


def percent(estimate: Estimate | None) -> str:
    """An estimate → `54.2 [50.1, 58.2]` in percent, or `–`."""
    if estimate is None or estimate.value is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(difference: Difference | None) -> str:
    """A difference → `+8.1 [+4.2, +12.0]` in percentage points, or `–`."""
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
    """A table → Markdown with its title and note."""
    lines = [f"### {view.title}", "", view.note, ""] if view.note else [f"### {view.title}", ""]
    lines.append("| " + " | ".join(view.columns) + " |")
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(view.columns) - 1)) + "|")
    for i, row in enumerate(view.text_rows):
        cells = [c.replace("|", "\\|") for c in row]
        lines.append(
            "| " + " | ".join(f"**{c}**" if i in view.headline and c else c for c in cells) + " |"
        )
    return "\n".join(lines) + "\n"
