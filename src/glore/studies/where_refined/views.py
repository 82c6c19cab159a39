"""Tables, charts and sentences of the study `where-refined`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from glore.config import RunConfig
from glore.report.charts import Chart
from glore.report.views import TableView
from glore.studies.measured import (
    Measured,
    dot_chart,
    find,
    percent_of,
    pivot,
    points_of,
    read_measured,
)
from glore.studies.where_refined.results import (
    APART_SUFFIX,
    EACH_ONE,
    EACH_TWO,
    MODELS,
    OVERLAP,
    POSITION,
    TEXTS,
    TWO_OR_MORE,
)
from glore.studies.where_refined.stages import GREEDY, SAMPLED

__all__ = ["MEASURE", "charts", "findings", "tables"]

MEASURE = "where_refined_measured"
OF_TWO = " · a refiner for each kind"
"""After the titles of what two refiners did."""


def tables(config: RunConfig, folder: Path) -> list[TableView]:
    """By position, overlaps, texts; the same of two refiners, if there are."""
    found = read_measured(folder, MEASURE)
    made = _tables(found, "", "")
    if _has_two(found):
        made += _tables(found, APART_SUFFIX, OF_TWO)
        made.append(
            pivot(
                found,
                MODELS,
                "One refiner for both kinds, one for each, or two of both kinds",
                "Wrong solutions fixed, the same ones by all. The one learned from all pairs, one "
                "for each kind from those of its kind, two of both kinds from one half of both "
                "kinds each: the first refines globally, the second locally. Differences are "
                "paired.",
                ("wrong solutions", "refinement"),
                n_column=True,
            )
        )
    return made


def _has_two(found: Sequence[Measured]) -> bool:
    return any(m.table == MODELS for m in found)


def _tables(found: Sequence[Measured], suffix: str, of: str) -> list[TableView]:
    return [
        pivot(
            found,
            POSITION + suffix,
            f"Wrong drafts fixed, by the position of the first error{of}",
            "Greedy drafts and refinements. Intervals resample questions.",
            "first error at",
        ),
        pivot(
            found,
            OVERLAP + suffix,
            f"Overlap of global and local refinement{of}",
            "Local: from the first error. ∪: fixed by at least one of both. If independent: what "
            "the union would be if the two failed independently. The last two columns compare the "
            "other kind of refinement with another draw (T = 1) of the same kind.",
            "wrong solutions",
        ),
        pivot(
            found,
            TEXTS + suffix,
            f"Are global and local refinements the same?{of}",
            "Greedy refinements. Steps before the error: of those whose error is not in the first "
            "step.",
            "wrong solutions",
        ),
    ]


def charts(config: RunConfig, folder: Path) -> list[Chart]:
    """Fixed by position; unions; both of two refiners, too, if there are."""
    found = read_measured(folder, MEASURE)
    both = (("", ""), (APART_SUFFIX, OF_TWO)) if _has_two(found) else (("", ""),)
    return [chart for suffix, of in both for chart in _charts(found, suffix, of)]


def _charts(found: Sequence[Measured], suffix: str, of: str) -> list[Chart]:
    return [
        dot_chart(
            found,
            POSITION + suffix,
            f"Wrong drafts fixed, by the position of the first error{of}",
            "Whiskers: 95 % intervals.",
            "fixed, %",
        ),
        dot_chart(
            found,
            OVERLAP + suffix,
            f"Fixed by either, by both, by one of them{of}",
            "Whiskers: 95 % intervals.",
            "fixed, %",
            columns=("global", "local", "both fix", "global ∪ local"),
        ),
    ]


def findings(config: RunConfig, folder: Path) -> list[str]:
    """Is there complementarity, and why not?"""
    found = read_measured(folder, MEASURE)
    said = [*_said(found, "", "")]
    if _has_two(found):
        said += _said(found, APART_SUFFIX, ", a refiner for each kind")
        for name in (GREEDY, SAMPLED):
            try:
                gains = [
                    points_of(find(found, MODELS, (name, "∪"), column))
                    for column in (EACH_ONE, EACH_TWO)
                ]
            except KeyError:
                continue
            said.append(
                f"{name.capitalize()}: global ∪ local of a refiner for each kind fixes {gains[0]} "
                f"points more than that of one for both, and {gains[1]} points more than that of "
                "two of both kinds."
            )
    return said


def _said(found: Sequence[Measured], suffix: str, of: str) -> Iterator[str]:
    for name in (GREEDY, SAMPLED, TWO_OR_MORE):
        try:
            gain = find(found, OVERLAP + suffix, name, "∪ − global")
            more = find(found, OVERLAP + suffix, name, "∪ − global and a sampled one")
            same = find(found, TEXTS + suffix, name, "same answer")
            kept = find(found, TEXTS + suffix, name, "global keeps the steps before the error")
        except KeyError:
            continue
        yield (
            f"{name.capitalize()}{of}: global ∪ local fixes {points_of(gain)} points "
            "more than global refinement alone. Against global refinement with a second, sampled "
            f"try: {points_of(more)} points. Both greedy refinements give the same "
            f"answer for {percent_of(same)} % of the wrong solutions, and the global one "
            f"keeps the steps before the error in {percent_of(kept)} %."
        )
