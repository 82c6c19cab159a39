"""Tables, charts and sentences of the study `pessimism`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    dot_chart,
    find,
    line_chart,
    percent_of,
    pivot,
    points_of,
    read_measured,
)
from glore.studies.pessimism.results import BANDS, BARE, DIFFICULTY, EI, EVERY, GAP, SFT

__all__ = ["MEASURE", "charts", "findings", "tables"]

MEASURE = "pessimism_measured"


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """The bare question, by difficulty; steps."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            BARE,
            "The score of the bare question, before the first step",
            "Test questions. No model was trained there: question tokens are masked in training.",
            "model",
            n_column=True,
        ),
        pivot(
            found,
            DIFFICULTY,
            "The score of the bare question, by difficulty",
            "Questions by the share of the final student's samples that are right.",
            "model",
        ),
        pivot(
            found,
            GAP,
            "Accuracy on steps before the answer line",
            "By the share of right samples of the question. The SFT student's drafts: its own ORM, "
            "and the run's SORM. Differences are paired.",
            ("student", "right samples"),
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Scores of the bare question against difficulty."""
    found = read_measured(folder, MEASURE)
    places = {f"right samples: {name}": i for i, (_, name) in enumerate(BANDS)}
    mine = [
        dataclasses.replace(m, x=float(places[m.column] + 1))
        for m in found
        if m.table == DIFFICULTY and m.row[0] != "solved by one of the samples"
    ]
    return [
        line_chart(
            mine,
            DIFFICULTY,
            "What reward models expect of a question before the first step",
            "1: no sample is right; 2: less than half; 3: half or more; 4: all. Bands: 95 % "
            "intervals.",
            "difficulty of the question (1 hardest)",
            "mean probability, %",
        ),
        dot_chart(
            found,
            GAP,
            "Steps judged right, by difficulty and student",
            "By the share of right samples of the question. Whiskers: 95 % intervals.",
            "% of steps",
            columns=("ORM", "SORM"),
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Do they expect what the student can do?"""
    found = read_measured(folder, MEASURE)
    column = "mean score of the question"

    def show(row: str) -> str:
        return percent_of(find(found, BARE, row, column))

    said = [
        f"Before the first step, the ORM expects {show('ORM')} %, the Balanced ORM "
        f"{show('Balanced ORM')} % (the paper: about 50) and the SORM {show('SORM')} %; "
        f"{show('share of right samples')} % of the samples are right."
    ]
    for student in (EI, SFT):
        try:
            m = find(found, GAP, (student, EVERY), "SORM − ORM")
        except KeyError:
            continue
        said.append(f"On steps of the {student}, SORM − ORM: {points_of(m)} points.")
    return said
