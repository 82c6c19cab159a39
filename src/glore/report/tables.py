"""An evaluation → its tables, for the terminal, the page, Markdown, CSV and LaTeX.

Every column is named beside its cell.
"""

from __future__ import annotations

from collections.abc import Callable

from glore.decisions import CANDIDATES
from glore.evaluation.label_agreement import AS_USED, TRAIN, AgreementRow
from glore.evaluation.refinement import (
    RERANKED,
    FixedDifference,
    FixedRow,
    RefineRow,
    RerankDifference,
    RerankRow,
)
from glore.evaluation.result import Evaluation
from glore.report import paper
from glore.report.decomposition_tables import losses, oracles, places
from glore.report.judging_tables import (
    ranking,
    table1,
    table1_differences,
    table2,
    table2_differences,
)
from glore.report.views import (
    MODEL_NAMES,
    REFINER_NAMES,
    WAY_NAMES,
    Cell,
    Columns,
    TableView,
    table_of,
)
from glore.statistics import Difference

__all__ = ["table_views"]


def table_views(evaluation: Evaluation) -> list[TableView]:
    """Every table that has rows, in the order of reading."""
    makers: tuple[Callable[[Evaluation], TableView], ...] = (
        _figure4,
        _figure4_differences,
        _table3,
        _table3_differences,
        _figure3,
        oracles,
        losses,
        places,
        table1,
        table1_differences,
        table2,
        table2_differences,
        ranking,
        _table5,
        _curves,
        _agreement,
        _counts,
    )
    return [view for view in (make(evaluation) for make in makers) if view.rows]


def _figure4(e: Evaluation) -> TableView:
    columns: Columns[RerankRow] = (
        ("way", lambda r: _way(e, r.way)),
        ("accuracy, % [95 %]", lambda r: r.accuracy),
        ("n", lambda r: r.accuracy.n),
    )
    return table_of(
        "figure4",
        "Fig. 4 · Accuracy after reranking",
        "Share of test questions answered right, %. The paper (GSM8K 13B): 53 greedy → 65 "
        "reranked.",
        columns,
        e.figure4,
        lambda r: r.way == RERANKED,
    )


def _figure4_differences(e: Evaluation) -> TableView:
    columns: Columns[RerankDifference] = (
        ("difference", lambda d: f"{_way(e, d.first)} − {_way(e, d.second)}"),
        *((name, _of_difference(cell)) for name, cell in _PAIRED),
    )
    return table_of(
        "figure4-differences",
        "Fig. 4 · Paired differences",
        "On the same questions, in points.",
        columns,
        e.figure4_differences,
    )


def _table3(e: Evaluation) -> TableView:
    columns: Columns[FixedRow] = (
        ("refiner", lambda r: _group(r.refiners)),
        ("fixed, % [95 %]", lambda r: r.fixed),
        ("n", lambda r: r.fixed.n),
        ("no refinement", lambda r: r.n_without),
        ("ungraded", lambda r: r.n_unknown),
        (paper.PAPER_COLUMN, lambda r: paper.quoted(paper.TABLE_3.get(r.refiners))),
    )
    return table_of(
        "table3",
        "Table 3 · Wrong drafts that refinement fixes",
        "Share of wrong drafts, no reranker. A union counts a draft that either refiner fixes. "
        "“No refinement”: the reward model scored every step above the threshold and marked none.",
        columns,
        e.table3,
        lambda r: r.refiners == CANDIDATES,
    )


def _table3_differences(e: Evaluation) -> TableView:
    columns: Columns[FixedDifference] = (
        ("difference", lambda d: f"{_group(d.first)} − {_group(d.second)}"),
        *((name, _of_difference(cell)) for name, cell in _PAIRED),
    )
    return table_of(
        "table3-differences",
        "Table 3 · Paired differences",
        "On the same wrong drafts, in points. A union is never below its parts; the interval says "
        "by how much it is above.",
        columns,
        e.table3_differences,
    )


def _figure3(e: Evaluation) -> TableView:
    columns: Columns[RefineRow] = (
        ("refiner", lambda r: REFINER_NAMES[r.refiner]),
        ("all drafts", lambda r: r.all_drafts),
        ("only wrong", lambda r: r.only_wrong),
        ("when the ORM says", lambda r: r.orm_gated),
        ("n", lambda r: r.all_drafts.n),
        ("fixed", lambda r: r.fixed),
        ("broken", lambda r: r.broken),
        ("still right", lambda r: r.still_right),
        ("still wrong", lambda r: r.still_wrong),
        ("no refinement", lambda r: r.unrefined),
    )
    return table_of(
        "figure3",
        "Fig. 3 · Accuracy after refining, no reranker",
        "Three choices of the drafts to refine: every draft, only the wrong ones (a perfect judge "
        "of when), or those that the ORM calls wrong.",
        columns,
        e.figure3,
    )


