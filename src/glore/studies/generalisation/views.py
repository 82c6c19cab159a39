"""Tables, charts and sentences of the study `generalisation`."""

from __future__ import annotations

from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.generalisation.results import CROSSED, JUDGED, OVERFIT, SEEN, UNSEEN
from glore.studies.generalisation.sft_sorm import STUDENTS
from glore.studies.measured import (
    difference_in,
    dot_chart,
    find,
    percent_of,
    pivot,
    points_of,
    read_measured,
)

__all__ = ["MEASURE", "charts", "findings", "tables"]

MEASURE = "generalisation_measured"


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Crossed reranking, crossed judging, overfitting."""
    found = read_measured(folder, MEASURE)
    n = config.evaluation.samples
    views = [
        pivot(
            found,
            CROSSED,
            f"Reranking both students' samples, K = {n} (Table 7)",
            "Test questions. A model of a student is trained on that student's samples. The paper, "
            "K = 96: ORM_EI 64 % on EI and 51 % on SFT samples; ORM_SFT 58 and 56 %.",
            "chosen by",
            units={f"{s} samples": f"{s} samples, % [95 %]" for s in STUDENTS},
        ),
        pivot(
            found,
            JUDGED,
            "Final answers of both students' samples judged right, class-balanced",
            "At the run's threshold.",
            "model",
        ),
        pivot(
            found,
            OVERFIT,
            "Solutions seen in training, and test solutions",
            "At the run's threshold. The paper: 42 % of right training solutions are called wrong.",
            ("judge", "solutions"),
        ),
    ]
    return [view for view in views if view.rows]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Crossed reranking."""
    found = read_measured(folder, MEASURE)
    chart = dot_chart(
        found,
        CROSSED,
        "Reranking both students' samples",
        "Models of each student, on the samples of both. Whiskers: 95 % intervals.",
        "% right",
        by_row=False,
    )
    return [chart] if chart.rows else []


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Does a model fit its own student best? Does it overfit?"""
    found = read_measured(folder, MEASURE)
    said = []
    for kind in ("ORM", "SORM"):
        for student in STUDENTS:
            try:
                m = find(
                    found, CROSSED, f"{kind}: of this student − of the other", f"{student} samples"
                )
            except KeyError:
                continue
            shown = "" if difference_in(m).excludes_zero else " (no difference shown)"
            said.append(
                f"Reranking {student} samples, the {kind} of that student minus the other's: "
                f"{points_of(m)} points{shown}."
            )
    if not any(m.table == CROSSED for m in found):
        said.append(
            "There are no two students to cross: the run has no SFT student, or its student is the "
            "SFT model."
        )
    rows = [find(found, OVERFIT, ("ORM, final answers", s), "judged right") for s in (SEEN, UNSEEN)]
    missed = find(found, OVERFIT, ("ORM, final answers", SEEN), "right ones called wrong")
    said.append(
        f"The ORM judges {percent_of(rows[0])} % of its training solutions right and "
        f"{percent_of(rows[1])} % of test samples; it calls "
        f"{percent_of(missed)} % of right training solutions wrong (the paper: 42)."
    )
    return said
