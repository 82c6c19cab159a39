"""A table as a CSV and as a LaTeX file, and the files of a report (`report/tables/`).

CSV holds numbers: a cell with an interval becomes the columns `low`, `high` and `n` beside it,
unrounded, shares in percent and differences in points. LaTeX (package booktabs) holds the cells as
they are shown, in a `table` with caption and label; every text is escaped.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from glore.evaluation import Evaluation
from glore.pipeline.folder import write_text
from glore.report.tables import table_views
from glore.report.views import Cell, TableView
from glore.statistics import Difference, Estimate

__all__ = ["TABLES", "to_csv", "to_latex", "write_tables"]

TABLES = "tables"
"""The folder of the files, below that of the page."""


def write_tables(folder: Path, evaluation: Evaluation) -> None:
    """Write ID.csv and ID.tex of every table that has rows to `folder`. Raises RunError when the
    disk refuses.
    """
    for view in table_views(evaluation):
        write_text(folder / f"{view.id}.csv", to_csv(view))
        write_text(folder / f"{view.id}.tex", to_latex(view))


def to_csv(view: TableView) -> str:
    """A table → CSV text with a header. An empty field: nothing could be measured."""
    measured = {i for row in view.rows for i, cell in enumerate(row) if _is_measured(cell)}
    names: list[str] = []
    for i, name in enumerate(view.columns):
        plain = name.removesuffix(" [95 %]")
        names += [plain, f"{plain}: low", f"{plain}: high", f"{plain}: n"][: _width(i, measured)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in view.rows:
        fields: list[str] = []
        for i, cell in enumerate(row):
            numbers = _numbers(cell)
            fields += numbers + [""] * (_width(i, measured) - len(numbers))
        writer.writerow(fields)
    return text.getvalue()


def to_latex(view: TableView) -> str:
    """A table → a LaTeX `table` in booktabs' style; the rows of the headline are bold."""
    rows = []
    for i, cells in enumerate(view.text_rows):
        shown = [_escaped(c) for c in cells]
        if i in view.headline:
            shown = [f"\\textbf{{{c}}}" if c else "" for c in shown]
        rows.append(_line(shown))
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(view.title)}}}",
        f"\\label{{tab:{view.id}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(view.columns) - 1)}}}",
        "\\toprule",
        _line([_escaped(c) for c in view.columns]),
        "\\midrule",
        *rows,
        "\\bottomrule",
        "\\end{tabular}",
        *([f"\\par\\smallskip\\footnotesize {_escaped(view.note)}"] if view.note else []),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _is_measured(cell: Cell) -> bool:
    return isinstance(cell, Estimate | Difference)


def _width(column: int, measured: set[int]) -> int:
    return 4 if column in measured else 1


def _numbers(cell: Cell) -> list[str]:
    if cell is None:
        return [""]
    if isinstance(cell, Estimate | Difference):
        parts = (cell.value, cell.low, cell.high)
        return [*("" if x is None else repr(100 * x) for x in parts), str(cell.n)]
    return [str(cell)]


def _line(cells: Sequence[str]) -> str:
    # A line break followed by [ would be read as its optional argument.
    return " & ".join(f"{{}}{c}" if c.startswith("[") else c for c in cells) + r" \\"


_LATEX = MappingProxyType(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
        "−": "$-$",
        "–": "--",
        "·": r"$\cdot$",
        "∪": r"$\cup$",
        "→": r"$\rightarrow$",
        "×": r"$\times$",
        "“": "``",
        "”": "''",
        "’": "'",
    }
)
"""What LaTeX reads as markup, and signs that its usual fonts lack → how they are written."""
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], text)