def _table5(e: Evaluation) -> TableView:
    students = {r.student: r for r in e.table5}
    rows: list[tuple[Cell, ...]] = []
    for measure, name in _STUDENT_MEASURES:
        found = [getattr(r, measure) for r in e.table5]
        if any(x is not None for x in found):
            n = next(x.n for x in found if x is not None)
            quotes = [
                f"{s} {q}" for s in students if (q := paper.quoted(paper.TABLE_5.get((s, measure))))
            ]
            gain = e.ei_gain if measure == "greedy" else ""
            rows.append((name, *found, gain, n, "; ".join(quotes)))
    return TableView(
        "table5",
        "Table 5 · The student",
        "Supervised fine-tuning (SFT) and expert iteration (EI), %. "
        "Each student is reranked by an ORM trained on its own samples. The paper's K is 96.",
        (
            "measure",
            *(f"{s}, K = {r.k}" if r.k else s for s, r in students.items()),
            "EI − SFT, points",
            "n",
            paper.PAPER_COLUMN,
        ),
        tuple(rows),
    )


_STUDENT_MEASURES = (
    ("greedy", "greedy (maj@1)"),
    ("sampled", "one sample"),
    ("majority", "maj@K"),
    ("reranked", "Rerank@K by the ORM"),
    ("pass_k", "pass@K"),
    ("pass_8", "pass@8"),
)
"""Field of StudentRow → what it is called."""


def _curves(e: Evaluation) -> TableView:
    ways = list(dict.fromkeys(p.way for p in e.curves))
    ks = sorted({p.k for p in e.curves})
    found = {(p.way, p.k): p.accuracy for p in e.curves}
    return TableView(
        "curves",
        "Reranking samples, accuracy against K",
        "Expected accuracy when K of the samples are drawn and one is chosen. "
        "pass@K: at least one of them is right.",
        ("choice by", *(f"K = {k}" for k in ks), "n"),
        tuple(
            (
                MODEL_NAMES[way],
                *(found.get((way, k)) for k in ks),
                found[way, ks[0]].n,
            )
            for way in ways
        ),
    )


def _agreement(e: Evaluation) -> TableView:
    columns: Columns[AgreementRow] = (
        ("labels", lambda r: f"{r.where}: {r.rule}"),
        ("agreement", lambda r: r.agreement if r.agreement.n else "n/a"),
        ("balanced", lambda r: r.balanced if r.agreement.n else "n/a"),
        ("wrong drafts", lambda r: r.wrong_drafts if r.agreement.n else "n/a"),
        ("false → good", lambda r: r.called_good if r.agreement.n else "n/a"),
        ("true → bad", lambda r: r.called_bad if r.agreement.n else "n/a"),
        ("steps", lambda r: r.agreement.n),
        ("drafts (unlabelled)", lambda r: f"{r.n_drafts} ({r.n_unlabelled})"),
        ("good / bad", lambda r: f"{r.n_positive} / {r.n_negative}"),
        (
            "after balancing",
            lambda r: f"{r.n_kept_positive} / {r.n_kept_negative}" if r.where == TRAIN else "–",
        ),
    )
    return table_of(
        "agreement",
        "App. G · Step labels against the exact truth",
        "Agreement over all steps, class-balanced, and on wrong drafts alone (before the answer "
        "line), %. The paper: 94 % of 257 hand-labelled steps. Training labels are derived again "
        "with each post-processing step off; a rule without propagation needs full counts (n/a "
        "after a lazy scan).",
        columns,
        e.agreement,
        lambda r: (r.rule, r.where) == (AS_USED, TRAIN),
    )


def _counts(e: Evaluation) -> TableView:
    c = e.counts
    verdicts = (
        f"{c.n_drafts_right} right, {c.n_drafts_wrong} wrong, "
        f"{c.n_drafts_unknown} could not be graded"
    )
    rows: tuple[tuple[Cell, ...], ...] = (
        ("test questions", c.n_problems, ""),
        ("greedy drafts", c.n_drafts, verdicts),
        ("samples", c.n_samples, f"{c.n_samples_unknown} could not be graded"),
        ("refinements", c.n_refinements, f"{c.n_refinements_unknown} could not be graded"),
        ("drafts with step labels from rollouts", c.n_drafts_labelled, ""),
        ("drafts with the exact truth of each step", c.n_drafts_with_truth, ""),
    )
    note = (
        "A solution that could not be graded counts as not right in accuracies, and never as a "
        "wrong draft."
    )
    return TableView("counts", "Counts", note, ("what", "n", "of which"), rows)


_PAIRED: Columns[Difference] = (
    ("points [95 %]", lambda d: d),
    ("n", lambda d: d.n),
    ("only first right", lambda d: d.gained),
    ("only second right", lambda d: d.lost),
    ("McNemar p", lambda d: "–" if d.p is None else f"{d.p:.2g}"),
)


def _of_difference(
    cell: Callable[[Difference], Cell],
) -> Callable[[RerankDifference | FixedDifference], Cell]:
    return lambda row: cell(row.difference)


def _way(e: Evaluation, way: str) -> str:
    return WAY_NAMES[way].format(k=e.options.best_of)


def _group(refiners: tuple[str, ...]) -> str:
    return " ∪ ".join(REFINER_NAMES[r] for r in refiners)
