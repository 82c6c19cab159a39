"""Tables, charts and sentences of the study `rerank`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.evaluation.rerank_curves import MAJORITY, PASS
from glore.report.charts import Chart
from glore.report.views import MODEL_NAMES, TableView
from glore.studies.measured import (
    Measured,
    difference_in,
    find,
    line_chart,
    percent_of,
    pivot,
    points_of,
    read_measured,
)
from glore.studies.rerank.candidates import CANDIDATES, VS_RUN
from glore.studies.rerank.samples import CURVES, GAINS, LAST

__all__ = ["CANDIDATES_MEASURED", "MEASURE", "charts", "findings", "tables"]

MEASURE, CANDIDATES_MEASURED = "rerank_measured", "rerank_candidates_measured"


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Accuracies by K, differences, last against minimum."""
    found = read_measured(folder, MEASURE)
    n = max((m.n for m in found if m.table == CURVES), default=0)
    k = max((int(m.x or 0) for m in found if m.table == CURVES), default=0)
    return [
        pivot(
            found,
            CURVES,
            "Rerank · accuracy by reward model and aggregate",
            f"Share of {n} test questions answered right when one of K samples is chosen.",
            ("reward model", "aggregate"),
        ),
        pivot(
            found,
            GAINS,
            f"Rerank · differences with all {k} samples",
            "Paired, on the same questions, in points.",
            ("reward model", "aggregate"),
        ),
        pivot(
            found,
            LAST,
            f"Rerank · the last step's score against the minimum, with all {k} samples",
            "Published: models trained on rollout labels rank best by the last step, those trained "
            "on human labels by the minimum (arXiv 2501.07301).",
            "reward model",
        ),
        pivot(
            read_measured(folder, CANDIDATES_MEASURED),
            CANDIDATES,
            "Rerank · draft, global and local refinement, chosen by each reward model",
            "Fig. 4's candidates. The run's choice: by the ORM with the run's aggregate "
            f"({config.evaluation.aggregate}). Differences are paired, in points.",
            ("chosen by", "aggregate"),
            n_column=True,
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Curves by `final`; for the SORM, every aggregate."""
    found = [m for m in read_measured(folder, MEASURE) if m.table == CURVES]
    final = [dataclasses.replace(m, row=m.row[:1]) for m in found if m.row[1] in ("", "final")]
    sorm = [dataclasses.replace(m, row=m.row[1:]) for m in found if m.row[0] == MODEL_NAMES["sorm"]]
    return [
        line_chart(
            shown,
            CURVES,
            title,
            "Bands: 95 % intervals over questions.",
            "K samples",
            "% right",
            id=name,
            x_scale="log",
        )
        for shown, title, name in (
            (final, "Choosing one of K samples, by the score after the last step", "rerank-models"),
            (sorm, "The SORM's step scores, reduced in every way", "rerank-aggregates"),
        )
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """The best way, and whether last beats minimum."""
    found = read_measured(folder, MEASURE)
    k = max(int(m.x or 0) for m in found if m.table == CURVES)
    at_k = [m for m in found if m.table == CURVES and m.x == k and m.row[0] != MODEL_NAMES[PASS]]
    best = max(at_k, key=lambda m: m.value or 0.0)
    voted = find(found, CURVES, (MODEL_NAMES[MAJORITY], ""), f"K = {k}")
    said = [
        f"With K = {k}, the best of all ways is {best.row[0]} by {best.row[1] or 'count'} "
        f"({percent_of(best)} %, chosen after the fact); majority voting gives "
        f"{percent_of(voted)} %."
    ]
    for m in found:
        if m.table == LAST and m.value is not None:
            shown = "" if difference_in(m).excludes_zero else " (no difference shown)"
            said.append(f"{m.row[0]}: last minus minimum {points_of(m)} points{shown}.")
    return said + _candidates_said(read_measured(folder, CANDIDATES_MEASURED))


def _candidates_said(found: Sequence[Measured]) -> list[str]:
    """Whether another reward model or aggregate chooses better among draft and refinements."""
    ways = [m for m in found if m.column == VS_RUN and m.row[1] and m.value is not None]
    if not ways:
        return []
    best = max(ways, key=lambda m: m.value or 0.0)
    shown = "" if difference_in(best).excludes_zero else ", no difference shown"
    return [
        f"Among draft and refinements the best of all ways is {best.row[0]} by {best.row[1]}: "
        f"{points_of(best)} points against the run's choice (chosen after the fact{shown})."
    ]
