"""Tables, charts and sentences of the study `when-to-stop`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    difference_in,
    dot_chart,
    find,
    line_chart,
    percent_of,
    pivot,
    points_of,
    read_measured,
)
from glore.studies.when_to_stop.results import CALIBRATION, CHOSEN, ORACLES, SWEEP

__all__ = ["MEASURE", "charts", "findings", "tables"]

MEASURE = "thresholds_measured"


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Thresholds chosen on dev, oracles, calibration."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            CHOSEN,
            "Thresholds chosen on dev, measured on test",
            "T_ORM = 1: every draft is refined, and the ORM chooses. Differences are paired.",
            "thresholds",
        ),
        pivot(
            found,
            ORACLES,
            "What an oracle for one decision, or for several, would be worth",
            "No gate. how: a right solution is among the candidates of a wrong draft, where a "
            "sample of the question was right. Differences are paired.",
            "oracle for",
        ),
        pivot(
            found,
            CALIBRATION,
            "Calibration",
            "Share of good answers or steps by predicted probability; intervals over questions.",
            "model",
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Both sweeps, the oracles, calibration."""
    found = read_measured(folder, MEASURE)
    made: list[Chart] = []
    for threshold, what in (
        ("T_ORM", "Drafts that the ORM scores above T_ORM are kept (1: none)"),
        ("T_SORM", "The first step that the SORM scores at most T_SORM is marked"),
    ):
        mine = [
            dataclasses.replace(m, row=m.row[1:])
            for m in found
            if m.table == SWEEP and m.row[0] == threshold
        ]
        made.append(
            line_chart(
                mine,
                SWEEP,
                f"Accuracy against {threshold}",
                f"{what}. Bands: 95 % intervals.",
                threshold,
                "% right",
                id=f"{SWEEP}-{threshold.lower().replace('_', '-')}",
            )
        )
    made.append(
        dot_chart(
            found,
            ORACLES,
            "What oracles are worth",
            "Accuracy on test questions. Whiskers: 95 % intervals.",
            "% right",
        )
    )
    made.append(
        line_chart(
            found,
            CALIBRATION,
            "Calibration",
            "Predicted probability (mean of a bin) against the share that is good.",
            "predicted probability",
            "% good",
            diagonal=True,
        )
    )
    return made


def findings(config: RunConfig, folder: Path) -> list[str]:
    """The thresholds from dev, and the decision that an oracle helps most."""
    found = read_measured(folder, MEASURE)
    name = "both chosen on dev"
    gain = find(found, CHOSEN, name, "− the run's, test")
    said = []
    if gain.value is not None:
        t_orm, t_sorm = (find(found, CHOSEN, name, c).value for c in ("T_ORM", "T_SORM"))
        shown = "" if difference_in(gain).excludes_zero else " (the interval includes zero)"
        said.append(
            f"Thresholds chosen on dev (T_ORM {t_orm:g}, T_SORM {t_sorm:g}): {points_of(gain)} "
            f"points on test{shown}."
        )
    alone = [m for m in found if m.table == ORACLES and m.column == "right" and "+" not in m.row[0]]
    base, *others = alone
    best = max(others, key=lambda m: m.value or 0.0)
    said.append(
        f"Of the oracles for one decision, “{best.row[0]}” is worth most: "
        f"{percent_of(best)} % in place of {percent_of(base)} %."
    )
    return said
