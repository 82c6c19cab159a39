"""Tables, charts and sentences of the study `postprocessing`."""

from __future__ import annotations

from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    difference_in,
    line_chart,
    percent_of,
    pivot,
    points_of,
    read_measured,
)
from glore.studies.postprocessing.relabelled import STUDENTS
from glore.studies.postprocessing.results import CURVES, TABLE

__all__ = ["MEASURE", "charts", "findings", "tables"]

MEASURE = "postprocessing_measured"


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """One table with a row for each labelling."""
    return [
        pivot(
            read_measured(folder, MEASURE),
            TABLE,
            "SORMs by the processing of their labels",
            "Labels and steps against the exact truth where the task knows it, else against the "
            "run's labels. Differences are paired. The run's SORM has the labels “as used” and "
            "another seed of training.",
            "labels",
        )
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Rerank curves of each student's samples."""
    found = read_measured(folder, MEASURE)
    made = [
        line_chart(
            found,
            f"{CURVES}-{student}",
            f"Reranking the {student} student's samples by SORMs on different labels",
            "Accuracy when the best of K samples is chosen. Bands: 95 % intervals.",
            "K samples",
            "% right",
            x_scale="log",
        )
        for student in STUDENTS
    ]
    return [chart for chart in made if chart.lines]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """How large the differences are, against that of the seed alone."""
    found = read_measured(folder, MEASURE)
    said = []
    for m in found:
        is_gain = m.table == TABLE and m.column == "EI, − as used" and m.value is not None
        if is_gain and difference_in(m).excludes_zero:
            said.append(f"Reranking by a SORM on labels “{m.row[0]}”: {points_of(m)} points.")
    labels = {m.row[0]: m for m in found if m.table == TABLE and m.column == "labels right" and m.n}
    if labels:
        best = max(labels.values(), key=lambda m: m.value or 0)
        worst = min(labels.values(), key=lambda m: m.value or 0)
        said.insert(
            0,
            f"Labels agree most with the truth when “{best.row[0]}” ({percent_of(best)} "
            f"%), least when “{worst.row[0]}” ({percent_of(worst)} %).",
        )
    if not any("Reranking" in s for s in said):
        said.append(
            "No difference in reranking the EI student's samples has an interval without 0."
        )
    return said
