"""What a study found, as the report shows it: a section of the page, and files of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.pipeline.folder import write_text
from glore.report.charts import Chart, standalone, table
from glore.report.table_files import to_csv, to_latex
from glore.report.views import TableView, to_markdown

__all__ = ["StudySection", "write_study"]


@dataclasses.dataclass(frozen=True, slots=True)
class StudySection:
    """A study's part of the report."""

    name: str
    about: str
    tables: tuple[TableView, ...] = ()
    charts: tuple[Chart, ...] = ()
    findings: tuple[str, ...] = ()
    """A few sentences, the most important first."""
    stale: str = ""
    """Why there are no results to show; empty if there are."""

    @property
    def files(self) -> str:
        """The study's folder, seen from that of the page."""
        return f"../studies/{self.name}"


def write_study(folder: Path, section: StudySection) -> None:
    """Write `tables.md`, ID.csv and ID.tex of every table and chart, and ID.svg of every chart.
    Raises RunError when the disk refuses.
    """
    said = "".join(f"- {sentence}\n" for sentence in section.findings)
    head = f"# {section.name}\n\n{section.about}\n" + (f"\n{said}" if said else "")
    write_text(folder / "tables.md", "\n".join([head, *map(to_markdown, section.tables)]))
    for view in (*section.tables, *map(table, section.charts)):
        write_text(folder / f"{view.id}.csv", to_csv(view))
        write_text(folder / f"{view.id}.tex", to_latex(view))
    for chart in section.charts:
        write_text(folder / f"{chart.id}.svg", standalone(chart))
