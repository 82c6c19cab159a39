"""Tables in a terminal whose texts are data: shown as plain text, without control characters."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from glore.errors import printable

__all__ = ["cell", "count", "new_table"]


def new_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty table with columns of text on the left and of numbers on the right."""
    table = Table(title=cell(title), title_justify="left")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def cell(text: str) -> Text:
    """One cell."""
    return Text(printable(text))


def count(n: int | None) -> str:
    """A number with separators; nothing for none and 0."""
    return f"{n:,}" if n else ""
