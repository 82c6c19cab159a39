"""What `glore compare` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from glore.errors import printable
from glore.pipeline.folder import write_text
from glore.report.compared import compare_runs, to_csv, to_json, views
from glore.report.pooled import pooled_markdown
from glore.report.terminal import print_view
from glore.report.views import TableView

__all__ = ["print_comparison"]


def print_comparison(
    run_dirs: Sequence[Path],
    console: Console,
    *,
    json_file: Path | None,
    csv_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Print runs side by side, and write the files that are asked for. Raises RunError."""
    found = compare_runs(run_dirs)
    for view in views(found):
        print_view(_without_repeats(view), console)
    if json_file is not None:
        write_text(json_file, to_json(found))
    if csv_file is not None:
        write_text(csv_file, to_csv(found))
    if markdown_file is not None:
        write_text(markdown_file, pooled_markdown(run_dirs))
    for path in filter(None, (json_file, csv_file, markdown_file)):
        console.print(f"written: {printable(str(path))}", soft_wrap=True)


def _without_repeats(view: TableView) -> TableView:
    """The table with the name of a measure in its first row alone."""
    rows, before = [], None
    for row in view.rows:
        rows.append(("", *row[1:]) if row[0] == before else row)
        before = row[0]
    return dataclasses.replace(view, rows=tuple(rows))
