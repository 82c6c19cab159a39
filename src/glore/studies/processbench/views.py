"""Tables, charts and sentences of the study `processbench`, and published figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    dot_chart,
    find,
    percent_of,
    pivot,
    read_measured,
)
from glore.studies.processbench.judged import TRAINING
from glore.studies.processbench.results import OVERALL, TABLE

__all__ = ["MEASURE", "PUBLISHED", "charts", "findings", "tables"]

MEASURE = "processbench_measured"
PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("RLHFlow DeepSeek / Mistral", "rollouts", "no", "26.6 / 28.4"),
    ("Qwen2.5-Math-7B on Math-Shepherd's data", "rollouts", "no", "28.9"),
    ("Math-Shepherd-7B", "rollouts", "no", "31.5"),
    ("GroundedPRM", "tree search and tools", "no", "39.7"),
    ("Qwen, own rollouts, 860k", "rollouts", "no", "40.1"),
    ("uPRM-14B", "none", "no", "about 48.4"),
    ("FreePRM-7B", "outcomes, pseudo-labels", "no", "53.0"),
    ("Qwen2.5-Math-7B-PRM800K", "people", "no", "56.5"),
    ("SCAN", "rollouts, denoised", "no", "59.1"),
    ("Qwen2.5-Math-PRM-7B", "rollouts and a judge", "no", "73.5"),
    ("GenPRM-7B, pass@1 / maj@8", "rollouts and a judge", "yes", "75.2 / 80.5"),
    ("TIPS, Qwen3-4B", "outcomes, GRPO", "yes", "77.7–85.2"),
)
"""Model, supervision, generative, average F1 over the four sets, as the papers report them."""


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """Ours by file, averages, and published figures."""
    found = read_measured(folder, MEASURE)
    return [
        pivot(
            found,
            TABLE,
            "Finding the first wrong step",
            "T has the best F1 on one kind of solutions (files with gsm8k in their names, or what "
            "`calibrate` says; without files, the training drafts), and is used on all. No "
            "solutions that chose it: the run's threshold. Too long: for the model's context, and "
            "judged wrong.",
            ("model", "solutions"),
        ),
        pivot(
            found,
            OVERALL,
            "Average F1",
            "Over all files; without files, of the test drafts. Drafts of this run are no "
            "ProcessBench: only figures on its own files compare with the published ones.",
            "model",
        ),
        TableView(
            "processbench-published",
            "ProcessBench, average F1 as published (quoted, not measured here)",
            "Over GSM8K, MATH, OlympiadBench and Omni-MATH, as the authors of each report it.",
            ("model", "supervision", "generative", "F1, quoted"),
            PUBLISHED,
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Accuracies and F1 of every model."""
    found = [
        dataclasses.replace(m, row=m.row[::-1])
        for m in read_measured(folder, MEASURE)
        if m.table == TABLE and m.column == "F1"
    ]
    turned = [dataclasses.replace(m, row=m.row[:1], column=m.row[1]) for m in found]
    return [
        dot_chart(
            turned,
            TABLE,
            "F1 of finding the first wrong step",
            "Whiskers: 95 % intervals over questions.",
            "F1, %",
        )
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """F1 of every model."""
    found = read_measured(folder, MEASURE)
    rows = list(dict.fromkeys(m.row for m in found if m.table == TABLE))
    shown_rows = [row for row in rows if row[1] != TRAINING]
    return [
        f"{row[0]}, {row[1]}: F1 {percent_of(find(found, TABLE, row, 'F1'))} % (error accuracy "
        f"{percent_of(find(found, TABLE, row, 'error accuracy'))} %, correct accuracy "
        f"{percent_of(find(found, TABLE, row, 'correct accuracy'))} %)."
        for row in shown_rows
    ]
