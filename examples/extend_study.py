"""A study of your own: are long drafts right less often?

An installed package makes it known in its pyproject.toml, and then `glore study lengths RUN` runs
it:

    [project.entry-points."glore.studies"]
    lengths = "extend_study:STUDY"
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from glore import Solution, read_records
from glore.config import RunConfig
from glore.pipeline import StageContext, declare
from glore.pipeline.integrity import recorded_files
from glore.report.views import TableView, percent
from glore.statistics import wilson
from glore.studies import Study


@dataclasses.dataclass(frozen=True)
class Length:
    """What a stage writes is a record: a frozen dataclass of plain values."""

    steps: int
    drafts: int
    right: int


@declare("lengths_count", inputs=("test_drafts",))
def count(ctx: StageContext) -> None:
    """A stage declares its inputs and the settings it reads; here it needs no setting."""
    drafts = ctx.read("test_drafts", Solution)
    total = Counter(len(d.steps) for d in drafts)
    right = Counter(len(d.steps) for d in drafts if d.correct == "right")
    ctx.write([Length(n, total[n], right[n]) for n in sorted(total)], Length)


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """The study's tables, from the records of its stages."""
    lengths = read_records(recorded_files(folder / "stages" / count.name, "part"), Length)
    rows = [(str(x.steps), percent(wilson(x.right, x.drafts)), str(x.drafts)) for x in lengths]
    columns = ("steps", "right, % [95 %]", "n")
    return [TableView("lengths", "Greedy drafts by length", "", columns, tuple(rows))]


STUDY = Study("lengths", "Are long drafts right less often?", lambda config: (count,), tables)
