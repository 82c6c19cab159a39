"""An evaluation → its tables in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glore.evaluation import Evaluation
from glore.report.summary import headline
from glore.report.tables import table_views
from glore.report.views import TableView

__all__ = ["print_evaluation", "print_view"]

MAIN_TABLES = (
    "figure4",
    "figure4-differences",
    "table3",
    "oracles",
    "losses",
    "places",
    "table1",
    "table2",
    "ranking",
    "table5",
    "agreement",
    "counts",
)
"""Tables that fit a screen. The page shows all tables."""


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print the main tables and the summary."""
    for view in table_views(evaluation):
        if view.id in MAIN_TABLES:
            print_view(view, console)
    for sentence in headline(evaluation):
        console.print(Padding(Text(sentence), (0, 0, 0, 2)))


def print_view(view: TableView, console: Console) -> None:
    """Print one table and an empty line."""
    console.print(_rich(view))
    console.print()


def _rich(view: TableView) -> Table:
    title, note = Text(view.title, style="bold"), Text(view.note, style="dim")
    table = Table(
        title=title,
        title_justify="left",
        caption=note,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for i, name in enumerate(view.columns):
        table.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    for number, row in enumerate(view.text_rows):
        table.add_row(
            *(Text(cell, style="bold" if number in view.headline else "") for cell in row)
        )
    return table
