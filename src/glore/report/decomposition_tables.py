"""Tables of a decomposition: which part of refinement fails."""

from __future__ import annotations

from glore.evaluation.decomposition import (
    ELSEWHERE,
    FIXED,
    HOW,
    PIPELINE,
    RIGHT_PLACE,
    UNKNOWN_PLACE,
    WHEN,
    WHERE,
    WHICH,
    LossRow,
    OracleRow,
)
from glore.evaluation.result import Evaluation
from glore.report.views import REFINER_NAMES, Cell, Columns, TableView, table_of

__all__ = ["losses", "oracles", "places"]

ORACLE_NAMES = {
    PIPELINE: "the pipeline, no oracle",
    WHEN: "when: exactly the wrong drafts are refined",
    WHERE: "where: local refinement from the first wrong step",
    WHICH: "which: choice by the gold answer",
}
OUTCOME_NAMES = {
    FIXED: "right at last",
    WHEN: "when: a refinement is right, the ORM keeps the draft",
    WHERE: "where: none is right, the mark misses the first wrong step",
    HOW: "how: none is right, although the mark is at the first wrong step",
    WHICH: "which: one is right, another one is chosen",
    UNKNOWN_PLACE: "none is right, the first wrong step is not known",
}
SOURCES = {"truth": "the exact truth", "labels": "the labels from rollouts"}


def oracles(e: Evaluation) -> TableView:
    """Accuracy with each decision replaced by the right one."""
    columns: Columns[OracleRow] = (
        ("oracle", lambda r: ORACLE_NAMES[r.oracle]),
        ("accuracy, % [95 %]", lambda r: r.accuracy),
        ("n", lambda r: r.accuracy.n),
        ("− pipeline, points [95 %]", lambda r: r.gain if r.gain else ""),
        ("only oracle right", lambda r: r.gain.gained if r.gain else ""),
        ("only pipeline right", lambda r: r.gain.lost if r.gain else ""),
    )
    source = SOURCES.get(e.decomposition.first_errors or "", "") if e.decomposition else ""
    where = (
        f" Where: by {source}, on the drafts whose refinement from there is known; the difference "
        "is paired on the same drafts."
        if source
        else ""
    )
    return table_of(
        "oracles",
        "When, where, which · Accuracy with oracles",
        "Draft, global and local refinement, choice by the ORM; one decision is replaced by the "
        f"right one.{where}",
        columns,
        e.decomposition.oracles if e.decomposition else (),
        lambda r: r.oracle == PIPELINE,
    )


def losses(e: Evaluation) -> TableView:
    """What became of the wrong drafts."""
    columns: Columns[LossRow] = (
        ("outcome", lambda r: OUTCOME_NAMES[r.outcome]),
        ("wrong drafts, % [95 %]", lambda r: r.share),
        ("n", lambda r: r.share.n),
    )
    return table_of(
        "losses",
        "When, where, how, which · What became of the wrong drafts",
        "Each wrong draft is counted once.",
        columns,
        e.decomposition.losses if e.decomposition else (),
        lambda r: r.outcome == FIXED,
    )


def places(e: Evaluation) -> TableView:
    """How: what the refiner makes of a right and of another place, and how often it copies."""
    found = e.decomposition
    rows: list[tuple[Cell, ...]] = []
    if found is not None:
        rows += [
            (f"SORM's mark: {r.place}", r.share, r.fixed, r.share.n, r.fixed.n)
            for r in found.places
        ]
        if found.place_gain is not None:
            name = f"{RIGHT_PLACE} − {ELSEWHERE}, points"
            rows.append((name, "", found.place_gain, "", found.place_gain.n))
        rows += [
            (f"copies by {REFINER_NAMES[r.refiner]}", r.copied, "", r.copied.n, "")
            for r in found.copies
        ]
    return TableView(
        "places",
        "How · Wrong drafts by the place of the mark, and copies",
        "Fixed: share that the local refinement from the SORM's mark makes right. Right place and "
        "elsewhere are other drafts, so their difference is not paired. Copies: refinements of "
        "wrong drafts that repeat the draft.",
        ("what", "share, % [95 %]", "fixed, % [95 %]", "n", "n of fixed"),
        tuple(rows),
    )
