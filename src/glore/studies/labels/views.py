"""Tables, charts and sentences of the study `labels`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.labels.results import AGREEMENT, AGREES, COST, KIND, MEASURE, POSITION
from glore.studies.measured import (
    dot_chart,
    find,
    line_chart,
    percent_of,
    pivot,
    read_measured,
)

__all__ = ["charts", "findings", "tables"]


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """By K, by position, by kind of step, and the cost."""
    found = read_measured(folder, MEASURE)
    k = config.labels.rollouts
    truth = "n: steps of test drafts, whole questions resampled."
    views = [
        pivot(
            found,
            AGREEMENT,
            "Labels against the truth, by K",
            truth,
            "rollouts a step",
            n_column=True,
        ),
        pivot(
            found,
            POSITION,
            f"Labels against the truth, by position (K = {k})",
            truth,
            "position",
            n_column=True,
        ),
        pivot(
            found,
            KIND,
            f"Labels against the truth, by what the step is (K = {k})",
            "equation: one that the step writes does not hold; content: all that it writes holds, "
            "but not of this question; answer: the answer line.",
            "step",
        ),
        pivot(
            found,
            COST,
            f"Cost of a labelled draft (K = {k})",
            "Both give the same labels. Tokens of the scan: rollouts times the mean length at "
            "their step.",
            "way",
        ),
    ]
    return [view for view in views if view.rows]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Agreement and errors against K; agreement by kind of step."""
    found = read_measured(folder, MEASURE)
    turned = [dataclasses.replace(m, row=(m.column,)) for m in found if m.table == AGREEMENT]
    if not turned:
        return []
    return [
        line_chart(
            turned,
            AGREEMENT,
            "Labels from K rollouts against the exact truth",
            "Bands: 95 % intervals over questions.",
            "K rollouts at a step",
            "% of steps",
            x_scale="log",
        ),
        dot_chart(
            found,
            KIND,
            "Agreement by what the step is",
            f"K = {config.labels.rollouts}. Whiskers: 95 % intervals.",
            "agreement with the truth, %",
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Agreement at the run's K and at most, and the cost."""
    found = read_measured(folder, MEASURE)
    said = []
    by_k = [m for m in found if m.table == AGREEMENT and m.column == AGREES]
    if by_k:
        own = next(m for m in by_k if m.x == config.labels.rollouts)
        last = max(by_k, key=lambda m: m.x or 0)
        more = f"; with K = {last.x:.0f} on {percent_of(last)} %"
        said.append(
            f"With K = {own.x:.0f}, labels agree with the truth on {percent_of(own)} % "
            f"of {own.n} steps (the paper: 94 % of 257){'' if last is own else more}."
        )
    names = (f"all {config.labels.rollouts} at every step", "backward scan")
    full, scan = (find(found, COST, name, "tokens a draft").value or 0.0 for name in names)
    if scan:
        said.append(
            f"The backward scan draws {scan:.0f} tokens a draft in place of {full:.0f} "
            f"({full / scan:.1f} times fewer) for the same labels."
        )
    return said
